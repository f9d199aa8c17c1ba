//! Writing to people: whose keys are asked for, who gets the room key, and when nothing is written.

use std::collections::BTreeMap;

use super::{
    two_bridges::{World, alice, carol, room},
    *,
};
use crate::store::PinState;

#[tokio::test]
async fn keys_are_asked_for_once_and_again_after_a_change_of_the_room_or_a_restart() {
    let mut world = World::start().await;
    let write = async |world: &World| {
        world.ghosts.write(&ghost(1), &[alice()]).await.unwrap();
        world.homeserver.take_queries(alice())
    };
    world.homeserver.take_queries(alice());
    assert_eq!(write(&world).await, 1, "she was unknown");
    assert_eq!(write(&world).await, 0);
    world.ghosts.devices.room_changed(room());
    assert_eq!(write(&world).await, 1, "she may have joined anew, with other devices");
    assert_eq!(write(&world).await, 0);
    world.ghosts = world.ghosts.restarted(&world.homeserver).await;
    assert_eq!(write(&world).await, 1, "she may have been away meanwhile");
    assert_eq!(write(&world).await, 0);
}

#[tokio::test]
async fn a_device_that_was_unloaded_meanwhile_asks_no_more_than_one_that_was_not() {
    let mut world = World::start().await;
    let limits = DeviceLimits { loaded: 1, ..DeviceLimits::default() };
    world.ghosts = world.ghosts.restarted_with(&world.homeserver, limits).await;
    world.homeserver.state().join(&ghost(2));
    world.ghosts.devices.ensure_published(&ghost(2)).await.unwrap();
    let write = async |from: usize| {
        world.ghosts.write(&ghost(from), &[alice()]).await.unwrap();
        world.homeserver.take_queries(alice())
    };
    world.homeserver.take_queries(alice());
    assert_eq!((write(1).await, write(2).await), (1, 1));
    assert_eq!((write(1).await, write(2).await), (0, 0));
    let (identity, _) = world.homeserver.state().keys_of(alice());
    world.homeserver.state().show(alice(), (identity, BTreeMap::new()));
    let after = world.ghosts.write(&ghost(1), &[alice()]).await.map(drop);
    assert_matches!(after, Err(EncryptError::NoSignedDevice), "a sync says that she has changed");
}

#[tokio::test]
async fn somebody_new_is_asked_for_alone() {
    let world = World::start().await;
    world.people.devices.ensure_published(carol()).await.unwrap();
    world.ghosts.write(&ghost(1), &[alice()]).await.unwrap();
    world.homeserver.take_queries(alice());
    world.homeserver.take_queries(carol());
    let both = world.ghosts.write(&ghost(1), &[alice(), carol()]).await.unwrap();
    assert_eq!(both.identity, IdentityTrust::Pinned);
    assert_eq!(world.homeserver.take_queries(alice()), 0);
    assert_eq!(world.homeserver.take_queries(carol()), 1);
}

#[tokio::test]
async fn nothing_is_written_where_nobody_can_read_it() {
    let world = World::start().await;
    let write = async |to: &UserId| world.ghosts.write(&ghost(1), &[to]).await.map(drop);
    let stranger = user_id!("@mail_stranger:example.org");
    assert_matches!(write(stranger).await, Err(EncryptError::Device(MatrixError::NobodyThere)));
    world.homeserver.state().join(&ghost(2));
    let among_ours = write(&ghost(2)).await;
    assert_matches!(among_ours, Err(EncryptError::Device(MatrixError::NobodyThere)));
    assert_matches!(write(carol()).await, Err(EncryptError::NoSignedDevice), "she has no device");

    world.homeserver.state().unsigned.insert(alice().to_string());
    assert_matches!(write(alice()).await, Err(EncryptError::NoSignedDevice));
    world.homeserver.state().unsigned.clear();
    world.homeserver.state().take_one_time_keys(alice());
    assert_matches!(
        write(alice()).await,
        Err(EncryptError::Device(MatrixError::NobodyReachable)),
        "there is no key to begin a session with"
    );
    assert!(!world.ghosts.devices.was_encrypted(&ghost(1), room()).await.unwrap());
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_asked_again_with_the_next_message() {
    let world = World::start().await;
    let write = async || world.ghosts.write(&ghost(1), &[alice()]).await.map(drop);
    world.homeserver.state().silent.insert("example.org".to_owned());
    for _ in 0..2 {
        assert_matches!(write().await, Err(EncryptError::Device(MatrixError::NobodyReachable)));
    }
    world.homeserver.state().silent.clear();
    assert_matches!(write().await, Ok(()));
}

#[tokio::test]
async fn a_server_that_did_not_answer_after_a_change_is_asked_until_it_does() {
    let world = World::start().await;
    let write = async || {
        world.ghosts.write(&ghost(1), &[alice()]).await.unwrap();
        world.homeserver.take_queries(alice()) > 0
    };
    write().await;
    world.homeserver.state().silent.insert("example.org".to_owned());
    world.ghosts.devices.room_changed(room());
    assert_eq!((write().await, write().await), (true, true));
    world.homeserver.state().silent.clear();
    assert_eq!((write().await, write().await), (true, false));
}

#[tokio::test]
async fn a_ghost_that_was_put_out_encrypts_nothing() {
    let world = World::start().await;
    world.homeserver.state().join(&ghost(2));
    world.ghosts.devices.ensure_published(&ghost(2)).await.unwrap();
    let write = async |from: usize| world.ghosts.write(&ghost(from), &[alice()]).await.map(drop);
    assert_matches!(write(1).await, Ok(()));
    world.homeserver.state().leave(&ghost(1));
    world.ghosts.devices.room_changed(room());
    assert_matches!(write(2).await, Ok(()));
    assert_matches!(
        write(1).await,
        Err(EncryptError::Device(MatrixError::NotThere)),
        "what another ghost sees is not what it sees"
    );
}

#[tokio::test]
async fn who_can_be_reached_gets_the_message_though_others_cannot() {
    let world = World::start().await;
    let sealed = world.ghosts.write(&ghost(1), &[alice(), carol()]).await.unwrap();
    assert_eq!(sealed.identity, IdentityTrust::Unknown, "Carol has no identity");
    assert!(world.ghosts.devices.was_encrypted(&ghost(1), room()).await.unwrap());
}

#[tokio::test]
async fn a_room_key_is_used_until_it_is_thrown_away() {
    let world = World::start().await;
    let session = async || world.ghosts.write(&ghost(1), &[alice()]).await.unwrap().session;
    let first = session().await;
    assert_eq!(session().await, first);
    world.ghosts.devices.rotate(&ghost(1), room()).await.unwrap();
    assert_ne!(session().await, first);
}

#[tokio::test]
async fn a_new_identity_gets_nothing_before_it_is_approved() {
    let mut world = World::start().await;
    world.ghosts.write(&ghost(1), &[alice()]).await.unwrap();
    let first = world.master_key();
    let first_keys = world.homeserver.state().keys_of(alice());
    world.reset_alice().await;
    let second_keys = world.homeserver.state().keys_of(alice());
    let write = async |world: &World| world.ghosts.write(&ghost(1), &[alice()]).await.map(drop);
    for _ in 0..2 {
        assert_matches!(write(&world).await, Err(EncryptError::IdentityChanged));
        assert!(world.ghosts.pin(alice()).await.presented() == world.master_key());
    }

    world.homeserver.state().show(alice(), first_keys);
    assert_matches!(write(&world).await, Ok(()), "it is the pinned one again");
    assert!(world.ghosts.pin(alice()).await.state == PinState::Pinned, "nothing waits any more");

    world.homeserver.state().show(alice(), second_keys);
    assert_matches!(write(&world).await, Err(EncryptError::IdentityChanged));
    let second = world.master_key();
    assert!(world.ghosts.devices.approve(alice(), &second, &first).await.unwrap());
    assert_matches!(write(&world).await, Ok(()));
}
