//! What the bridge makes of a room, and what it leaves as it is.

use anyhow::Result;
use serde_json::json;
use tests::{ElementUser, Namespace, World};

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
