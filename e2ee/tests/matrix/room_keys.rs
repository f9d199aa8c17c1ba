//! When a room key is shared, worn out, thrown away, and with whom it never is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use e2ee::matrix::RequestBody;
use matrix_sdk_crypto::{
    olm::OutboundGroupSession,
    store::{CryptoStore as _, types::Changes},
};
use ruma::{SecondsSinceUnixEpoch, UInt};

use super::*;

/// Encrypts one message and returns the id of the room key it is under.
async fn next_session(
    homeserver: &Homeserver,
    from: &Machine,
    settings: &RoomKeySettings,
) -> String {
    let to = users([alice()]);
    from.track(&to).await.unwrap();
    homeserver.settle(from).await;
    if let Some(claim) = from.claim(&to).await.unwrap() {
        homeserver.carry(from, vec![claim]).await;
    }
    let requests = from.share(room(), &to, settings).await.unwrap();
    homeserver.carry(from, requests).await;
    let encrypted = from.encrypt(room(), "m.room.message", &text("hi")).await.unwrap();
    let content: Value = serde_json::from_str(&encrypted.into_json()).unwrap();
    content.get("session_id").and_then(Value::as_str).unwrap().to_owned()
}

/// The room key of a device as if it had been made this much earlier.
async fn age_room_key(store: &MemoryStore, device: &DeviceId, by: Duration) {
    let account = store.load_account().await.unwrap().unwrap();
    let session = store.get_outbound_group_session(room()).await.unwrap().unwrap();
    let mut pickle = session.pickle().await;
    let made = u64::from(pickle.creation_time.get()) - by.as_secs();
    pickle.creation_time = SecondsSinceUnixEpoch(UInt::try_from(made).unwrap());
    let keys = Arc::new(account.identity_keys());
    let aged = OutboundGroupSession::from_pickle(device.to_owned(), keys, pickle).unwrap();
    let changes = Changes { outbound_group_sessions: vec![aged], ..Changes::default() };
    store.save_changes(changes).await.unwrap();
}

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
async fn a_room_key_carries_fifty_messages_at_most() {
    for (of_the_room, most) in [(None, 50), (Some(1000_u32), 50), (Some(20), 20)] {
        let homeserver = Homeserver::default();
        let (_alice, ghost_device) = alice_and_ghost(&homeserver).await;
        let mut settings = settings();
        settings.encryption.rotation_period_msgs = of_the_room.map(Into::into);
        let mut messages = BTreeMap::new();
        for _ in 0..=most {
            let session = next_session(&homeserver, &ghost_device, &settings).await;
            *messages.entry(session).or_insert(0) += 1;
        }
        let longest = messages.into_values().max();
        if of_the_room.is_none() {
            println!("safety: messages_per_room_key: {} at most", longest.unwrap_or_default());
        }
        assert_eq!(longest, Some(most), "of {} messages, {of_the_room:?}", most + 1);
    }
}

#[tokio::test]
async fn a_room_key_lives_a_day_at_most() {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let week = UInt::from(7 * 24 * 60 * 60 * 1000_u32);
    for (of_the_room, young, old) in [
        (None, 23 * HOUR, 24 * HOUR),
        (Some(week), 23 * HOUR, 24 * HOUR),
        (Some(UInt::from(2 * 60 * 60 * 1000_u32)), HOUR, 2 * HOUR),
    ] {
        let homeserver = Homeserver::default();
        let _alice = person(&homeserver, alice(), device_id!("ALICE")).await;
        let store = Arc::new(MemoryStore::new());
        let device = device_id!("GHOST");
        publish(&homeserver, &load(ghost(), device, store.clone()).await).await;
        let mut settings = settings();
        settings.encryption.rotation_period_ms = of_the_room;
        let sent_now = async || {
            // A machine that was just loaded has the key from the store only.
            let machine = load(ghost(), device, store.clone()).await;
            next_session(&homeserver, &machine, &settings).await
        };
        let first = sent_now().await;
        age_room_key(&store, device, young).await;
        assert_eq!(sent_now().await, first, "it is young enough");
        age_room_key(&store, device, old - young).await;
        let is_new = sent_now().await != first;
        if of_the_room.is_none() {
            println!("safety: age_of_room_key: {} new room key after 24 h", usize::from(is_new));
        }
        assert!(is_new, "{of_the_room:?}");
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

#[tokio::test]
async fn to_device_messages_are_batched() {
    const PEOPLE: usize = 100;
    let homeserver = Homeserver::default();
    let ghost_device = person(&homeserver, ghost(), device_id!("GHOST")).await;
    let mut people = BTreeSet::new();
    for number in 0..PEOPLE {
        let user = UserId::parse(format!("@person{number}:example.org")).unwrap();
        person(&homeserver, &user, device_id!("DEVICE")).await;
        people.insert(user);
    }
    ghost_device.track(&people).await.unwrap();
    homeserver.settle(&ghost_device).await;
    let claim = ghost_device.claim(&people).await.unwrap().unwrap();
    homeserver.carry(&ghost_device, vec![claim]).await;
    let requests = ghost_device.share(room(), &people, &settings()).await.unwrap();
    let messages = requests.iter().map(|request| match &request.body {
        RequestBody::ToDevice(body) => body.messages.values().map(BTreeMap::len).sum(),
        _ => 0,
    });
    let messages: Vec<usize> = messages.collect();
    println!("safety: complement_batched: {PEOPLE} room keys in {} request", messages.len());
    assert_eq!(messages, [PEOPLE]);
}
