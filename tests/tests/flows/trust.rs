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
    // What is answered was tried behind it.
    alice.send(room, "!xmpp version").await?;
    chat.bot_tells_alice("0.1.0").await?;
    let reached = stranger.messages().len() + stranger.undecryptable();
    println!("safety: changed_contact: {reached} of 1 messages reached the unapproved key");
    assert_eq!(reached, 0, "a key that nobody approved was encrypted to");

    alice.send(room, "!xmpp approve").await?;
    stranger.receives("Is it you?").await?;
    alice.send(room, "And still?").await?;
    stranger.receives("And still?").await?;
    assert_eq!(stranger.texts_from(&chat.alices_jid()), ["Is it you?", "And still?"]);
    assert_eq!(stranger.undecryptable(), 0);
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
    // The answer comes behind what was let into the room.
    alice.send(room, "!xmpp version").await?;
    chat.bot_tells_alice("0.1.0").await?;
    let shown = |body: &str| alice.messages().iter().any(|m| m.body.as_deref() == Some(body));
    assert!(!shown("Is it still you?"));

    chat.bridge_tells_bob("has changed").await?;

    alice.send(room, "!xmpp approve me").await?;
    alice.receives("Is it still you?").await?;
    alice.send(room, "It is").await?;
    bob.receives("It is").await?;
    println!("safety: self_approval: 1 of 1 new identities approved by themselves");
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

#[tokio::test]
async fn what_an_unsigned_device_writes_waits_until_its_owner_signs_it() -> Result<()> {
    let world = World::start("unsigned-only-device").await?;
    let account = world.homeserver.register("alice").await?;
    let alice = ElementUser::log_in(&world.homeserver, &account, "first", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let chat = Chat::between(world, alice, bob).await?;
    let Chat { world, alice, bob, room } = &chat;

    alice.send(room, "First").await?;
    let told =
        alice.hears(&world.bridge.bot(), "the device you write from is not verified").await?;
    assert!(!told.encrypted, "she could not have read it");
    for body in ["Second", "!xmpp plaintext allow", "Third"] {
        alice.send(room, body).await?;
    }
    bob.send(&chat.alices_jid(), "Are you well?", Namespace::Legacy).await?;
    chat.bot_tells_alice("none of your devices is verified").await?;
    let early = bob.messages().len();
    assert_eq!(early, 0, "an unsigned device was believed");

    alice.set_up_cross_signing().await?;
    for body in ["First", "Second", "Third"] {
        bob.receives(body).await?;
    }
    alice.receives("Are you well?").await?;
    assert_eq!(bob.texts_from(&chat.alices_jid()), ["First", "Second", "Third"]);
    let tellings = alice.messages().into_iter().filter(|message| message.body == told.body);
    let tellings = tellings.count();
    println!(
        "safety: unsigned_sender: {early} of 4 messages before the signature, told {tellings} time"
    );
    assert_eq!(tellings, 1);
    chat.end().await
}

#[tokio::test]
async fn an_unsigned_second_device_does_not_hold_up_the_first() -> Result<()> {
    let world = World::start("unsigned-second-device").await?;
    let (alice, recovery_key) = ElementUser::start(&world.homeserver, "alice", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let chat = Chat::between(world, alice, bob).await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "From my phone").await?;
    bob.receives("From my phone").await?;

    let laptop =
        ElementUser::log_in(&world.homeserver, alice.account(), "laptop", world.dir()).await?;
    laptop.send(room, "From my laptop").await?;
    chat.bot_tells_alice("the device you write from is not verified").await?;
    laptop.send(room, "Again from my laptop").await?;
    alice.send(room, "From my phone meanwhile").await?;
    bob.receives("From my phone meanwhile").await?;
    assert!(bob.messages().iter().all(|message| !message.body.contains("laptop")));

    laptop.recover(&recovery_key).await?;
    bob.receives("From my laptop").await?;
    bob.receives("Again from my laptop").await?;
    assert_eq!(bob.undecryptable(), 0);
    chat.end().await
}
