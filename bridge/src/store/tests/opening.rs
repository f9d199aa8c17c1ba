//! Who may open a database, and who may write to it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use assert_matches::assert_matches;
use ruma::room_id;
use sqlx::Executor as _;

use crate::store::{
    ConnectError, Database, LeaseError, ManagementRoom, Notice, StoreError, StoreKey,
    testing::{TestDatabase, on_both_databases, sqlite},
};

on_both_databases!(
    what_is_committed_is_there_after_reopening,
    a_transaction_that_is_dropped_changes_nothing,
    a_second_process_is_refused,
    a_writer_that_was_taken_over_is_fenced_out,
    a_wrong_key_is_refused_and_changes_nothing,
    a_reader_cannot_write,
    writers_wait_for_each_other,
    a_commit_that_fails_is_known_until_one_succeeds,
    a_size_is_known,
);

const NOTICE: Notice<'_> = Notice { scope: "room", subject: "", kind: "hello" };

async fn tell(db: &Database) -> Result<bool, StoreError> {
    let mut tx = db.begin().await?;
    let first = tx.notices().first_time(NOTICE).await?;
    tx.commit().await?;
    Ok(first)
}

#[tokio::test]
async fn a_database_that_was_full_is_written_again_when_there_is_room() {
    let location = sqlite();
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    // This connection may not make the file larger.
    tx.parts().0.execute("PRAGMA max_page_count = 1").await.unwrap();
    let subject = "x".repeat(100_000);
    let full = tx.notices().first_time(Notice { subject: &subject, ..NOTICE }).await.unwrap_err();
    assert_matches!(full, StoreError::Database(cause) if cause.to_string().contains("full"));
    drop(tx);
    assert!(tell(&db).await.unwrap(), "nothing of it was stored, and there is room");
    let mut tx = db.begin().await.unwrap();
    assert!(tx.notices().first_time(Notice { subject: &subject, ..NOTICE }).await.unwrap());
    tx.commit().await.unwrap();
}

async fn what_is_committed_is_there_after_reopening(location: TestDatabase) {
    let db = location.open().await;
    assert!(tell(&db).await.unwrap());
    db.close().await.unwrap();
    assert!(!tell(&location.open().await).await.unwrap());
}

async fn a_transaction_that_is_dropped_changes_nothing(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    assert!(tx.notices().first_time(NOTICE).await.unwrap());
    drop(tx);
    assert!(tell(&db).await.unwrap());
}

async fn a_second_process_is_refused(location: TestDatabase) {
    let db = location.open().await;
    assert_matches!(location.try_open().await, Err(ConnectError::Lease(LeaseError::Taken)));
    assert!(tell(&db).await.unwrap(), "the owner is not disturbed");
    db.close().await.unwrap();
    location.open().await;
}

/// Takes the lease away as accidents do: the lock file deleted, the lock's connection lost.
async fn lose_lease(location: &TestDatabase) {
    if let Some(file) = &location.file {
        fs::remove_file(file.with_extension("db.lock")).unwrap();
    } else {
        location
            .raw_connection()
            .await
            .execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks \
                 WHERE locktype = 'advisory' AND database = \
                     (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            .await
            .unwrap();
    }
}

async fn a_writer_that_was_taken_over_is_fenced_out(location: TestDatabase) {
    let old = location.open().await;
    lose_lease(&location).await;
    let new = location.open().await;
    assert_matches!(tell(&old).await, Err(StoreError::Fenced));
    assert_matches!(old.confirm_owner().await, Err(StoreError::Fenced));
    assert_matches!(new.confirm_owner().await, Ok(()));
    assert!(tell(&new).await.unwrap(), "the fenced one has written nothing");
}

async fn a_wrong_key_is_refused_and_changes_nothing(location: TestDatabase) {
    let db = location.open().await;
    db.close().await.unwrap();
    let epoch = epoch(&location).await;

    let wrong = StoreKey::from_bytes([9; 32]);
    let opened = Database::connect(&location.url, &wrong, &location.witness()).await;
    assert_matches!(opened, Err(ConnectError::WrongKey));
    assert_eq!(self::epoch(&location).await, epoch);
    location.open().await;
}

async fn epoch(location: &TestDatabase) -> i64 {
    let mut connection = location.raw_connection().await;
    let (epoch,): (i64,) =
        sqlx::query_as("SELECT epoch FROM store_owner").fetch_one(&mut connection).await.unwrap();
    epoch
}

async fn a_reader_cannot_write(location: TestDatabase) {
    let db = location.open().await;
    let room = ManagementRoom {
        room_id: room_id!("!room:example.org").to_owned(),
        user_id: "@alice:example.org".try_into().unwrap(),
    };
    let mut tx = db.read().await.unwrap();
    assert_matches!(tx.management_rooms().insert(&room).await, Err(StoreError::Database(_)));
    drop(tx);
    let found = db.read().await.unwrap().management_rooms().find_by_room(&room.room_id).await;
    assert!(found.unwrap().is_none());
}

/// Both would see the same numbers if they overlapped.
async fn writers_wait_for_each_other(location: TestDatabase) {
    let db = location.open().await;
    let told = futures_util::future::join_all((0..20).map(|_| tell(&db))).await;
    let first_times = told.into_iter().filter(|first| *first.as_ref().unwrap()).count();
    assert_eq!(first_times, 1);
}

async fn a_commit_that_fails_is_known_until_one_succeeds(location: TestDatabase) {
    const CHILD: &str =
        "CREATE TABLE child (id BIGINT REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)";
    let db = location.open().await;
    let mut raw = location.raw_connection().await;
    raw.execute("CREATE TABLE parent (id BIGINT PRIMARY KEY)").await.unwrap();
    raw.execute(CHILD).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    tx.parts().0.execute("INSERT INTO child VALUES (1)").await.unwrap();
    assert!(db.takes_writes());
    assert_matches!(tx.commit().await, Err(StoreError::Database(_)));
    assert!(!db.takes_writes());
    // It is asked again without anybody having something to write.
    db.confirm_owner().await.unwrap();
    assert!(db.takes_writes());
}

async fn a_size_is_known(location: TestDatabase) {
    assert!(location.open().await.size_bytes().await.unwrap() > 10_000);
}

#[tokio::test]
async fn the_files_are_private() {
    let location = sqlite();
    let db = location.open().await;
    tell(&db).await.unwrap();
    let file = location.file.as_deref().unwrap();
    for entry in fs::read_dir(file.parent().unwrap()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}

#[tokio::test]
async fn a_url_of_another_kind_is_refused() {
    let key = StoreKey::from_bytes([1; 32]);
    for url in ["", "mysql://localhost/x", "sqlite::memory:", "sqlite://", "/var/lib/gephyra.db"] {
        let opened = Database::connect(url, &key, "witness".as_ref()).await;
        assert_matches!(opened, Err(ConnectError::Url), "{url}");
    }
}
