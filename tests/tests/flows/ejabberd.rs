//! The same bridge beside ejabberd.

use anyhow::Result;
use tests::omemo::Device;
use tests::{Namespace, Shield, World};

use crate::Chat;

#[tokio::test]
async fn with_ejabberd_both_legs_are_encrypted_in_both_namespaces_without_a_shield() -> Result<()> {
    let world = World::start_with_ejabberd("ejabberd-first-messages").await?;
    let alice = world.element_user("alice").await?;
    let jid = world.jid_of(alice.user_id());
    for (name, namespace) in [("bob", Namespace::Legacy), ("carol", Namespace::Omemo2)] {
        let device = Device { speaks: &[namespace], ..Device::default() };
        let contact = world.omemo_device(name, &device).await?;
        let ghost = world.ghost_of(contact.jid());
        let room = alice.create_chat_with(&ghost).await?;
        alice.sees_join(&room, &ghost).await?;

        let question = format!("Can you read this, {name}?");
        alice.send(&room, &question).await?;
        let received = contact.receives(&question).await?;
        assert_eq!(received.sender, jid);
        assert_eq!(received.namespace.as_deref(), Some(namespace.uri()));

        let answer = format!("I can, says {name}");
        let stanza = contact.send(&jid, &answer, namespace).await?;
        let shown = alice.receives(&answer).await?;
        assert_eq!((shown.sender, shown.encrypted), (ghost, true));
        assert_eq!((shown.shield, shown.reason), (Some(Shield::None), None));
        contact.receipt_for(&stanza).await?;
        assert_eq!(contact.undecryptable(), 0);
    }
    world.end().await
}

#[tokio::test]
async fn with_ejabberd_a_person_on_xmpp_writes_first() -> Result<()> {
    let world = World::start_with_ejabberd("ejabberd-xmpp-first").await?;
    let alice = world.element_user("alice").await?;
    for (name, namespace) in [("bob", Namespace::Legacy), ("carol", Namespace::Omemo2)] {
        let contact = world.omemo_user(name).await?;
        let ghost = world.ghost_of(contact.jid());
        let question = format!("Have we met? It is {name}");
        let stanza = contact.send(&world.jid_of(alice.user_id()), &question, namespace).await?;
        let invitation = alice.invitation_from(&ghost).await?;
        contact.receipt_for(&stanza).await?;
        alice.join(&invitation.room).await?;
        assert!(alice.sees_encryption(&invitation.room).await?);
        let shown = alice.receives(&question).await?;
        assert_eq!((shown.sender, shown.shield), (ghost, Some(Shield::None)));

        let answer = format!("We have now, {name}");
        alice.send(&invitation.room, &answer).await?;
        contact.receives(&answer).await?;
    }
    world.end().await
}

#[tokio::test]
async fn with_ejabberd_a_conversation_outlives_a_restart_of_the_server() -> Result<()> {
    let mut chat = Chat::open_in(World::start_with_ejabberd("ejabberd-restart").await?).await?;
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;
    chat.bob.stop().await?;
    chat.world.xmpp.restart().await?;
    let event = chat.alice.send(&chat.room, "After").await?;
    chat.alice.status_from(&chat.world.bridge.bot(), &event, "SUCCESS").await?;

    // The same device again, with the keys that it has kept. What waits at its server comes with its presence.
    let bob = chat.world.omemo_user("bob").await?;
    bob.receives("After").await?;
    let jid = chat.world.jid_of(chat.alice.user_id());
    let stanza = bob.send(&jid, "Welcome back", Namespace::Omemo2).await?;
    assert_eq!(chat.alice.receives("Welcome back").await?.shield, Some(Shield::None));
    bob.receipt_for(&stanza).await?;
    assert_eq!(bob.undecryptable(), 0);
    chat.world.end().await
}

#[tokio::test]
async fn with_ejabberd_a_contacts_new_device_reads_before_it_has_written() -> Result<()> {
    let chat = Chat::open_in(World::start_with_ejabberd("ejabberd-new-device").await?).await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "To the phone").await?;
    bob.receives("To the phone").await?;
    let device = Device { name: "laptop", ..Device::default() };
    let laptop = world.omemo_device("bob", &device).await?;
    alice.send(room, "To both").await?;
    bob.receives("To both").await?;
    laptop.receives("To both").await?;
    chat.end().await
}
