//! When a room key is shared, worn out, thrown away, and with whom it never is.

use std::sync::Arc;

use super::*;

#[tokio::test]
async fn whoever_leaves_is_followed_by_a_new_room_key() {
    let homeserver = Homeserver::default();
    let (_alice, ghost_device) = alice_and_ghost(&homeserver).await;
    let _mallory = person(&homeserver, mallory(), device_id!("MALLORY")).await;
    let session = |event: Value| event["content"]["session_id"].clone();
    let both = users([alice(), mallory()]);
    homeserver.sync(&ghost_device).await;
    ghost_device.track(&both).await.unwrap();
    homeserver.settle(&ghost_device).await;
    if let Some(claim) = ghost_device.claim(&both).await.unwrap() {
        homeserver.carry(&ghost_device, vec![claim]).await;
    }
    let requests = ghost_device.share(room(), &both, &settings()).await.unwrap();
    homeserver.carry(&ghost_device, requests).await;
    let encrypted = ghost_device.encrypt(room(), "m.room.message", &text("all")).await.unwrap();
    let with_mallory = session(event(ghost(), &encrypted.into_json()));

    let without = session(send(&homeserver, &ghost_device, alice(), "alone").await);
    println!("safety: left: {} new room key", usize::from(without != with_mallory));
    assert_ne!(without, with_mallory, "a member has left");
    let again = session(send(&homeserver, &ghost_device, alice(), "still alone").await);
    assert_eq!(again, without, "nothing has changed");

    let _second = {
        let second = load(alice(), device_id!("SECOND"), Arc::new(MemoryStore::new())).await;
        homeserver.settle(&second).await;
        second
    };
    homeserver.log_out(alice(), device_id!("ALICE"));
    homeserver.sync(&ghost_device).await;
    let requests = ghost_device.share(room(), &users([alice()]), &settings()).await.unwrap();
    homeserver.carry(&ghost_device, requests).await;
    let encrypted = ghost_device.encrypt(room(), "m.room.message", &text("gone")).await.unwrap();
    let after_log_out = session(event(ghost(), &encrypted.into_json()));
    assert_ne!(after_log_out, without, "a device has gone");
}

#[tokio::test]
async fn nothing_is_encrypted_without_a_shared_key() {
    let homeserver = Homeserver::default();
    let (_alice, ghost_device) = alice_and_ghost(&homeserver).await;
    let result = ghost_device.encrypt(room(), "m.room.message", &text("too early")).await;
    assert_matches!(result.err(), Some(EncryptError::NotShared));

    let to = users([alice()]);
    ghost_device.track(&to).await.unwrap();
    homeserver.settle(&ghost_device).await;
    let claim = ghost_device.claim(&to).await.unwrap().unwrap();
    homeserver.carry(&ghost_device, vec![claim]).await;
    let requests = ghost_device.share(room(), &to, &settings()).await.unwrap();
    let result = ghost_device.encrypt(room(), "m.room.message", &text("not sent")).await;
    assert_matches!(result.err(), Some(EncryptError::NotShared), "the key has not left");
    homeserver.carry(&ghost_device, requests).await;
    ghost_device.encrypt(room(), "m.room.message", &text("now")).await.unwrap();
}

#[tokio::test]
async fn a_worn_out_key_is_replaced() {
    let homeserver = Homeserver::default();
    let (_alice, ghost_device) = alice_and_ghost(&homeserver).await;
    let mut once = settings();
    once.encryption.rotation_period_msgs = Some(1_u32.into());
    let to = users([alice()]);
    ghost_device.track(&to).await.unwrap();
    homeserver.settle(&ghost_device).await;
    let claim = ghost_device.claim(&to).await.unwrap().unwrap();
    homeserver.carry(&ghost_device, vec![claim]).await;
    for body in ["one", "two"] {
        let requests = ghost_device.share(room(), &to, &once).await.unwrap();
        homeserver.carry(&ghost_device, requests).await;
        ghost_device.encrypt(room(), "m.room.message", &text(body)).await.unwrap();
        let result = ghost_device.encrypt(room(), "m.room.message", &text("again")).await;
        assert_matches!(result.err(), Some(EncryptError::NotShared));
    }
}

#[tokio::test]
async fn a_discarded_room_key_is_followed_by_a_new_one() {
    let homeserver = Homeserver::default();
    let (_alice, ghost_device) = alice_and_ghost(&homeserver).await;
    let session = |event: Value| event["content"]["session_id"].clone();
    ghost_device.discard_room_key(room()).await.unwrap();
    let first = session(send(&homeserver, &ghost_device, alice(), "one").await);
    let second = session(send(&homeserver, &ghost_device, alice(), "two").await);
    assert_eq!(second, first);
    ghost_device.discard_room_key(room()).await.unwrap();
    let result = ghost_device.encrypt(room(), "m.room.message", &text("too early")).await;
    assert_matches!(result.err(), Some(EncryptError::NotShared));
    let third = session(send(&homeserver, &ghost_device, alice(), "three").await);
    assert_ne!(third, first);
}

#[tokio::test]
async fn an_unpublished_device_shares_nothing() {
    let homeserver = Homeserver::default();
    let _alice = person(&homeserver, alice(), device_id!("ALICE")).await;
    let ghost_device = load(ghost(), device_id!("GHOST"), Arc::default()).await;
    let result = ghost_device.share(room(), &users([alice()]), &settings()).await;
    assert_matches!(result.err(), Some(EncryptError::NotPublished));
}

#[tokio::test]
async fn a_room_that_was_encrypted_does_not_change_its_algorithm() {
    let homeserver = Homeserver::default();
    let (_alice, ghost_device) = alice_and_ghost(&homeserver).await;
    assert!(!ghost_device.was_encrypted(room()).await.unwrap());
    send(&homeserver, &ghost_device, alice(), "hello").await;
    assert!(ghost_device.was_encrypted(room()).await.unwrap());
    let mut weak = settings();
    weak.encryption.algorithm = ruma::EventEncryptionAlgorithm::from("m.none");
    let result = ghost_device.share(room(), &users([alice()]), &weak).await;
    assert_matches!(result.err(), Some(EncryptError::Algorithm));
}
