//! The first words in either direction.

use anyhow::Result;
use tests::{Namespace, Shield, World};

use crate::Chat;

#[tokio::test]
async fn both_legs_are_encrypted_and_element_shows_no_shield() -> Result<()> {
    let chat = Chat::open("first-messages").await?;
    let Chat { world, alice, bob, room } = &chat;
    let ghost = world.ghost_of(bob.jid());

    alice.send(room, "Hello Bob, this is Alice").await?;
    let received = bob.receives("Hello Bob, this is Alice").await?;
    assert_eq!(received.sender, chat.alices_jid());
    assert!(received.namespace.is_some(), "it was not encrypted with OMEMO");

    for namespace in Namespace::BOTH {
        let body = format!("Hello Alice, in {}", namespace.uri());
        let stanza = bob.send(&chat.alices_jid(), &body, namespace).await?;
        let shown = alice.receives(&body).await?;
        assert_eq!((shown.sender.as_str(), shown.encrypted), (ghost.as_str(), true));
        assert_eq!((shown.shield, shown.reason), (Some(Shield::None), None));
        bob.receipt_for(&stanza).await?;
    }

    alice.exclude_insecure_devices().await?;
    bob.send(&chat.alices_jid(), "Only signed devices", Namespace::Legacy).await?;
    assert_eq!(alice.receives("Only signed devices").await?.shield, Some(Shield::None));
    alice.send(room, "I can still write").await?;
    bob.receives("I can still write").await?;
    assert_eq!(bob.undecryptable(), 0);

    let bodies = ["Hello Bob, this is Alice", "Only signed devices", "I can still write"];
    for body in bodies {
        assert_eq!(world.bridge.files_containing(body)?, Vec::<std::path::PathBuf>::new());
    }
    chat.end().await
}

#[tokio::test]
async fn both_sides_are_told_once_that_a_bridge_reads_along() -> Result<()> {
    let chat = Chat::open("introduction").await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "one").await?;
    bob.receives("one").await?;
    chat.bot_tells_alice("bridge").await?;
    let notice = chat.bridge_tells_bob("bridge").await?;
    assert!(notice.namespace.is_some(), "the notice was not encrypted");
    alice.send(room, "two").await?;
    bob.receives("two").await?;
    let from_bridge = |sender: &str| sender == tests::xmpp_server::COMPONENT;
    let notices = bob.messages().iter().filter(|message| from_bridge(&message.sender)).count();
    assert_eq!(notices, 1);
    chat.end().await
}

#[tokio::test]
async fn a_person_on_xmpp_writes_first() -> Result<()> {
    let world = World::start("xmpp-first").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let jid = world.jid_of(alice.user_id());
    let ghost = world.ghost_of(bob.jid());

    let stanza = bob.send(&jid, "Hello, have we met?", Namespace::Legacy).await?;
    let invitation = alice.invitation_from(&ghost).await?;
    bob.receipt_for(&stanza).await?;
    alice.join(&invitation.room).await?;
    assert!(alice.sees_encryption(&invitation.room).await?);
    let shown = alice.receives("Hello, have we met?").await?;
    assert_eq!((shown.sender, shown.shield), (ghost, Some(Shield::None)));

    alice.send(&invitation.room, "We have now").await?;
    bob.receives("We have now").await?;
    world.end().await
}

#[tokio::test]
async fn a_contact_is_told_of_the_bridge_once_though_both_begin_at_once() -> Result<()> {
    let chat = Chat::open("told-once").await?;
    let Chat { alice, bob, room, .. } = &chat;
    let to = chat.alices_jid();
    tokio::try_join!(
        alice.send(room, "Hello Bob"),
        bob.send(&to, "Hello Alice", Namespace::Legacy)
    )?;
    bob.receives("Hello Bob").await?;
    alice.receives("Hello Alice").await?;
    chat.bot_tells_alice("bridge").await?;
    // Two round trips: what was under way has arrived.
    for number in 0..2 {
        alice.send(room, &format!("To Bob {number}")).await?;
        bob.receives(&format!("To Bob {number}")).await?;
        bob.send(&to, &format!("To Alice {number}"), Namespace::Legacy).await?;
        alice.receives(&format!("To Alice {number}")).await?;
    }
    assert_eq!(bob.texts_from(tests::xmpp_server::COMPONENT).len(), 1);
    chat.end().await
}
