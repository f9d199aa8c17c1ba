//! A device whose session opens nothing any more, and of which there is no key to begin another.

use e2ee::matrix::{DeviceRole, Machine, RequestBody, Response};
use matrix_sdk_crypto::{
    olm::Session,
    store::{CryptoStore as _, MemoryStore, types::Changes},
};
use ruma::{
    SecondsSinceUnixEpoch, UInt,
    api::client::{
        keys::{claim_keys, get_keys},
        sync::sync_events,
    },
};
use serde_json::json;
use vodozemac::olm::{Account, OlmMessage, SessionConfig};

use super::{homeserver::Homeserver, *};

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

async fn load(user: &UserId, device: &str, store: &Arc<MemoryStore>) -> Machine {
    Machine::load(user, device.into(), store.clone(), DeviceRole::Full).await.unwrap()
}

async fn curve_key(store: &MemoryStore) -> String {
    store.load_account().await.unwrap().unwrap().identity_keys().curve25519.to_base64()
}

/// The ghost begins a session with Alice's device.
async fn meet(ghost: &Machine, alice_device: &Machine) {
    let requests = alice_device.requests().await.unwrap();
    let keys = requests.into_iter().find_map(|request| match request.body {
        RequestBody::KeysUpload(keys) => Some(keys),
        _ => None,
    });
    let keys = keys.unwrap();
    let device = alice_device.device_id().to_owned();
    let query = ghost.query(&[alice().to_owned()].into());
    let mut known = get_keys::v3::Response::new();
    let listed = [(device.clone(), keys.device_keys.unwrap())].into();
    known.device_keys.insert(alice().to_owned(), listed);
    ghost.receive_response(&query.id, &Response::KeysQuery(known)).await.unwrap();
    let claim = ghost.claim(&[alice().to_owned()].into()).await.unwrap().unwrap();
    let key = keys.one_time_keys.into_iter().take(1).collect();
    let claimed = [(alice().to_owned(), [(device, key)].into())].into();
    let answer = Response::KeysClaim(claim_keys::v3::Response::new(claimed));
    ghost.receive_response(&claim.id, &answer).await.unwrap();
}

/// All sessions of a store as if they had been made an hour earlier: younger ones are not replaced.
async fn age_sessions(store: &MemoryStore, with: &MemoryStore) {
    let account = store.load_account().await.unwrap().unwrap();
    let own = store.get_device(account.user_id(), account.device_id()).await.unwrap().unwrap();
    let mut sessions = Vec::new();
    for session in store.get_sessions(&curve_key(with).await).await.unwrap().unwrap() {
        let mut pickle = session.pickle().await;
        let made = u64::from(pickle.creation_time.get()) - 61 * 60;
        pickle.creation_time = SecondsSinceUnixEpoch(UInt::try_from(made).unwrap());
        sessions.push(Session::from_pickle(own.as_device_keys().clone(), pickle).unwrap());
    }
    store.save_changes(Changes { sessions, ..Changes::default() }).await.unwrap();
}

/// A message of Alice's device that no session opens.
fn stray(to: &str, from: &str) -> sync_events::v3::Response {
    let (sender, mut receiver) = (Account::new(), Account::new());
    receiver.generate_one_time_keys(1);
    let key = receiver.one_time_keys().into_values().next().unwrap();
    let config = SessionConfig::version_1();
    let mut session =
        sender.create_outbound_session(config, receiver.curve25519_key(), key).unwrap();
    let body = match session.encrypt("nobody reads this").unwrap() {
        OlmMessage::PreKey(message) => message.message().to_base64(),
        OlmMessage::Normal(message) => message.to_base64(),
    };
    let content = json!({
        "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender_key": from,
        "ciphertext": { to: { "type": 1, "body": body } },
    });
    let event = json!({ "type": "m.room.encrypted", "sender": alice(), "content": content });
    let mut sync = sync_events::v3::Response::new("s1".to_owned());
    sync.to_device.events = serde_json::from_value(json!([event])).unwrap();
    sync
}

#[tokio::test]
async fn a_device_that_yields_no_key_is_asked_once_and_not_with_every_exchange() {
    let (alices, ghosts) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let alice_device = load(alice(), "ALICE", &alices).await;
    meet(&load(&ghost(1), "GHOST", &ghosts).await, &alice_device).await;
    age_sessions(&ghosts, &alices).await;
    let machine = load(&ghost(1), "GHOST", &ghosts).await;
    let wedging = stray(&curve_key(&ghosts).await, &curve_key(&alices).await);
    machine.receive_sync(wedging).await.unwrap();

    let homeserver = Homeserver::start().await;
    let (devices, _database) = devices_at(&homeserver.url, 2).await;
    let mut device = Device::new(ghost(1), devices.shared.clone(), Arc::default());
    for _ in 0..3 {
        device.exchange(&machine).await.unwrap();
        let state = homeserver.state();
        let claims = state.requests.iter().filter(|request| *request == "claim");
        assert_eq!(claims.count(), 1, "nobody has given it a key");
    }
}
