//! Upstream's conformance suite on both databases, and what it does not ask.

use std::{cell::RefCell, collections::HashMap};

use matrix_sdk_crypto::{
    OlmMachine,
    olm::{OlmMessageHash, StaticAccountData},
    store::{CryptoStore as _, types::Changes},
};
use ruma::{device_id, user_id};

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
