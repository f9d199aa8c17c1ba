//! A homeserver that fails on every endpoint that the bridge uses. Whatever it does, each message arrives once and in
//! order; lines that begin with `safety:` are figures of `cargo xtask safety`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::Method;
use tests::element::Shown;
use tests::evil_hs::{Fault, Link, Order, Request, Rule};
use tests::{ElementUser, EvilHomeserver, Namespace, OmemoUser, World};

use crate::Chat;

/// What the bridge asks of a homeserver (`bridge/src/matrix/client/`) when a contact whom nobody knows writes first and
/// is answered. The first request to each meets the fault.
const ENDPOINTS: &[(Method, &str)] = &[
    (Method::POST, "/register"),
    (Method::PUT, "/devices/"),
    (Method::POST, "/keys/device_signing/upload"),
    (Method::POST, "/keys/upload"),
    (Method::POST, "/keys/query"),
    (Method::POST, "/keys/claim"),
    (Method::PUT, "/sendToDevice/m.room.encrypted"),
    (Method::GET, "/sync"),
    (Method::POST, "/createRoom"),
    (Method::POST, "/join"),
    (Method::GET, "/profile/"),
    (Method::PUT, "/displayname"),
    (Method::GET, "/joined_members"),
    (Method::GET, "/members"),
    (Method::GET, "/state"),
    (Method::PUT, "/state/"),
    (Method::PUT, "/send/m.room.encrypted/"),
    (Method::PUT, "/send/com.beeper.message_send_status/"),
];

/// What it asks for now and then: at a start, of somebody whom it does not serve, at an invitation, for a picture, and
/// after a comparison of keys.
const RARER: &[(Method, &str)] = &[
    (Method::POST, "/ping"),
    (Method::POST, "/leave"),
    (Method::GET, "/messages"),
    (Method::POST, "/invite"),
    (Method::POST, "/media/v3/upload"),
    (Method::POST, "/keys/signatures/upload"),
];

/// Retries take their time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whose messages are looked for.
struct Scene {
    world: World,
    evil: EvilHomeserver,
    alice: ElementUser,
}

impl Scene {
    async fn open(story: &str) -> Result<Self> {
        let (world, evil) = World::start_with_evil_homeserver(story).await?;
        let alice = world.element_user("alice").await?;
        Ok(Self { world, evil, alice })
    }

    /// A new contact writes to Alice and is answered while every endpoint fails once; gives how many did.
    async fn survives(&self, contact: &str, fault: Fault) -> Result<usize> {
        let bob = self.world.omemo_user(contact).await?;
        let orders: Vec<Order> = ENDPOINTS
            .iter()
            .map(|(method, path)| Rule::fault(Link::Client, Some(method.clone()), path, fault))
            .map(|rule| self.evil.obey(rule.times(1)))
            .collect();
        let room = self.hears_from(&bob).await?;
        let answers: Vec<_> = (0..3).map(|number| format!("Hello {contact} {number}")).collect();
        for text in &answers {
            self.alice.send(&room, text).await?;
        }
        for text in &answers {
            bob.receives_within(text, PATIENCE).await?;
        }
        let alices_jid = self.world.jid_of(self.alice.user_id());
        ensure!(bob.texts_from(&alices_jid) == answers, "{fault:?}: not once, or not in order");
        ensure!(bob.undecryptable() == 0, "{fault:?}: something could not be decrypted");
        Ok(orders.iter().filter(|order| order.times_applied() == 1).count())
    }

    /// Three messages come from somebody; gives the room.
    async fn hears_from(&self, bob: &OmemoUser) -> Result<String> {
        let ghost = self.world.ghost_of(bob.jid());
        let alices_jid = self.world.jid_of(self.alice.user_id());
        let texts: Vec<_> = (0..3).map(|number| format!("{} {number}", bob.jid())).collect();
        for text in &texts {
            bob.send(&alices_jid, text, Namespace::Legacy).await?;
        }
        let room = self.joined_room_of(&ghost).await?;
        for text in &texts {
            self.alice.receives_within(text, PATIENCE).await?;
        }
        let of_bob = self.alice.messages().into_iter().filter(|it| it.sender == ghost);
        let shown: Vec<_> = of_bob.map(|it| it.body.unwrap_or_default()).collect();
        ensure!(shown == texts, "not once, or not in order: {shown:?}");
        Ok(room)
    }

    async fn joined_room_of(&self, ghost: &str) -> Result<String> {
        let room = self.alice.invitation_from(ghost).await?.room;
        self.alice.join(&room).await.context("joining")?;
        Ok(room)
    }
}

#[tokio::test]
async fn errors_on_every_endpoint_cost_no_message() -> Result<()> {
    let scene = Scene::open("homeserver-errors").await?;
    let faults = [
        ("bob", Fault::Fail { status: 500 }),
        ("bea", Fault::Fail { status: 502 }),
        ("ben", Fault::Limit { retry_after_ms: 300 }),
    ];
    let mut met = 0;
    for (contact, fault) in faults {
        met += scene.survives(contact, fault).await?;
    }
    println!("safety: homeserver_errors: 18 messages once and in order, {met} endpoints failed");
    scene.world.end().await
}

#[tokio::test]
async fn errors_on_the_rarer_endpoints_cost_nothing_either() -> Result<()> {
    let (mut world, evil) = World::start_with_evil_homeserver("rarer-endpoints").await?;
    world.bridge.stop().await?;
    world.bridge.permit("@mallory:localhost", "block")?;
    let fault = Fault::Fail { status: 500 };
    let rule = |(method, path): &(Method, &str)| {
        Rule::fault(Link::Client, Some(method.clone()), path, fault).times(1)
    };
    let orders: Vec<Order> = RARER.iter().map(|endpoint| evil.obey(rule(endpoint))).collect();
    world.bridge.run().await?;
    let bot = world.bridge.bot();
    let mallory = world.element_user("mallory").await?;
    let room = mallory.create_chat_with(&bot).await?;
    mallory.sees_leave(&room, &bot).await?;

    let chat = Chat::open_in(world).await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.sees_join(room, &bot).await?;
    alice.send(room, "Hello").await?;
    bob.receives_within("Hello", PATIENCE).await?;
    bob.send(&chat.alices_jid(), "Hello to you", Namespace::Legacy).await?;
    alice.receives_within("Hello to you", PATIENCE).await?;
    // A picture is not made twice by itself: the bot says so, and is asked again.
    alice.send(room, "!xmpp qr").await?;
    alice.hears(&bot, "That did not work").await?;
    alice.send(room, "!xmpp qr").await?;
    let is_picture = |message: &Shown| message.msgtype.as_deref() == Some("m.image");
    alice.message_where(PATIENCE, is_picture).await?;
    chat.alice_begins_and_both_see_the_same().await?;
    chat.bob_answers("match").await?;
    alice.says_emoji_are_the_same().await?;
    alice.verification_is("Done").await?;
    for order in &orders {
        order.applied(1).await?;
    }
    alice.comes_to_see_verified(&chat.ghost()).await?;
    bob.send(&chat.alices_jid(), "And you know me", Namespace::Omemo2).await?;
    alice.receives_within("And you know me", PATIENCE).await?;
    let failures = alice.messages().iter().filter(|it| it.failure.is_some()).count();
    println!(
        "safety: rarer_endpoints: {} of {} endpoints failed; 3 of 3 messages, a chat, a refusal, a picture and a comparison of \
         keys came to their end",
        orders.iter().filter(|order| order.times_applied() == 1).count(),
        RARER.len()
    );
    ensure!((failures, bob.undecryptable()) == (0, 0));
    chat.end().await
}

#[tokio::test]
async fn connections_that_break_on_every_endpoint_cost_no_message() -> Result<()> {
    let scene = Scene::open("homeserver-breaks").await?;
    let faults = [("bob", Fault::Block), ("bea", Fault::LoseAnswer), ("ben", Fault::HalveAnswer)];
    let mut met = 0;
    for (contact, fault) in faults {
        met += scene.survives(contact, fault).await?;
    }
    println!("safety: homeserver_breaks: 18 messages once and in order, {met} connections broke");
    scene.world.end().await
}

/// The homeserver has the event. The bridge waits a minute for the answer and sends the event again.
#[tokio::test]
async fn an_event_whose_answer_does_not_come_in_time_is_shown_once() -> Result<()> {
    let scene = Scene::open("homeserver-late").await?;
    let bob = scene.world.omemo_user("bob").await?;
    scene.hears_from(&bob).await?;
    let path = "/send/m.room.encrypted/";
    let held = scene.evil.obey(Rule::hold_answers(Method::PUT, path, |_| true).times(1));
    let seen = scene.evil.requests().len();
    let alices_jid = scene.world.jid_of(scene.alice.user_id());
    for text in ["Late", "Behind it"] {
        bob.send(&alices_jid, text, Namespace::Omemo2).await?;
    }
    held.applied(1).await?;
    let mut sent = BTreeSet::new();
    let again = |request: &Request| {
        (request.path.contains(path) && !sent.insert(request.path.clone())).then_some(())
    };
    scene.evil.requests().wait_for_after(seen, "the event again", PATIENCE, again).await?;
    drop(held);
    scene.alice.receives_within("Behind it", PATIENCE).await?;
    let ghost = scene.world.ghost_of(bob.jid());
    let of_bob = scene.alice.messages().into_iter().filter(|it| it.sender == ghost);
    let shown: Vec<_> = of_bob.map(|it| it.body.unwrap_or_default()).skip(3).collect();
    println!("safety: homeserver_late: shown {} of 2 messages, in order", shown.len());
    assert_eq!(shown, ["Late", "Behind it"]);
    scene.world.end().await
}

#[tokio::test]
async fn transactions_that_fail_in_every_way_are_one_message_each() -> Result<()> {
    let scene = Scene::open("push-faults").await?;
    let bob = scene.world.omemo_user("bob").await?;
    let room = scene.hears_from(&bob).await?;
    let faults = [
        Fault::Block,
        Fault::LoseAnswer,
        Fault::HalveAnswer,
        Fault::Fail { status: 500 },
        Fault::Limit { retry_after_ms: 100 },
        Fault::Duplicate,
        Fault::Overtaken,
    ];
    let mut texts = Vec::new();
    for fault in faults {
        let path = "/transactions/";
        let rule = Rule::fault(Link::Push, Some(Method::PUT), path, fault);
        let order = scene.evil.obey(rule.times(1));
        texts.push(format!("{fault:?}"));
        scene.alice.send(&room, &format!("{fault:?}")).await?;
        order.applied(1).await?;
    }
    let held = scene.evil.obey(Rule::hold_transactions());
    for text in ["Late", "Behind it"] {
        texts.push(text.to_owned());
        scene.alice.send(&room, text).await?;
    }
    held.applied(1).await?;
    drop(held);
    for text in &texts {
        bob.receives_within(text, PATIENCE).await?;
    }
    let shown = bob.texts_from(&scene.world.jid_of(scene.alice.user_id()));
    println!("safety: push_faults: {} of {} messages, in order", shown.len(), texts.len());
    assert_eq!((shown, bob.undecryptable()), (texts, 0));
    scene.world.end().await
}
