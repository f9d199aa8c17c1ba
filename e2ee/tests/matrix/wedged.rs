//! Olm sessions that no longer open what the other side sends.

use std::{sync::Arc, time::Duration};

use e2ee::matrix::RequestBody;
use matrix_sdk_crypto::{
    olm::Session,
    store::{CryptoStore as _, types::Changes},
};
use ruma::{SecondsSinceUnixEpoch, UInt};
use vodozemac::olm::{Account, OlmMessage, SessionConfig};

use super::*;

const STRAYS: usize = 10;

/// What a ghost asks for because of messages that it could not open.
#[derive(Debug, Default, PartialEq, Eq)]
struct Healing {
    claims: usize,
    messages: usize,
}

/// An Olm message of a session that nobody has.
fn stray_message() -> String {
    let (sender, mut receiver) = (Account::new(), Account::new());
    receiver.generate_one_time_keys(1);
    let key = receiver.one_time_keys().into_values().next().unwrap();
    let config = SessionConfig::version_1();
    let mut session =
        sender.create_outbound_session(config, receiver.curve25519_key(), key).unwrap();
    match session.encrypt("nobody reads this").unwrap() {
        OlmMessage::PreKey(message) => message.message().to_base64(),
        OlmMessage::Normal(message) => message.to_base64(),
    }
}

async fn curve_key(store: &MemoryStore) -> String {
    store.load_account().await.unwrap().unwrap().identity_keys().curve25519.to_base64()
}

/// A message comes that no session opens.
async fn receive_stray(
    homeserver: &Homeserver,
    by: &Machine,
    to: &MemoryStore,
    from: &MemoryStore,
) {
    let (receiver, sender) = (curve_key(to).await, curve_key(from).await);
    let content = json!({
        "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": sender,
        "ciphertext": { receiver.as_str(): { "type": 1, "body": stray_message() } },
    });
    let event = json!({ "type": "m.room.encrypted", "sender": alice(), "content": content });
    homeserver.put_into_inbox(by.user_id(), by.device_id(), event);
    let answer = homeserver.small_sync(by.user_id(), by.device_id());
    by.receive_sync(answer).await.unwrap();
}

/// So many messages come one after the other that no session opens.
async fn receive_strays(
    homeserver: &Homeserver,
    by: &Machine,
    to: &MemoryStore,
    from: &MemoryStore,
) -> Healing {
    let mut healing = Healing::default();
    for _ in 0..STRAYS {
        receive_stray(homeserver, by, to, from).await;
        loop {
            let requests = by.requests().await.unwrap();
            if requests.is_empty() {
                break;
            }
            let of = |kind: fn(&RequestBody) -> bool| {
                requests.iter().filter(|request| kind(&request.body)).count()
            };
            healing.claims += of(|body| matches!(body, RequestBody::KeysClaim(_)));
            healing.messages += of(|body| matches!(body, RequestBody::ToDevice(_)));
            homeserver.carry(by, requests).await;
        }
    }
    healing
}

/// All sessions of a store as if they had been made this much earlier.
async fn age_sessions(store: &MemoryStore, with: &MemoryStore, by: Duration) {
    let account = store.load_account().await.unwrap().unwrap();
    let own = store.get_device(account.user_id(), account.device_id()).await.unwrap().unwrap();
    let known = store.get_sessions(&curve_key(with).await).await.unwrap().unwrap();
    let mut sessions = Vec::new();
    for session in known {
        let mut pickle = session.pickle().await;
        let made = u64::from(pickle.creation_time.get()) - by.as_secs();
        pickle.creation_time = SecondsSinceUnixEpoch(UInt::try_from(made).unwrap());
        sessions.push(Session::from_pickle(own.as_device_keys().clone(), pickle).unwrap());
    }
    store.save_changes(Changes { sessions, ..Changes::default() }).await.unwrap();
}

/// Alice has written to a ghost: her device, and the stores of both.
async fn alice_has_written(
    homeserver: &Homeserver,
) -> (Machine, Arc<MemoryStore>, Arc<MemoryStore>) {
    let (alices, ghosts) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let alice_device = load(alice(), device_id!("ALICE"), alices.clone()).await;
    publish(homeserver, &alice_device).await;
    let ghost_device = load(ghost(), device_id!("GHOST"), ghosts.clone()).await;
    publish(homeserver, &ghost_device).await;
    let event = send(homeserver, &alice_device, ghost(), "before").await;
    receive(homeserver, &ghost_device, alice(), &event).await.unwrap();
    (alice_device, alices, ghosts)
}

/// The library replaces a session that is older than an hour. One that heals is new, so the next is an hour away.
#[tokio::test]
async fn a_wedged_session_is_replaced_once_an_hour_at_most() {
    let homeserver = Homeserver::default();
    let (alice_device, alices, ghosts) = alice_has_written(&homeserver).await;
    let ghost_device = load(ghost(), device_id!("GHOST"), ghosts.clone()).await;
    let unmoved = alice_device.share(room(), &users([ghost()]), &settings()).await.unwrap();
    assert!(unmoved.is_empty(), "the room key is shared");

    let young = receive_strays(&homeserver, &ghost_device, &ghosts, &alices).await;
    drop(ghost_device);
    age_sessions(&ghosts, &alices, Duration::from_secs(61 * 60)).await;
    let ghost_device = load(ghost(), device_id!("GHOST"), ghosts.clone()).await;
    let old = receive_strays(&homeserver, &ghost_device, &ghosts, &alices).await;
    println!(
        "safety: wedged_olm: {STRAYS} messages that no session opens: {} new sessions in its first hour, {} after it",
        young.claims, old.claims
    );
    assert_eq!(young, Healing::default());
    assert_eq!(old, Healing { claims: 1, messages: 1 });

    homeserver.sync(&alice_device).await;
    let again = alice_device.share(room(), &users([ghost()]), &settings()).await.unwrap();
    assert_eq!(again.len(), 1, "Alice's client does not know that the room key may be missing");
    homeserver.carry(&alice_device, again).await;
    let event = send(&homeserver, &alice_device, ghost(), "after").await;
    let opened = receive(&homeserver, &ghost_device, alice(), &event).await.unwrap();
    assert_eq!(opened.content["body"], "after");
}

/// The library wants a key for a wedged session at every turn until there is one.
#[tokio::test]
async fn a_wedged_session_without_a_key_delays_no_message() {
    let homeserver = Homeserver::default();
    let (_, alices, ghosts) = alice_has_written(&homeserver).await;
    age_sessions(&ghosts, &alices, Duration::from_secs(61 * 60)).await;
    homeserver.take_all_keys(alice(), device_id!("ALICE"));
    let ghost_device = load(ghost(), device_id!("GHOST"), ghosts.clone()).await;
    receive_stray(&homeserver, &ghost_device, &ghosts, &alices).await;

    for _ in 0..3 {
        let mut wanted = ghost_device.requests().await.unwrap();
        wanted.retain(|request| matches!(request.body, RequestBody::KeysClaim(_)));
        assert_eq!(wanted.len(), 1, "the session is to be replaced");
        homeserver.carry(&ghost_device, wanted).await;
        for to in [alice(), mallory()] {
            let claim = ghost_device.claim(&users([to])).await.unwrap();
            assert!(claim.is_none(), "a message needs no key that there is a session without");
        }
    }
    let laptop = person(&homeserver, alice(), device_id!("LAPTOP")).await;
    homeserver.carry(&ghost_device, vec![ghost_device.query(&users([alice()]))]).await;
    let claim = ghost_device.claim(&users([alice()])).await.unwrap().unwrap();
    let RequestBody::KeysClaim(keys) = &claim.body else { panic!("no claim") };
    let asked: Vec<_> = keys.one_time_keys[alice()].keys().collect();
    assert_eq!(asked, [laptop.device_id()], "what a message needs is claimed");
}
