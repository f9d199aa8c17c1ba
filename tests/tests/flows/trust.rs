//! Keys that change, and people without signed devices.

use anyhow::Result;
use tests::omemo::Device;
use tests::{ElementUser, Namespace, World};

use crate::Chat;

#[tokio::test]
async fn a_contacts_changed_key_holds_messages_until_approved() -> Result<()> {
    let chat = Chat::open("contacts-key-change").await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "Before").await?;
    bob.receives("Before").await?;

    let device = Device { name: "reinstalled", device_id: bob.device_id(), ..Device::default() };
    let stranger = world.omemo_device("bob", &device).await?;
    alice.send(room, "Is it you?").await?;
    chat.bot_tells_alice("identity of your contact has changed").await?;
    assert!(stranger.messages().is_empty(), "a key that nobody approved was encrypted to");

    alice.send(room, "!xmpp approve").await?;
    stranger.receives("Is it you?").await?;
    stranger.send(&chat.alices_jid(), "It is me", Namespace::Legacy).await?;
    alice.receives("It is me").await?;
    chat.end().await
}

#[tokio::test]
async fn a_matrix_persons_changed_identity_holds_messages_until_approved() -> Result<()> {
    let chat = Chat::open("matrix-key-change").await?;
    let Chat { alice, bob, room, .. } = &chat;
    bob.send(&chat.alices_jid(), "Before", Namespace::Legacy).await?;
    alice.receives("Before").await?;
    alice.send(room, "Before as well").await?;
    bob.receives("Before as well").await?;

    alice.set_up_cross_signing().await?;
    bob.send(&chat.alices_jid(), "Is it still you?", Namespace::Legacy).await?;
    chat.bot_tells_alice("Your encryption identity has changed").await?;
    let shown = |body: &str| alice.messages().iter().any(|m| m.body.as_deref() == Some(body));
    assert!(!shown("Is it still you?"));

    bob.message_where(tests::journal::SOON, |message| {
        message.sender == tests::prosody::COMPONENT && message.body.contains("has changed")
    })
    .await?;

    alice.send(room, "!xmpp approve me").await?;
    alice.receives("Is it still you?").await?;
    alice.send(room, "It is").await?;
    bob.receives("It is").await?;
    chat.end().await
}

#[tokio::test]
async fn a_person_without_signed_devices_is_told_once_and_loses_nothing() -> Result<()> {
    let world = World::start("no-cross-signing").await?;
    let account = world.homeserver.register("alice").await?;
    let alice = ElementUser::log_in(&world.homeserver, &account, "first", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let ghost = world.ghost_of(bob.jid());
    let bot = world.bridge.bot();
    let jid = world.jid_of(alice.user_id());

    bob.send(&jid, "First", Namespace::Legacy).await?;
    let room = alice.invitation_from(&ghost).await?.room;
    alice.join(&room).await?;
    let told = alice.hears(&bot, "none of your devices is verified").await?;
    assert!(!told.encrypted);
    bob.send(&jid, "Second", Namespace::Legacy).await?;

    alice.set_up_cross_signing().await?;
    for body in ["First", "Second"] {
        assert_eq!(alice.receives(body).await?.sender, ghost);
    }
    let tellings = alice.messages().into_iter().filter(|message| message.body == told.body);
    assert_eq!(tellings.count(), 1);
    world.end().await
}
