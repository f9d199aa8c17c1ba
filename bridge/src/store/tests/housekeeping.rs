//! What is forgotten with time, and what is not.

use std::time::{Duration, SystemTime};

use ruma::{event_id, room_id};

use crate::{
    clock::Clock,
    housekeeping::look_once,
    store::{
        Database, Forgotten, IndexCheck, MessagePosition, Transaction,
        testing::{TestDatabase, on_both_databases},
    },
};

on_both_databases!(
    a_row_is_dated_by_the_first_round_that_finds_it,
    a_room_key_goes_when_it_was_long_unused,
    the_guard_against_replays_stays_as_long_as_the_key,
    an_encrypted_event_is_recognised_as_long_as_its_key,
    hashes_of_olm_messages_go_by_age_and_other_records_stay,
    a_clock_that_jumps_forgets_nothing,
    a_clock_that_was_ahead_once_does_not_end_forgetting,
    a_bridge_without_traffic_goes_on_forgetting,
);

const NOTHING: Forgotten = Forgotten { messages: 0, room_keys: 0, positions: 0, records: 0 };

async fn add_room_key(tx: &mut Transaction, session: &str) {
    let (conn, _) = tx.parts();
    sqlx::query(
        "INSERT INTO crypto_tenants (tenant, user_id, device_id) VALUES (1, '@g:x', 'G') \
         ON CONFLICT DO NOTHING",
    )
    .execute(&mut *conn)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO crypto_room_keys (tenant, room_id, session_id, sender_key, \
         sender_data_type, backed_up, pickle) VALUES (1, '!room:x', $1, 'key', 1, 0, $2)",
    )
    .bind(session)
    .bind(b"sealed".as_slice())
    .execute(&mut *conn)
    .await
    .unwrap();
}

async fn use_key(tx: &mut Transaction, session: &str, message_index: u32) -> IndexCheck {
    let position =
        MessagePosition { room_id: room_id!("!room:x"), session_id: session, message_index };
    tx.megolm_index().check_and_insert(position, event_id!("$event"), 1).await.unwrap()
}

async fn add_message(tx: &mut Transaction, event: &str) {
    sqlx::query(
        "INSERT INTO message_map (id, event_id, room_id, local_user, contact, author, matrix_leg, \
         remote_leg, status) VALUES ($1, $2, '!room:x', '@a:x', 'b@x', 'local', \
         '\"plaintext\"', '\"plaintext\"', 'sent')",
    )
    .bind(i64::try_from(event.len()).unwrap_or_default())
    .bind(event)
    .execute(tx.parts().0)
    .await
    .unwrap();
}

struct Day(u64);

impl Clock for Day {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0 * 24 * 60 * 60)
    }
}

/// A clock that may not have been set yet.
struct Unproven(u64);

impl Clock for Unproven {
    fn now(&self) -> SystemTime {
        Day(self.0).now()
    }

    fn is_proven(&self) -> bool {
        false
    }
}

async fn count(db: &Database, table: &str) -> i64 {
    let mut tx = db.read().await.unwrap();
    let statement = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    let (count,): (i64,) = sqlx::query_as(statement).fetch_one(tx.parts().0).await.unwrap();
    count
}

/// A round at this time that forgets messages after 100 and keys after 50.
async fn round(db: &Database, now_ms: i64) -> Forgotten {
    let mut tx = db.begin().await.unwrap();
    tx.housekeeping().date(now_ms).await.unwrap();
    let forgotten = tx.housekeeping().forget(now_ms - 100, now_ms - 50).await.unwrap();
    tx.commit().await.unwrap();
    forgotten
}

async fn a_row_is_dated_by_the_first_round_that_finds_it(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    add_message(&mut tx, "$1").await;
    tx.commit().await.unwrap();
    assert_eq!(round(&db, 1000).await, NOTHING);
    let mut tx = db.begin().await.unwrap();
    add_message(&mut tx, "$22").await;
    tx.commit().await.unwrap();
    assert_eq!(round(&db, 1100).await, NOTHING);
    assert_eq!(round(&db, 1101).await, Forgotten { messages: 1, ..NOTHING });
    assert_eq!(round(&db, 1200).await, NOTHING);
    assert_eq!(round(&db, 1201).await, Forgotten { messages: 1, ..NOTHING });
}

async fn a_room_key_goes_when_it_was_long_unused(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    for session in ["used", "unused", "used once"] {
        add_room_key(&mut tx, session).await;
    }
    assert_eq!(use_key(&mut tx, "used once", 0).await, IndexCheck::Fresh);
    tx.commit().await.unwrap();
    assert_eq!(round(&db, 1000).await, NOTHING);
    for (number, now_ms) in [(0, 1040), (1, 1080)] {
        let mut tx = db.begin().await.unwrap();
        assert_eq!(use_key(&mut tx, "used", number).await, IndexCheck::Fresh);
        tx.commit().await.unwrap();
        let forgotten = round(&db, now_ms).await;
        let expected = if number == 0 { 0 } else { 2 };
        assert_eq!(forgotten.room_keys, expected, "at {now_ms}");
    }
    assert_eq!(round(&db, 1130).await, NOTHING);
    assert_eq!(round(&db, 1131).await, Forgotten { room_keys: 1, positions: 2, ..NOTHING });
}

async fn the_guard_against_replays_stays_as_long_as_the_key(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    add_room_key(&mut tx, "session").await;
    assert_eq!(use_key(&mut tx, "session", 7).await, IndexCheck::Fresh);
    tx.commit().await.unwrap();
    round(&db, 1000).await;
    let mut tx = db.begin().await.unwrap();
    assert_eq!(use_key(&mut tx, "session", 8).await, IndexCheck::Fresh);
    tx.commit().await.unwrap();
    assert_eq!(round(&db, 1060).await, NOTHING, "the key is in use");
    let mut tx = db.begin().await.unwrap();
    assert_eq!(
        use_key(&mut tx, "session", 7).await,
        IndexCheck::SameEvent,
        "an old place is known"
    );
}

async fn an_encrypted_event_is_recognised_as_long_as_its_key(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    add_room_key(&mut tx, "session").await;
    assert_eq!(use_key(&mut tx, "session", 7).await, IndexCheck::Fresh);
    for event in ["$event", "$in the clear"] {
        sqlx::query(
            "INSERT INTO matrix_inbox (id, event_id, room_id, sender, origin_ts, received_ms) \
             VALUES ($1, $2, '!room:x', '@a:x', 1, 1)",
        )
        .bind(i64::try_from(event.len()).unwrap())
        .bind(event)
        .execute(tx.parts().0)
        .await
        .unwrap();
    }
    assert_eq!(tx.matrix_inbox().purge_done(2).await.unwrap(), 1, "the plain one");
    tx.housekeeping().date(1000).await.unwrap();
    tx.housekeeping().forget(0, 1001).await.unwrap();
    assert_eq!(tx.matrix_inbox().purge_done(2).await.unwrap(), 1, "its key is gone");
}

async fn hashes_of_olm_messages_go_by_age_and_other_records_stay(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    add_room_key(&mut tx, "for the tenant").await;
    for kind in ["olm_hash", "withheld", "account", "olm_session", "device"] {
        sqlx::query(
            "INSERT INTO crypto_records (tenant, kind, key_blind, sub_key_blind) \
             VALUES (1, $1, $2, $2)",
        )
        .bind(kind)
        .bind(b"blind".as_slice())
        .execute(tx.parts().0)
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(round(&db, 1000).await, NOTHING);
    assert_eq!(round(&db, 1050).await, NOTHING);
    assert_eq!(round(&db, 1051).await, Forgotten { room_keys: 1, records: 2, ..NOTHING });
    assert_eq!(count(&db, "crypto_records").await, 3);
}

async fn a_clock_that_jumps_forgets_nothing(location: TestDatabase) {
    let db = location.open().await;
    let mut events = (1..).map(|length| format!("${}", "e".repeat(length)));
    let mut one_more = async |day: u64| {
        let mut tx = db.begin().await.unwrap();
        add_message(&mut tx, &events.next().unwrap()).await;
        tx.commit().await.unwrap();
        look_once(&db, &Unproven(day), Duration::ZERO).await.unwrap();
        count(&db, "message_map").await
    };
    for (day, left) in [(1000, 1), (3000, 2), (10, 3), (3001, 3), (9000, 4)] {
        assert_eq!(one_more(day).await, left, "at day {day}");
    }
    for day in (9020..9360).step_by(20) {
        one_more(day).await;
    }
    let before = count(&db, "message_map").await;
    assert!(one_more(9366).await <= before, "nothing is forgotten any more");
}

async fn a_clock_that_was_ahead_once_does_not_end_forgetting(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    add_message(&mut tx, "$1").await;
    tx.commit().await.unwrap();
    let newest = async || db.read().await.unwrap().housekeeping().newest().await.unwrap();
    look_once(&db, &Day(3000), Duration::ZERO).await.unwrap();
    let ahead = newest().await;
    look_once(&db, &Unproven(1000), Duration::ZERO).await.unwrap();
    assert_eq!(newest().await, ahead, "this clock may be behind");
    look_once(&db, &Day(1000), Duration::ZERO).await.unwrap();
    assert_eq!(newest().await, i64::try_from(Day(1000).now_ms()).unwrap());
    for day in (1020..=1360).step_by(20) {
        look_once(&db, &Day(day), Duration::ZERO).await.unwrap();
    }
    assert_eq!(count(&db, "message_map").await, 1, "it was found on day 1000");
    look_once(&db, &Day(1366), Duration::ZERO).await.unwrap();
    assert_eq!(count(&db, "message_map").await, 0);
}

async fn a_bridge_without_traffic_goes_on_forgetting(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    add_message(&mut tx, "$1").await;
    tx.commit().await.unwrap();
    for day in (1000..=1360).step_by(20) {
        look_once(&db, &Day(day), Duration::ZERO).await.unwrap();
    }
    assert_eq!(count(&db, "message_map").await, 1);
    look_once(&db, &Day(1366), Duration::ZERO).await.unwrap();
    assert_eq!(count(&db, "message_map").await, 0);
}
