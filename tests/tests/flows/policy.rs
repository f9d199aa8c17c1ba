//! What may go in the clear.

use anyhow::Result;
use tests::element::Shown;
use tests::omemo::{Device, Received};
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
