//! People with more than one device.

use anyhow::Result;
use tests::omemo::Device;
use tests::{ElementUser, Namespace, Shield, World};

use crate::Chat;

#[tokio::test]
async fn a_contacts_second_device_reads_and_writes() -> Result<()> {
    let chat = Chat::open("contacts-second-device").await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "To the phone").await?;
    bob.receives("To the phone").await?;

    let laptop = Device { name: "laptop", ..Device::default() };
    let laptop = world.omemo_device("bob", &laptop).await?;
    laptop.send(&chat.alices_jid(), "From the laptop", Namespace::Legacy).await?;
    assert_eq!(alice.receives("From the laptop").await?.shield, Some(Shield::None));
    alice.send(room, "To both").await?;
    bob.receives("To both").await?;
    laptop.receives("To both").await?;
    chat.end().await
}

#[tokio::test]
async fn devices_that_share_no_namespace_both_read() -> Result<()> {
    let world = World::start("no-common-namespace").await?;
    let alice = world.element_user("alice").await?;
    let old = Device { speaks: &[Namespace::Legacy], ..Device::default() };
    let bob = world.omemo_device("bob", &old).await?;
    let new = Device { name: "laptop", speaks: &[Namespace::Omemo2], ..Device::default() };
    let laptop = world.omemo_device("bob", &new).await?;
    let chat = Chat::between(world, alice, bob).await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "To both").await?;
    bob.receives("To both").await?;
    laptop.receives("To both").await?;
    laptop.send(&chat.alices_jid(), "From the new one", Namespace::Omemo2).await?;
    alice.receives("From the new one").await?;
    alice.send(room, "Once more").await?;
    bob.receives("Once more").await?;
    laptop.receives("Once more").await?;
    chat.end().await
}

#[tokio::test]
async fn a_matrix_persons_second_device_reads_and_writes() -> Result<()> {
    let world = World::start("matrix-second-device").await?;
    let (alice, recovery_key) = ElementUser::start(&world.homeserver, "alice", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let chat = Chat::between(world, alice, bob).await?;
    let Chat { world, alice, bob, room } = &chat;
    bob.send(&chat.alices_jid(), "To the first", Namespace::Legacy).await?;
    alice.receives("To the first").await?;

    let second =
        ElementUser::log_in(&world.homeserver, alice.account(), "second", world.dir()).await?;
    second.recover(&recovery_key).await?;
    alice.sees_signed(alice.user_id(), second.device_id()).await?;
    bob.send(&chat.alices_jid(), "To both", Namespace::Omemo2).await?;
    alice.receives("To both").await?;
    assert_eq!(second.receives("To both").await?.shield, Some(Shield::None));
    second.send(room, "From the second").await?;
    bob.receives("From the second").await?;
    chat.end().await
}
