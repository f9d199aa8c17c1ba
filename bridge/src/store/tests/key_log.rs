//! The key log, and what somebody achieves who can write to the database but has not its key.

use e2ee::omemo::{DeviceId, IdentityKey};
use ruma::{owned_user_id, user_id};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::{
    network::{Author, ChatKey, Decider, DeviceDecision, RemoteUserId},
    store::{
        Database, KeyEvent, KeyLogCheck, KeyLogEntry, KeyLogRow, LoggedKey,
        testing::{TestDatabase, on_both_databases},
    },
};

on_both_databases!(
    every_change_of_a_pin_is_logged_with_it,
    a_whole_log_has_the_head_of_its_last_row,
    what_is_done_to_a_log_without_its_key_is_found,
    a_log_that_is_cut_off_has_another_head,
    what_is_rolled_back_is_not_logged,
);

fn chat() -> ChatKey {
    let local = Author::Person(owned_user_id!("@alice:example.org"));
    ChatKey { local, contact: RemoteUserId::new("bob@example.net") }
}

fn identity(u: u8) -> IdentityKey {
    let mut bytes = [0; 32];
    bytes[0] = u;
    IdentityKey::from_bytes(&bytes).expect("a point on the curve")
}

async fn check(db: &Database) -> KeyLogCheck {
    db.read().await.unwrap().key_log().check().await.unwrap()
}

async fn about(db: &Database, owner: &str) -> Vec<KeyLogRow> {
    db.read().await.unwrap().key_log().load_about(owner).await.unwrap()
}

/// Events of one Matrix user.
async fn write(db: &Database, times_ms: std::ops::Range<i64>) {
    let by_bob = Decider::Contact(RemoteUserId::new("bob@example.net"));
    let mut tx = db.begin().await.unwrap();
    for time_ms in times_ms {
        let key = LoggedKey::Matrix { user: user_id!("@alice:example.org"), master_key: "key" };
        let event = KeyEvent::Verified;
        let entry = KeyLogEntry { time_ms, key, event, decided_by: &by_bob };
        tx.key_log().append(&entry).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn every_change_of_a_pin_is_logged_with_it(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    let (alice, device) = (user_id!("@alice:example.org"), DeviceId::new(7).unwrap());
    for (key, now_ms) in [("one", 1), ("one", 2), ("two", 3), ("two", 4), ("one", 5), ("two", 6)] {
        let _ = tx.pins().pin_or_check(alice, key, now_ms).await.unwrap();
    }
    assert!(tx.pins().approve(alice, "two", "two", 7).await.unwrap());
    let by_alice = Decider::Person(alice.to_owned());
    let mut omemo = tx.xmpp_omemo();
    omemo.pin(&chat(), device, identity(9), 8).await.unwrap();
    omemo.pin(&chat(), device, identity(9), 9).await.unwrap();
    let _ = omemo.present(&chat(), device, identity(16), 10).await.unwrap();
    let _ = omemo.present(&chat(), device, identity(16), 11).await.unwrap();
    for decision in [DeviceDecision::Approve, DeviceDecision::Verify, DeviceDecision::Distrust] {
        omemo.decide(&chat(), (device, identity(16)), decision, &by_alice, 12).await.unwrap();
    }
    tx.commit().await.unwrap();

    let told = |rows: Vec<KeyLogRow>| -> Vec<String> {
        let line = |row: &KeyLogRow| {
            let KeyLogRow { seq, time_ms, leg, local_user, device, event, .. } = row;
            format!("{seq} {time_ms} {leg} {local_user}/{device} {event} {}", row.decided_by)
        };
        rows.iter().map(line).collect()
    };
    assert_eq!(
        told(about(&db, "@alice:example.org").await),
        [
            "1 1 matrix / first_seen nobody",
            "2 3 matrix / changed nobody",
            "3 5 matrix / changed nobody",
            "4 6 matrix / changed nobody",
            "5 7 matrix / approved @alice:example.org",
        ]
    );
    let bobs = about(&db, "bob@example.net").await;
    assert_eq!(bobs[0].public_key, identity(9).fingerprint());
    assert!(bobs[1..].iter().all(|row| row.public_key == identity(16).fingerprint()));
    assert_eq!(
        told(bobs),
        [
            "6 8 xmpp @alice:example.org/7 first_seen nobody",
            "7 10 xmpp @alice:example.org/7 changed nobody",
            "8 12 xmpp @alice:example.org/7 approved @alice:example.org",
            "9 12 xmpp @alice:example.org/7 verified @alice:example.org",
            "10 12 xmpp @alice:example.org/7 distrusted @alice:example.org",
        ]
    );
    assert!(matches!(check(&db).await, KeyLogCheck::Whole { rows: 10, .. }));
}

async fn a_whole_log_has_the_head_of_its_last_row(location: TestDatabase) {
    let db = location.open().await;
    let empty = KeyLogCheck::Whole { rows: 0, head: "0".repeat(64) };
    assert_eq!(check(&db).await, empty);
    // More than are looked at in one go.
    write(&db, 0..1001).await;
    let KeyLogCheck::Whole { rows: 1001, head } = check(&db).await else { panic!("broken") };
    write(&db, 1001..1002).await;
    let KeyLogCheck::Whole { rows: 1002, head: next } = check(&db).await else { panic!("broken") };
    assert_ne!(head, next);
    db.close().await.unwrap();
    let again = location.open().await;
    assert_eq!(check(&again).await, KeyLogCheck::Whole { rows: 1002, head: next });
}

async fn what_is_done_to_a_log_without_its_key_is_found(location: TestDatabase) {
    let db = location.open().await;
    write(&db, 0..5).await;
    let whole = check(&db).await;
    let mut thief = location.raw_connection().await;
    for (harm, first_bad) in [
        ("UPDATE key_log SET time_ms = time_ms + 1 WHERE seq = 3", 3),
        ("UPDATE key_log SET leg = 'xmpp' WHERE seq = 3", 3),
        ("UPDATE key_log SET local_user = '@a:b' WHERE seq = 3", 3),
        ("UPDATE key_log SET owner = '@eve:example.org' WHERE seq = 3", 3),
        ("UPDATE key_log SET device = '1' WHERE seq = 3", 3),
        ("UPDATE key_log SET public_key = 'another' WHERE seq = 3", 3),
        ("UPDATE key_log SET event = 'changed' WHERE seq = 3", 3),
        ("UPDATE key_log SET decided_by = 'nobody' WHERE seq = 5", 5),
        // A text moved from one column to the next.
        ("UPDATE key_log SET device = public_key, public_key = '' WHERE seq = 3", 3),
        ("DELETE FROM key_log WHERE seq = 3", 3),
        ("DELETE FROM key_log WHERE seq = 1", 1),
        ("UPDATE key_log SET seq = seq - 10 WHERE seq = 1", -9),
        ("DELETE FROM key_log WHERE seq = 3; UPDATE key_log SET seq = seq - 1 WHERE seq = 4", 3),
        // Two rows swapped, with their links and without.
        (
            "UPDATE key_log SET seq = 99 WHERE seq = 2; UPDATE key_log SET seq = 2 WHERE seq = 3; \
             UPDATE key_log SET seq = 3 WHERE seq = 99",
            2,
        ),
        ("UPDATE key_log SET time_ms = 5 - time_ms WHERE seq IN (3, 4)", 3),
        // A row that repeats another one, behind the last.
        (
            "INSERT INTO key_log SELECT 6, time_ms, leg, local_user, owner, device, public_key, \
             event, decided_by, hash FROM key_log WHERE seq = 5",
            6,
        ),
        (
            "INSERT INTO key_log SELECT 0, time_ms, leg, local_user, owner, device, public_key, \
             event, decided_by, hash FROM key_log WHERE seq = 5",
            0,
        ),
    ] {
        thief.execute("CREATE TABLE copy AS SELECT * FROM key_log").await.unwrap();
        for statement in harm.split(';') {
            thief.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
        }
        assert_eq!(check(&db).await, KeyLogCheck::Broken { seq: first_bad }, "{harm}");
        thief.execute("DELETE FROM key_log").await.unwrap();
        thief.execute("INSERT INTO key_log SELECT * FROM copy").await.unwrap();
        thief.execute("DROP TABLE copy").await.unwrap();
        assert_eq!(check(&db).await, whole);
    }
}

async fn a_log_that_is_cut_off_has_another_head(location: TestDatabase) {
    let db = location.open().await;
    write(&db, 0..3).await;
    let KeyLogCheck::Whole { head: noted, .. } = check(&db).await else { panic!("broken") };
    let mut thief = location.raw_connection().await;
    thief.execute("DELETE FROM key_log WHERE seq = 3").await.unwrap();
    let KeyLogCheck::Whole { rows: 2, head } = check(&db).await else { panic!("broken") };
    assert_ne!(head, noted);
    write(&db, 7..8).await;
    let KeyLogCheck::Whole { rows: 3, head } = check(&db).await else { panic!("broken") };
    assert_ne!(head, noted);
}

async fn what_is_rolled_back_is_not_logged(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    let _ = tx.pins().pin_or_check(user_id!("@alice:example.org"), "one", 1).await.unwrap();
    drop(tx);
    assert!(about(&db, "@alice:example.org").await.is_empty());
}
