//! What the bridge makes of a room, and what it leaves as it is.

use anyhow::Result;
use serde_json::json;
use tests::evil_hs::Rule;
use tests::{ElementUser, Namespace, World};

use crate::Chat;

#[tokio::test]
async fn a_portal_says_that_it_is_one_and_that_the_bot_does_not_count() -> Result<()> {
    let world = World::start("portal-state").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let carol = world.omemo_user("carol").await?;

    let bobs_ghost = world.ghost_of(bob.jid());
    let own_room = alice.create_chat_with(&bobs_ghost).await?;
    says_that_it_is_a_portal(&world, &alice, &own_room, bob.jid()).await?;

    carol.send(&world.jid_of(alice.user_id()), "Hello", Namespace::Legacy).await?;
    let bridges_room = alice.invitation_from(&world.ghost_of(carol.jid())).await?.room;
    alice.join(&bridges_room).await?;
    says_that_it_is_a_portal(&world, &alice, &bridges_room, carol.jid()).await?;
    world.end().await
}

async fn says_that_it_is_a_portal(
    world: &World,
    alice: &ElementUser,
    room: &str,
    contact: &str,
) -> Result<()> {
    let (bot, ghost) = (world.bridge.bot(), world.ghost_of(contact));
    let key = format!("dev.gephyra://xmpp/{contact}");
    for kind in ["m.bridge", "uk.half-shot.bridge"] {
        let bridge = alice.sees_state(room, kind, &key).await?;
        assert_eq!(bridge.get("bridgebot"), Some(&json!(bot)), "{kind}");
        assert_eq!(bridge.get("creator"), Some(&json!(ghost)), "{kind}");
        assert_eq!(bridge.pointer("/protocol/id"), Some(&json!("xmpp")), "{kind}");
        assert_eq!(bridge.pointer("/channel/id"), Some(&json!(contact)), "{kind}");
    }
    let functional = alice.sees_state(room, "io.element.functional_members", "").await?;
    assert_eq!(functional, json!({ "service_members": [bot] }));
    alice.sees_join(room, &bot).await
}

#[tokio::test]
async fn a_persons_room_without_encryption_stays_as_it_is() -> Result<()> {
    let world = World::start("plain-portal").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let ghost = world.ghost_of(bob.jid());
    let room = alice.create_plain_chat_with(&ghost).await?;
    alice.sees_join(&room, &ghost).await?;

    alice.send(&room, "No secrets here").await?;
    let received = bob.receives("⚠️ not encrypted on Matrix: No secrets here").await?;
    assert!(received.namespace.is_some(), "the leg to Bob was not encrypted");
    for namespace in Namespace::BOTH {
        let body = format!("None here either, in {}", namespace.uri());
        bob.send(&world.jid_of(alice.user_id()), &body, namespace).await?;
        let shown = alice.receives(&body).await?;
        assert_eq!((shown.sender, shown.encrypted), (ghost.clone(), false));
    }
    alice.hears(&world.bridge.bot(), "bridge").await?;
    assert!(alice.messages().iter().all(|message| !message.encrypted));
    assert!(!alice.sees_encryption(&room).await?, "the bridge switched encryption on");
    world.end().await
}

/// Homeservers show a room to those who have left it as it was then: the ghost must not take that for the room.
#[tokio::test]
async fn what_a_contact_writes_when_their_ghost_has_left_comes_in_another_room() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("ghost-has-left").await?;
    let mut chat = Chat::open_in(world).await?;
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;
    let bot = chat.world.bridge.bot();
    chat.alice.sees_join(&chat.room, &bot).await?;

    // The bridge does not hear of it.
    chat.world.bridge.stop().await?;
    let _held = evil.obey(Rule::hold_transactions());
    let ghost = chat.ghost();
    for user in [&bot, &ghost] {
        chat.world.account_of(user).await?.leave(&chat.room).await?;
        chat.alice.sees_leave(&chat.room, user).await?;
    }
    let old = chat.room.clone();
    let of_ghost = || evil.sent_into(&old).into_iter().filter(|it| it.sender == ghost).count();
    let before = of_ghost();
    chat.world.bridge.run_connected().await?;
    chat.bob.send(&chat.alices_jid(), "Where are you?", Namespace::Omemo2).await?;
    let another = chat.alice.invitation_from(&ghost).await?.room;
    chat.alice.join(&another).await?;
    assert!(chat.alice.receives("Where are you?").await?.encrypted);
    let into_the_old = of_ghost() - before;
    println!(
        "safety: ghost_has_left: {into_the_old} messages into the room that it has left, 1 of 1 in another"
    );
    assert_eq!((into_the_old, another == chat.room), (0, false));
    chat.end().await
}
