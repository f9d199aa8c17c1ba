//! A homeserver that fails on every endpoint that the bridge uses. Whatever it does, each message arrives once and in
//! order; lines that begin with `safety:` are figures of `cargo xtask safety`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::Method;
use serde_json::Value;
use tests::element::Shown;
use tests::evil_hs::{Fault, Link, Order, Request, Rule};
use tests::{ElementUser, EvilHomeserver, Namespace, OmemoUser, World};

use crate::Chat;

/// What the bridge asks of a homeserver (`bridge/src/matrix/client/`) when a contact whom nobody knows writes first and
/// is answered. The first request to each meets the fault.
const ENDPOINTS: &[(Method, &str)] = &[
    (Method::POST, "/register"),
    (Method::PUT, "/devices/"),
    (Method::GET, "/devices"),
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
    (Method::GET, "/state"),
    (Method::PUT, "/state/"),
    (Method::PUT, "/send/m.room.encrypted/"),
    (Method::PUT, "/send/com.beeper.message_send_status/"),
];

/// What it asks for now and then: at a start, of a ghost that has had another device, of somebody whom it does not serve,
/// at an invitation, for a picture, and after a comparison of keys.
const RARER: &[(Method, &str)] = &[
    (Method::POST, "/ping"),
    (Method::POST, "/delete_devices"),
    (Method::POST, "/leave"),
    (Method::GET, "/joined_members"),
    (Method::GET, "/members"),
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
        let orders = fail_once(&self.evil, ENDPOINTS, fault);
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
        have_failed(&orders).await
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

/// The first request to each of these endpoints meets a fault.
fn fail_once(evil: &EvilHomeserver, endpoints: &[(Method, &str)], fault: Fault) -> Vec<Order> {
    let rule = |(method, path): &(Method, &str)| {
        Rule::fault(Link::Client, Some(method.clone()), path, fault).times(1)
    };
    endpoints.iter().map(|endpoint| evil.obey(rule(endpoint))).collect()
}

/// Waits until each of them has failed; gives how many that are.
async fn have_failed(orders: &[Order]) -> Result<usize> {
    for order in orders {
        order.applied(1).await?;
    }
    Ok(orders.iter().map(Order::times_applied).sum())
}

/// What the bridge has asked for, and neither list names.
fn unlisted(evil: &EvilHomeserver) -> BTreeSet<String> {
    let is_listed = |request: &Request| {
        let is_it = |(method, path): &(Method, &str)| {
            *method == request.method && request.path.contains(path)
        };
        ENDPOINTS.iter().chain(RARER).any(is_it)
    };
    evil.requests().read(|all| {
        let asked = all.iter().filter(|request| request.link == Link::Client);
        let unlisted = asked.filter(|request| !is_listed(request));
        unlisted.map(|request| format!("{} {}", request.method, request.path)).collect()
    })
}

/// The events of a transaction in which somebody says something in secret.
fn messages_of(user: &str, transaction: &Request) -> Vec<String> {
    let field =
        |event: &Value, name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
    let is_message = |event: &Value| {
        field(event, "sender").as_deref() == Some(user)
            && field(event, "type").as_deref() == Some("m.room.encrypted")
    };
    let messages = transaction.events().filter(is_message);
    messages.filter_map(|event| field(&event, "event_id")).collect()
}

/// Transactions with a message of somebody that was in none before. An earlier one may be repeated meanwhile.
fn have_new_messages_of(
    user: &str,
    evil: &EvilHomeserver,
) -> impl Fn(&Request) -> bool + Send + Sync + use<> {
    let user = user.to_owned();
    let pushed = |all: &[Request]| all.iter().flat_map(|it| messages_of(&user, it)).collect();
    let known: BTreeSet<String> = evil.requests().read(pushed);
    move |transaction| messages_of(&user, transaction).iter().any(|id| !known.contains(id))
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
    println!("safety: homeserver_errors: 18 messages once and in order, {met} requests failed");
    ensure!(unlisted(&scene.evil).is_empty(), "{:?}", unlisted(&scene.evil));
    scene.world.end().await
}

#[tokio::test]
async fn errors_on_the_rarer_endpoints_cost_nothing_either() -> Result<()> {
    let (mut world, evil) = World::start_with_evil_homeserver("rarer-endpoints").await?;
    world.bridge.stop().await?;
    world.bridge.permit("@mallory:localhost", "block")?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    world.leave_device_of(&world.ghost_of(bob.jid())).await?;
    let orders = fail_once(&evil, RARER, Fault::Fail { status: 500 });
    world.bridge.run_connected().await?;
    let bot = world.bridge.bot();
    let mallory = world.element_user("mallory").await?;
    let room = mallory.create_chat_with(&bot).await?;
    mallory.sees_leave(&room, &bot).await?;

    let chat = Chat::between(world, alice, bob).await?;
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
    let failed = have_failed(&orders).await?;
    alice.comes_to_see_verified(&chat.ghost()).await?;
    bob.send(&chat.alices_jid(), "And you know me", Namespace::Omemo2).await?;
    alice.receives_within("And you know me", PATIENCE).await?;
    let failures = alice.messages().iter().filter(|it| it.failure.is_some()).count();
    println!(
        "safety: rarer_endpoints: {failed} of {} endpoints failed; 3 of 3 messages, a chat, a refusal, a picture and a \
         comparison of keys came to their end",
        RARER.len()
    );
    ensure!((failures, bob.undecryptable()) == (0, 0));
    ensure!(unlisted(&evil).is_empty(), "{:?}", unlisted(&evil));
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

/// Every event and every message to a device arrives behind what the bridge asks for later, wherever it asks for more than
/// one thing at a time.
#[tokio::test]
async fn events_and_room_keys_that_are_overtaken_cost_no_message() -> Result<()> {
    let scene = Scene::open("overtaken").await?;
    let (bob, bea) = (scene.world.omemo_user("bob").await?, scene.world.omemo_user("bea").await?);
    let chats = [(&bob, scene.hears_from(&bob).await?), (&bea, scene.hears_from(&bea).await?)];
    let orders = ["/send/", "/sendToDevice/"].map(|path| {
        scene.evil.obey(Rule::fault(Link::Client, Some(Method::PUT), path, Fault::Overtaken))
    });
    let alices_jid = scene.world.jid_of(scene.alice.user_id());
    let texts: Vec<_> = (0..4).map(|number| format!("Overtaken {number}")).collect();
    for (number, text) in texts.iter().enumerate() {
        for (contact, room) in &chats {
            if number.is_multiple_of(2) {
                scene.alice.send(room, "!xmpp rotate").await?;
            }
            scene.alice.send(room, text).await?;
            contact.send(&alices_jid, text, Namespace::Omemo2).await?;
        }
    }
    let last = texts.last().context("there are texts")?;
    for (contact, _) in &chats {
        contact.receives_within(last, PATIENCE).await?;
        let ghost = scene.world.ghost_of(contact.jid());
        let is_last = |it: &Shown| it.sender == ghost && it.body.as_ref() == Some(last);
        scene.alice.message_where(PATIENCE, is_last).await?;
        let of_ghost = scene.alice.messages().into_iter().filter(|it| it.sender == ghost);
        let shown: Vec<_> = of_ghost.map(|it| it.body.unwrap_or_default()).skip(3).collect();
        ensure!(shown == texts, "not once, or not in order: {shown:?}");
        ensure!(contact.texts_from(&alices_jid) == texts, "not once, or not in order");
        ensure!(contact.undecryptable() == 0, "something could not be decrypted");
    }
    let [events, keys] = orders.each_ref().map(Order::times_overtaken);
    println!(
        "safety: overtaken: {events} events and {keys} messages to devices arrived behind later requests, 16 of 16 messages \
         once and in order"
    );
    ensure!(events > 0 && keys > 0, "nothing was overtaken: {orders:?}");
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
    ];
    let mut texts = Vec::new();
    for fault in faults {
        let rule = Rule::fault(Link::Push, Some(Method::PUT), "/transactions/", fault);
        let rule = rule.only(have_new_messages_of(scene.alice.user_id(), &scene.evil));
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
