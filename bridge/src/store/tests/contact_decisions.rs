//! What contacts have decided, on both databases.

use ruma::{UserId, owned_room_id, user_id};
use sqlx::Executor as _;

use crate::{
    clock::SystemClock,
    network::{Author, ChatKey, RemoteUserId},
    store::{
        ContactDecision, ContactTrust, Database, KeyLogCheck, StoreKey, StoredVerification,
        VerificationStage, back_up, restore,
        testing::{TestDatabase, on_both_databases},
    },
};

on_both_databases!(
    the_latest_word_counts_and_every_word_is_logged,
    a_word_is_about_one_person_and_lasts_over_restart_and_restore,
    comparisons_of_others_go_on,
    a_database_without_the_table_gets_it,
);

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

fn bob() -> RemoteUserId {
    RemoteUserId::new("bob@example.net")
}

fn chat(user: &UserId, contact: &RemoteUserId) -> ChatKey {
    ChatKey { local: Author::Person(user.to_owned()), contact: contact.clone() }
}

fn said(trust: ContactTrust, master_key: &str, decided_ms: i64) -> ContactDecision {
    ContactDecision { trust, master_key: master_key.to_owned(), decided_ms }
}

async fn decide(db: &Database, decision: &ContactDecision) {
    let mut tx = db.begin().await.unwrap();
    tx.contact_decisions().decide((alice(), &bob()), decision).await.unwrap();
    tx.commit().await.unwrap();
}

async fn the_latest_word_counts_and_every_word_is_logged(location: TestDatabase) {
    let db = location.open().await;
    let chat = chat(alice(), &bob());
    for (decision, is_distrusted) in [
        (said(ContactTrust::Emoji, "one", 1), false),
        (said(ContactTrust::Distrusted, "one", 2), true),
        (said(ContactTrust::Fingerprint, "two", 3), false),
    ] {
        decide(&db, &decision).await;
        let mut tx = db.read().await.unwrap();
        assert_eq!(tx.contact_decisions().is_distrusted(&chat).await.unwrap(), is_distrusted);
        assert!(tx.contact_decisions().find(&chat).await.unwrap() == Some(decision));
    }
    let mut tx = db.read().await.unwrap();
    let rows = tx.key_log().load_about(alice().as_str()).await.unwrap();
    let told: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {} {} {}", row.time_ms, row.public_key, row.event, row.decided_by))
        .collect();
    assert_eq!(
        told,
        [
            "1 one verified contact bob@example.net",
            "2 one distrusted contact bob@example.net",
            "3 two verified contact bob@example.net",
        ]
    );
    assert!(matches!(tx.key_log().check().await.unwrap(), KeyLogCheck::Whole { rows: 3, .. }));
    let decision = said(ContactTrust::Fingerprint, "two", 3);
    assert!(decision.has_verified("two") && !decision.has_verified("one"));
    assert!(!said(ContactTrust::Distrusted, "two", 3).has_verified("two"));
}

async fn a_word_is_about_one_person_and_lasts_over_restart_and_restore(location: TestDatabase) {
    let db = location.open().await;
    decide(&db, &said(ContactTrust::Distrusted, "one", 1)).await;
    let (key, backup) =
        (StoreKey::from_bytes(location.key), location.witness().with_extension("backup"));
    back_up(&location.url, &key, &backup).await.unwrap();
    db.close().await.unwrap();
    let (carol, eve) = (user_id!("@carol:example.org"), RemoteUserId::new("eve@example.net"));
    for is_restored in [false, true] {
        if is_restored {
            restore(&location.url, &key, &backup, &SystemClock).await.unwrap();
        }
        let db = location.open().await;
        let mut tx = db.read().await.unwrap();
        let mut decisions = tx.contact_decisions();
        for (chat, is_distrusted) in [
            (chat(alice(), &bob()), true),
            (chat(carol, &bob()), false),
            (chat(alice(), &eve), false),
            (ChatKey { local: Author::Bridge, contact: bob() }, false),
        ] {
            assert_eq!(decisions.is_distrusted(&chat).await.unwrap(), is_distrusted);
        }
        assert_eq!(decisions.load_distrusting(alice()).await.unwrap(), [bob()]);
        assert!(decisions.load_distrusting(carol).await.unwrap().is_empty());
        drop(tx);
        db.close().await.unwrap();
    }
}

async fn comparisons_of_others_go_on(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    let (carol, eve) = (user_id!("@carol:example.org"), RemoteUserId::new("eve@example.net"));
    for (user, contact) in [(alice(), bob()), (carol, bob()), (alice(), eve.clone())] {
        let row = StoredVerification {
            ghost: user_id!("@xmpp_ghost:example.org").to_owned(),
            user_id: user.to_owned(),
            flow: format!("with {}", contact.as_str()),
            contact,
            portal_room: owned_room_id!("!portal:example.org"),
            flow_room: None,
            device_id: None,
            stage: VerificationStage::Confirmed,
            shown: None,
        };
        tx.verifications().insert(&row).await.unwrap();
    }
    tx.verifications().delete_between((alice(), &bob())).await.unwrap();
    let left = tx.verifications().load_by_contact(&bob()).await.unwrap();
    assert_eq!(left.iter().map(|row| row.user_id.as_str()).collect::<Vec<_>>(), [carol.as_str()]);
    assert_eq!(tx.verifications().load_by_contact(&eve).await.unwrap().len(), 1);
}

/// Migrations with higher numbers have run before this one.
async fn a_database_without_the_table_gets_it(location: TestDatabase) {
    location.open().await.close().await.unwrap();
    let mut raw = location.raw_connection().await;
    raw.execute("DROP TABLE contact_decisions").await.unwrap();
    raw.execute("DELETE FROM _sqlx_migrations WHERE version = 6").await.unwrap();
    drop(raw);
    let db = location.open().await;
    decide(&db, &said(ContactTrust::Emoji, "one", 1)).await;
}
