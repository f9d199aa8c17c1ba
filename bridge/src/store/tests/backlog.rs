//! What waits in a chat, and how it is measured.

use sqlx::{Executor as _, Row as _};

use super::repositories::{begin, chat_with, remote_event};
use crate::{
    network::{RemoteEvent, RemoteEventKind, RemoteMessageId},
    store::{
        Backlog, Lane, Repetition,
        remote_inbox::{MEASURE_MESSAGES, MEASURE_REPORTS},
        testing::{TestDatabase, on_both_databases, sqlite},
        xmpp_inbox::MEASURE as MEASURE_STANZAS,
    },
};

on_both_databases!(
    messages_and_reports_are_read_and_measured_apart,
    what_came_before_the_upgrade_keeps_its_order,
    sizes_of_before_the_upgrade_are_known,
);

async fn messages_and_reports_are_read_and_measured_apart(location: TestDatabase) {
    let (_db, mut tx) = begin(&location).await;
    let (bob, carol) = (chat_with("bob@example.net"), chat_with("carol@example.net"));
    let report = |id: &str| RemoteEvent {
        chat: bob.clone(),
        sent_at_ms: None,
        kind: RemoteEventKind::Delivered { id: RemoteMessageId::new(id) },
    };
    let mut inbox = tx.remote_inbox();
    let first = inbox.insert(&report("m1")).await.unwrap();
    for event in [remote_event(&bob, "one"), report("m2"), remote_event(&carol, "other")] {
        inbox.insert(&event).await.unwrap();
    }
    let (messages, reports) = ((&bob, Lane::Messages), (&bob, Lane::Reports));
    let rows = inbox.load_pending(reports, None, 10).await.unwrap();
    assert!(rows.iter().map(|row| &row.event).eq(&[report("m1"), report("m2")]));
    assert_eq!(inbox.load_pending(reports, Some(first), 10).await.unwrap().len(), 1);
    assert_eq!(inbox.load_pending(reports, None, 1).await.unwrap().len(), 1);
    let rows = inbox.load_pending(messages, None, 10).await.unwrap();
    assert!(rows.iter().map(|row| &row.event).eq(&[remote_event(&bob, "one")]));

    assert_eq!(inbox.measure(reports, 10).await.unwrap().rows, 2);
    assert_eq!(inbox.measure(reports, 1).await.unwrap().rows, 1, "that is enough");
    let small = inbox.measure(messages, 10).await.unwrap();
    inbox.insert(&remote_event(&bob, &"x".repeat(10_000))).await.unwrap();
    let large = inbox.measure(messages, 10).await.unwrap();
    assert_eq!((small.rows, large.rows), (1, 2));
    assert!((10_000..11_000).contains(&(large.bytes - small.bytes)));
    let nobody = chat_with("nobody@example.net");
    let nothing = inbox.measure((&nobody, Lane::Messages), 10).await.unwrap();
    assert_eq!(nothing, Backlog::default());

    let mut inbox = tx.xmpp_inbox();
    let mut insert = async |stanza: &[u8]| {
        inbox.insert(&bob, "", Repetition::Never, stanza, 1).await.unwrap().unwrap()
    };
    let (held, done) = (insert(b"held").await, insert(b"done").await);
    insert(&[b'x'; 10_000]).await;
    inbox.hold(held, None).await.unwrap();
    inbox.mark_done(done).await.unwrap();
    let open = inbox.measure(&bob, 10).await.unwrap();
    assert_eq!(open.rows, 2, "one is done");
    assert!((10_000..10_200).contains(&open.bytes));
    let both = Backlog { rows: 4, bytes: open.bytes + large.bytes };
    assert_eq!(open.and(large), both);
}

async fn what_came_before_the_upgrade_keeps_its_order(location: TestDatabase) {
    let db = location.open().await;
    let bob = chat_with("bob@example.net");
    let mut tx = db.begin().await.unwrap();
    for text in ["one", "two"] {
        tx.remote_inbox().insert(&remote_event(&bob, text)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut raw = location.raw_connection().await;
    raw.execute(
        "UPDATE remote_inbox SET is_message = 0 WHERE id = (SELECT MIN(id) FROM remote_inbox)",
    )
    .await
    .unwrap();
    let migration = include_str!("../../../migrations/0012_reports_apart.sql");
    let update = migration.split(';').find(|statement| statement.contains("UPDATE")).unwrap();
    raw.execute(update).await.unwrap();
    let mut tx = db.read().await.unwrap();
    let rows = tx.remote_inbox().load_pending((&bob, Lane::Messages), None, 10).await.unwrap();
    let expected = [remote_event(&bob, "one"), remote_event(&bob, "two")];
    assert!(rows.iter().map(|row| &row.event).eq(&expected));
}

async fn sizes_of_before_the_upgrade_are_known(location: TestDatabase) {
    let db = location.open().await;
    let bob = chat_with("bob@example.net");
    let mut tx = db.begin().await.unwrap();
    tx.remote_inbox().insert(&remote_event(&bob, "one")).await.unwrap();
    tx.xmpp_inbox().insert(&bob, "", Repetition::Never, b"two", 1).await.unwrap();
    tx.commit().await.unwrap();
    let measured = async || {
        let mut tx = db.read().await.unwrap();
        let stanzas = tx.xmpp_inbox().measure(&bob, 10).await.unwrap();
        stanzas.and(tx.remote_inbox().measure((&bob, Lane::Messages), 10).await.unwrap())
    };
    let before = measured().await;
    let mut raw = location.raw_connection().await;
    raw.execute("UPDATE remote_inbox SET size_bytes = 0").await.unwrap();
    raw.execute("UPDATE xmpp_inbox SET size_bytes = 0").await.unwrap();
    assert_eq!(measured().await, Backlog { rows: 2, bytes: 0 });
    for migration in [
        include_str!("../../../migrations/0011_what_waits.sql"),
        include_str!("../../../migrations/0102_xmpp_sizes.sql"),
    ] {
        let update = migration.split(';').find(|statement| statement.contains("UPDATE")).unwrap();
        raw.execute(update).await.unwrap();
    }
    assert_eq!(measured().await, before);
}

/// A sealed event is large, and behind it stand pages that would be read one after the other.
#[tokio::test]
async fn whoever_measures_what_waits_reads_the_index_alone() {
    let (_db, mut tx) = begin(&sqlite()).await;
    for query in [MEASURE_MESSAGES, MEASURE_REPORTS, MEASURE_STANZAS] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
        let plan = sqlx::query(explain)
            .bind("@alice:example.org")
            .bind("bob@example.net")
            .bind(1_i64)
            .fetch_all(tx.parts().0)
            .await
            .unwrap();
        let steps: Vec<String> = plan.iter().map(|step| step.get("detail")).collect();
        let searches: Vec<_> = steps.iter().filter(|step| step.starts_with("SEARCH")).collect();
        assert!(!searches.is_empty(), "{steps:?}");
        assert!(searches.iter().all(|step| step.contains("COVERING INDEX")), "{steps:?}");
    }
}
