//! What may go in the clear.

use anyhow::Result;
use tests::element::Shown;
use tests::journal::SOON;
use tests::omemo::{Device, Received};
use tests::xmpp_server::COMPONENT;
use tests::{Namespace, World};

use crate::Chat;

#[tokio::test]
async fn a_contact_without_omemo_gets_nothing_until_the_person_allows_plaintext() -> Result<()> {
    let world = World::start("no-omemo").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_device("bob", &Device { speaks: &[], ..Device::default() }).await?;
    let chat = Chat::between(world, alice, bob).await?;
    let Chat { alice, bob, room, .. } = &chat;

    alice.send(room, "Psst").await?;
    chat.bot_tells_alice("offers no encryption").await?;
    assert!(bob.messages().iter().all(|message| message.body != "Psst"));

    alice.send(room, "!xmpp plaintext allow").await?;
    assert_eq!(bob.receives("Psst").await?.namespace, None);
    alice.send(room, "!xmpp plaintext refuse").await?;
    alice.send(room, "Held again").await?;
    alice.send(room, "!xmpp version").await?;
    chat.bot_tells_alice("0.1.0").await?;
    assert!(bob.messages().iter().all(|message| message.body != "Held again"));
    chat.end().await
}

#[tokio::test]
async fn plaintext_from_xmpp_is_marked() -> Result<()> {
    let chat = Chat::open("plaintext-marked").await?;
    let Chat { alice, bob, room, world } = &chat;
    alice.send(room, "In secret").await?;
    bob.receives("In secret").await?;
    bob.send_plain(&chat.alices_jid(), "In the open").await?;
    let shown = alice.hears(&world.ghost_of(bob.jid()), "In the open").await?;
    assert!(shown.encrypted, "in an encrypted room the Matrix leg stays encrypted");
    assert_ne!(shown.body.as_deref(), Some("In the open"), "nothing marks it");
    assert!(shown.body.unwrap_or_default().contains("not encrypted"));
    let unmarked = |message: &Shown| message.body.as_deref() == Some("In the open");
    let unmarked = alice.messages().into_iter().filter(unmarked).count();
    println!("safety: plaintext_from_xmpp: {unmarked} of 1 messages unmarked");
    assert_eq!(unmarked, 0);

    bob.send(&chat.alices_jid(), "And in secret", Namespace::Legacy).await?;
    alice.receives("And in secret").await?;
    chat.end().await
}

#[tokio::test]
async fn plaintext_in_an_encrypted_room_is_refused() -> Result<()> {
    let chat = Chat::open("plaintext-refused").await?;
    let Chat { world, alice, bob, room } = &chat;
    let event = alice.send_in_the_clear(room, "Said by the homeserver").await?;
    alice.status_from(&world.bridge.bot(), &event, "FAIL_PERMANENT").await?;
    chat.bot_tells_alice("it was not encrypted, in an encrypted chat").await?;

    let command = alice.send_in_the_clear(room, "!xmpp version").await?;
    alice.status_from(&world.bridge.bot(), &command, "FAIL_PERMANENT").await?;
    alice.send(room, "Said by Alice").await?;
    bob.receives("Said by Alice").await?;
    let passed = |message: &&Received| message.body == "Said by the homeserver";
    let passed = bob.messages().iter().filter(passed).count();
    println!("safety: plaintext_from_matrix: {passed} of 1 messages bridged, its author told");
    assert_eq!(passed, 0);
    let answered = |message: &Shown| message.body.as_deref().unwrap_or_default().contains("0.1.0");
    assert!(!alice.messages().iter().any(answered), "a command in the clear was obeyed");
    chat.end().await
}

#[tokio::test]
async fn plaintext_in_a_room_without_encryption_is_marked_once_the_chat_was_encrypted() -> Result<()>
{
    let world = World::start("plaintext-in-a-plain-room").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let (ghost, jid) = (world.ghost_of(bob.jid()), world.jid_of(alice.user_id()));
    let room = alice.create_plain_chat_with(&ghost).await?;
    alice.sees_join(&room, &ghost).await?;
    alice.send(&room, "Hello").await?;
    let received = bob.receives("⚠️ not encrypted on Matrix: Hello").await?;
    assert!(received.namespace.is_some());

    bob.send_plain(&jid, "In the open").await?;
    let shown = alice.hears(&ghost, "In the open").await?;
    assert!(!shown.encrypted, "the room is not");
    let body = shown.body.unwrap_or_default();
    assert!(body.contains("not encrypted by the sender"), "nothing marks it: {body}");
    bob.send(&jid, "In secret", Namespace::Omemo2).await?;
    alice.receives("In secret").await?;
    world.end().await
}

#[tokio::test]
async fn plaintext_is_refused_where_the_operator_says_so_and_told_once() -> Result<()> {
    let mut world = World::start("plaintext-from-xmpp-refused").await?;
    world.bridge.stop().await?;
    world.bridge.configure("plaintext_from_contacts", "\"refuse\"")?;
    world.bridge.run_connected().await?;
    let chat = Chat::open_in(world).await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "In secret").await?;
    bob.receives("In secret").await?;

    bob.send_plain(&chat.alices_jid(), "In the open").await?;
    chat.bot_tells_alice("unencrypted, though this conversation has been encrypted").await?;
    let is_refusal = |message: &Received| {
        message.sender == COMPONENT && message.body.contains("it came unencrypted")
    };
    bob.message_where(SOON, is_refusal).await?;
    bob.send_plain(&chat.alices_jid(), "Again in the open").await?;
    bob.send(&chat.alices_jid(), "And in secret", Namespace::Legacy).await?;
    alice.receives("And in secret").await?;

    let passed = |message: &Shown| message.body.as_deref().unwrap_or_default().contains("open");
    let passed = alice.messages().into_iter().filter(passed).count();
    let told = bob.messages().iter().filter(|message| is_refusal(message)).count();
    println!("safety: refused_from_xmpp: {passed} of 2 messages bridged, told {told} time");
    assert_eq!((passed, told), (0, 1));
    chat.end().await
}

#[tokio::test]
async fn consent_to_plaintext_ends_once_encryption_was_used() -> Result<()> {
    let world = World::start("consent-ends").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_device("bob", &Device { speaks: &[], ..Device::default() }).await?;
    let mut chat = Chat::between(world, alice, bob).await?;
    chat.alice.send(&chat.room, "!xmpp plaintext allow").await?;
    chat.alice.send(&chat.room, "In the open").await?;
    assert_eq!(chat.bob.receives("In the open").await?.namespace, None);

    let device = Device { name: "phone", ..Device::default() };
    let phone = chat.world.omemo_device("bob", &device).await?;
    phone.send(&chat.alices_jid(), "I have OMEMO now", Namespace::Legacy).await?;
    chat.alice.receives("I have OMEMO now").await?;
    chat.alice.send(&chat.room, "In secret").await?;
    phone.receives("In secret").await?;
    chat.world.bridge.kill().await?;
    chat.world.bridge.run_connected().await?;

    phone.leave_omemo().await?;
    phone.send_plain(&chat.alices_jid(), "It is off again").await?;
    chat.alice.hears(&chat.world.ghost_of(chat.bob.jid()), "It is off again").await?;
    chat.alice.send(&chat.room, "Not in the open").await?;
    chat.bot_tells_alice("offers no encryption").await?;
    let open = |message: &&Received| message.body == "Not in the open";
    let open = chat.bob.messages().iter().filter(open).count();
    println!("safety: ended_consent: {open} of 1 messages left in the clear");
    assert_eq!(open, 0);
    chat.end().await
}
