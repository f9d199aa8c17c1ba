//! Upstream's conformance suite on both databases, and what it does not ask.

use std::{cell::RefCell, collections::HashMap};

use matrix_sdk_crypto::{
    OlmMachine,
    olm::{InboundGroupSession, OlmMessageHash, SenderData, StaticAccountData},
    store::{CryptoStore as _, types::Changes},
    types::EventEncryptionAlgorithm,
};
use ruma::{RoomId, device_id, user_id};
use vodozemac::{
    megolm::{GroupSession, SessionConfig},
    olm::Account,
};

use super::SqlCryptoStore;
use crate::store::{
    Database,
    testing::{self, TestDatabase, on_both_databases},
};

/// Upstream's tests ask for it by this name.
impl SqlCryptoStore {
    fn get_static_account(&self) -> Option<StaticAccountData> {
        self.static_account()
    }
}

thread_local! {
    /// The databases of a test by name, so that a store can be opened again as it was left.
    static DATABASES: RefCell<HashMap<String, (TestDatabase, Database)>> = RefCell::default();
}

async fn open_store(name: &str, make: impl AsyncFnOnce() -> TestDatabase) -> SqlCryptoStore {
    let known = DATABASES.with_borrow(|all| all.get(name).map(|(_, db)| db.clone()));
    let db = match known {
        Some(db) => db,
        None => {
            let location = make().await;
            let db = location.open().await;
            DATABASES.with_borrow_mut(|all| all.insert(name.to_owned(), (location, db.clone())));
            db
        }
    };
    SqlCryptoStore::open(&db, user_id!("@alice:example.org"), device_id!("ALICEDEVICE"))
        .await
        .expect("the store opens")
}

mod conformance_on_sqlite {
    use matrix_sdk_crypto::{cryptostore_integration_tests, cryptostore_integration_tests_time};

    use super::*;

    async fn get_store(name: &str, _passphrase: Option<&str>, _clear: bool) -> SqlCryptoStore {
        open_store(name, async || testing::sqlite()).await
    }

    cryptostore_integration_tests!();
    cryptostore_integration_tests_time!();
}

mod conformance_on_postgres {
    use matrix_sdk_crypto::{cryptostore_integration_tests, cryptostore_integration_tests_time};

    use super::*;

    async fn get_store(name: &str, _passphrase: Option<&str>, _clear: bool) -> SqlCryptoStore {
        open_store(name, testing::postgres).await
    }

    cryptostore_integration_tests!();
    cryptostore_integration_tests_time!();
}

on_both_databases!(
    devices_share_nothing,
    a_machine_comes_back_as_it_was,
    keys_that_others_choose_can_be_stored,
    a_room_key_for_no_possible_room_stops_no_other,
);

async fn devices_share_nothing(location: TestDatabase) {
    let db = location.open().await;
    let alice = user_id!("@alice:example.org");
    let one = SqlCryptoStore::open(&db, alice, device_id!("ONE")).await.unwrap();
    let two = SqlCryptoStore::open(&db, alice, device_id!("TWO")).await.unwrap();
    one.set_custom_value("key", b"one".to_vec()).await.unwrap();
    assert_eq!(two.get_custom_value("key").await.unwrap(), None);

    two.set_custom_value("key", b"two".to_vec()).await.unwrap();
    two.remove_custom_value("key").await.unwrap();
    assert_eq!(one.get_custom_value("key").await.unwrap().as_deref(), Some(&b"one"[..]));

    let again = SqlCryptoStore::open(&db, alice, device_id!("ONE")).await.unwrap();
    assert_eq!(again.get_custom_value("key").await.unwrap().as_deref(), Some(&b"one"[..]));
}

async fn a_machine_comes_back_as_it_was(location: TestDatabase) {
    let db = location.open().await;
    let (user, device) = (user_id!("@xmpp_bob:example.org"), device_id!("GEPHYRA"));
    let load = async |db| {
        let store = SqlCryptoStore::open(db, user, device).await.unwrap();
        OlmMachine::with_store(user, device, store, None).await.unwrap()
    };
    let machine = load(&db).await;
    machine.bootstrap_cross_signing(false).await.unwrap();
    let keys = machine.identity_keys();
    let master = machine.export_cross_signing_keys().await.unwrap().unwrap().master_key.clone();
    drop(machine);
    db.close().await.unwrap();

    let machine = load(&location.open().await).await;
    assert_eq!(machine.identity_keys(), keys);
    let loaded = machine.export_cross_signing_keys().await.unwrap().unwrap();
    assert_eq!(loaded.master_key, master);
    assert!(master.is_some());
}

/// Session and device ids come from other people's programs.
async fn keys_that_others_choose_can_be_stored(location: TestDatabase) {
    let db = location.open().await;
    let alice = user_id!("@alice:example.org");
    let store = SqlCryptoStore::open(&db, alice, device_id!("ONE")).await.unwrap();
    let noise: String = (0..40_000_u32).map(|n| char::from(33 + (n * n % 89) as u8)).collect();
    for hash in ["\0".to_owned(), noise] {
        let hash = OlmMessageHash { sender_key: hash.clone(), hash };
        let changes = Changes { message_hashes: vec![hash.clone()], ..Changes::default() };
        store.save_changes(changes).await.unwrap();
        assert!(store.is_message_known(&hash).await.unwrap());
    }
}

/// Room ids come from other people's programs too.
async fn a_room_key_for_no_possible_room_stops_no_other(location: TestDatabase) {
    let db = location.open().await;
    let alice = user_id!("@alice:example.org");
    let store = SqlCryptoStore::open(&db, alice, device_id!("ONE")).await.unwrap();
    let noise = |length| (0..length).map(|n: u32| char::from(b'A' + (n * n % 26) as u8));
    let [usual, longest, too_long] =
        [10, 255, 4_000].map(|length| format!("!{}", noise(length - 1).collect::<String>()));
    let mut stored = Vec::new();
    for save_changes in [true, false] {
        let mut keys = Vec::new();
        for room in [&too_long, &longest, &usual] {
            keys.push(room_key(&RoomId::parse(room).unwrap()));
        }
        let ids: Vec<_> = keys.iter().map(|key| key.session_id().to_owned()).collect();
        if save_changes {
            let next_batch_token = Some("s1".to_owned());
            let changes =
                Changes { inbound_group_sessions: keys, next_batch_token, ..Changes::default() };
            store.save_changes(changes).await.unwrap();
        } else {
            store.save_inbound_group_sessions(keys, None).await.unwrap();
        }
        for (room, id) in [&too_long, &longest, &usual].into_iter().zip(&ids) {
            let room = RoomId::parse(room).unwrap();
            let found = store.get_inbound_group_session(&room, id).await.unwrap();
            stored.push((room.as_str().len(), found.is_some()));
        }
    }
    println!("safety: impossible_room: keys stored by the bytes of the room's id: {stored:?}");
    let one_by_one = [(4_000, false), (255, true), (10, true)];
    assert_eq!(stored, [one_by_one, one_by_one].concat());
}

fn room_key(room: &RoomId) -> InboundGroupSession {
    let sender = Account::new().identity_keys();
    let session = GroupSession::new(SessionConfig::version_1());
    InboundGroupSession::new(
        sender.curve25519,
        sender.ed25519,
        room,
        &session.session_key(),
        SenderData::unknown(),
        None,
        EventEncryptionAlgorithm::MegolmV1AesSha2,
        None,
        false,
    )
    .unwrap()
}
