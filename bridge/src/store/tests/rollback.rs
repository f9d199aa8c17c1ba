//! A database that is older than its witness, and copies of a database.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use assert_matches::assert_matches;
use sqlx::Executor as _;

use crate::{
    clock::SystemClock,
    store::{
        BackupError, ConnectError, Database, LeaseError, Notice, StoreError, StoreKey, back_up,
        restore,
        testing::{TestDatabase, on_both_databases, sqlite},
    },
};

on_both_databases!(
    an_older_copy_is_noticed_until_it_is_put_right,
    a_database_that_stops_in_any_way_is_no_older_copy,
    a_lost_witness_counts_as_an_older_copy,
    a_history_that_was_left_is_an_older_copy,
    a_database_without_a_witness_of_its_own_gets_one,
    a_database_that_has_gone_missing_is_not_begun_anew,
    a_database_that_is_set_back_while_it_is_in_use_stops_its_owner,
    a_file_that_is_no_witness_stops_the_start,
    a_backup_comes_back_as_an_older_copy,
    a_backup_of_an_earlier_version_comes_back,
    nothing_is_restored_under_a_running_bridge,
);

const NOTICE: Notice<'_> = Notice { scope: "room", subject: "", kind: "hello" };

async fn tell(db: &Database) -> bool {
    let mut tx = db.begin().await.unwrap();
    let is_first = tx.notices().first_time(NOTICE).await.unwrap();
    tx.commit().await.unwrap();
    is_first
}

/// As a restore of the whole database does it.
async fn go_back(location: &TestDatabase, commits: i64) {
    let statement = sqlx::query("UPDATE store_owner SET commits = commits - $1").bind(commits);
    statement.execute(&mut location.raw_connection().await).await.unwrap();
}

async fn is_rolled_back(location: &TestDatabase) -> bool {
    let db = location.open().await;
    let is_rolled_back = db.is_rolled_back();
    db.close().await.unwrap();
    is_rolled_back
}

async fn put_right(location: &TestDatabase) {
    let db = location.open().await;
    db.recovered(db.begin().await.unwrap()).await.unwrap();
    db.close().await.unwrap();
}

async fn an_older_copy_is_noticed_until_it_is_put_right(location: TestDatabase) {
    let db = location.open().await;
    assert!(!db.is_rolled_back());
    tell(&db).await;
    db.close().await.unwrap();
    // The start itself commits once.
    go_back(&location, 1).await;
    assert!(is_rolled_back(&location).await);
    assert!(is_rolled_back(&location).await, "it was forgotten before it was put right");
    put_right(&location).await;
    assert!(!is_rolled_back(&location).await);
}

async fn a_database_that_stops_in_any_way_is_no_older_copy(location: TestDatabase) {
    for _ in 0..3 {
        let db = location.open().await;
        assert!(!db.is_rolled_back());
        tell(&db).await;
        let mut unfinished = db.begin().await.unwrap();
        unfinished.notices().first_time(NOTICE).await.unwrap();
        drop(unfinished);
        tell(&db).await;
        db.close().await.unwrap();
    }
    // At a power cut the witness may fall behind.
    go_back(&location, -5).await;
    assert!(!is_rolled_back(&location).await);
}

async fn a_lost_witness_counts_as_an_older_copy(location: TestDatabase) {
    assert!(!is_rolled_back(&location).await);
    fs::remove_file(location.witness()).unwrap();
    assert!(is_rolled_back(&location).await);
    assert!(!location.witness().exists(), "nothing vouches for it yet");
    put_right(&location).await;
    assert!(!is_rolled_back(&location).await);
}

async fn a_history_that_was_left_is_an_older_copy(location: TestDatabase) {
    assert!(!is_rolled_back(&location).await);
    let lineage = "UPDATE store_owner SET lineage = '00000000000000000000000000000000', \
         commits = commits + 1000";
    location.raw_connection().await.execute(lineage).await.unwrap();
    assert!(is_rolled_back(&location).await);
}

async fn a_database_without_a_witness_of_its_own_gets_one(location: TestDatabase) {
    assert!(!is_rolled_back(&location).await);
    let earlier_version = "UPDATE store_owner SET lineage = NULL, commits = 0";
    location.raw_connection().await.execute(earlier_version).await.unwrap();
    let witness = fs::read(location.witness()).unwrap();
    fs::remove_file(location.witness()).unwrap();
    assert!(!is_rolled_back(&location).await, "an upgrade is no restore");

    location.raw_connection().await.execute(earlier_version).await.unwrap();
    fs::write(location.witness(), witness).unwrap();
    assert!(is_rolled_back(&location).await, "a copy from before the upgrade is one");
}

async fn a_database_that_has_gone_missing_is_not_begun_anew(location: TestDatabase) {
    let other = sqlite();
    let db = other.open().await;
    tell(&db).await;
    db.close().await.unwrap();
    let witness = fs::read(other.witness()).unwrap();
    fs::write(location.witness(), &witness).unwrap();
    for _ in 0..2 {
        assert_matches!(location.try_open().await, Err(ConnectError::Missing));
    }
    assert_eq!(fs::read(location.witness()).unwrap(), witness);
    fs::remove_file(location.witness()).unwrap();
    assert!(!is_rolled_back(&location).await);
}

async fn a_database_that_is_set_back_while_it_is_in_use_stops_its_owner(location: TestDatabase) {
    let db = location.open().await;
    for _ in 0..3 {
        tell(&db).await;
    }
    go_back(&location, 3).await;
    assert_matches!(db.begin().await.err(), Some(StoreError::Fenced));
    assert_matches!(db.confirm_owner().await, Err(StoreError::Fenced));
    drop(db);
}

async fn a_file_that_is_no_witness_stops_the_start(location: TestDatabase) {
    fs::write(location.witness(), "something else\n").unwrap();
    assert_matches!(location.try_open().await, Err(ConnectError::Witness(_)));
    assert_eq!(fs::read_to_string(location.witness()).unwrap(), "something else\n");
}

async fn a_backup_comes_back_as_an_older_copy(location: TestDatabase) {
    let key = StoreKey::from_bytes(location.key);
    let backup = location.witness().with_extension("backup");
    let db = location.open().await;
    let busy = db.begin().await.unwrap();
    back_up(&location.url, &key, &backup).await.unwrap();
    drop(busy);
    let mode = fs::metadata(&backup).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
    assert_matches!(back_up(&location.url, &key, &backup).await, Err(BackupError::Target(_)));
    assert!(tell(&db).await, "said after the backup");
    db.close().await.unwrap();

    let aside = restore(&location.url, &key, &backup, &SystemClock).await.unwrap();
    assert_eq!(aside.is_some_and(|aside| aside.exists()), location.file.is_some());
    let db = location.open().await;
    assert!(db.is_rolled_back());
    assert!(tell(&db).await, "what was said after the backup is there");
}

async fn a_backup_of_an_earlier_version_comes_back(location: TestDatabase) {
    let key = StoreKey::from_bytes(location.key);
    let backup = location.witness().with_extension("backup");
    location.open().await.close().await.unwrap();
    let mut raw = location.raw_connection().await;
    raw.execute("DROP TABLE contact_decisions").await.unwrap();
    raw.execute("DELETE FROM _sqlx_migrations WHERE version = 6").await.unwrap();
    drop(raw);
    back_up(&location.url, &key, &backup).await.unwrap();
    location.open().await.close().await.unwrap();

    for _ in 0..2 {
        restore(&location.url, &key, &backup, &SystemClock).await.unwrap();
        let db = location.open().await;
        assert!(db.is_rolled_back());
        db.close().await.unwrap();
    }
}

async fn nothing_is_restored_under_a_running_bridge(location: TestDatabase) {
    let key = StoreKey::from_bytes(location.key);
    let backup = location.witness().with_extension("backup");
    let db = location.open().await;
    back_up(&location.url, &key, &backup).await.unwrap();
    assert!(tell(&db).await);
    assert_matches!(
        restore(&location.url, &key, &backup, &SystemClock).await,
        Err(BackupError::Lease(LeaseError::Taken))
    );
    assert!(!tell(&db).await, "it was restored");
}

#[tokio::test]
async fn a_backup_may_have_any_name() {
    let location = sqlite();
    let key = StoreKey::from_bytes(location.key);
    let up: PathBuf = std::env::current_dir().unwrap().components().map(|_| "..").collect();
    let db = location.open().await;
    for name in ["at 10:30", "50%25 #1?mode=memory&x"] {
        let backup = location.witness().with_file_name(name);
        let relative = up.join(backup.strip_prefix("/").unwrap());
        back_up(&location.url, &key, &relative).await.unwrap();
        assert!(fs::metadata(&backup).unwrap().len() > 10_000, "{name} holds no database");
    }
    db.close().await.unwrap();
    for name in ["at 10:30", "50%25 #1?mode=memory&x"] {
        let relative = up.join(location.witness().with_file_name(name).strip_prefix("/").unwrap());
        restore(&location.url, &key, &relative, &SystemClock).await.unwrap();
        assert!(is_rolled_back(&location).await);
    }
}

#[tokio::test]
async fn a_restored_database_is_private_and_can_be_written_whatever_the_mode_of_the_backup() {
    let location = sqlite();
    let key = StoreKey::from_bytes(location.key);
    let backup = location.witness().with_extension("backup");
    let db = location.open().await;
    back_up(&location.url, &key, &backup).await.unwrap();
    db.close().await.unwrap();
    for mode in [0o400, 0o644] {
        fs::set_permissions(&backup, fs::Permissions::from_mode(mode)).unwrap();
        restore(&location.url, &key, &backup, &SystemClock).await.unwrap();
        let restored = fs::metadata(location.file.as_ref().unwrap()).unwrap();
        assert_eq!(restored.permissions().mode() & 0o777, 0o600);
        assert!(is_rolled_back(&location).await);
    }
}

#[tokio::test]
async fn a_backup_that_was_only_copied_back_is_noticed() {
    let location = sqlite();
    let backup = location.witness().with_extension("backup");
    let db = location.open().await;
    back_up(&location.url, &StoreKey::from_bytes(location.key), &backup).await.unwrap();
    db.close().await.unwrap();
    fs::remove_file(location.witness()).unwrap();
    fs::copy(&backup, location.file.as_ref().unwrap()).unwrap();
    assert!(is_rolled_back(&location).await);
}

#[tokio::test]
async fn a_backup_under_another_key_is_neither_made_nor_restored() {
    let location = sqlite();
    let backup = location.witness().with_extension("backup");
    let db = location.open().await;
    let wrong = StoreKey::from_bytes([9; 32]);
    let refused = back_up(&location.url, &wrong, &backup).await;
    assert_matches!(refused, Err(BackupError::Open(ConnectError::WrongKey)));
    assert!(!backup.exists());
    back_up(&location.url, &StoreKey::from_bytes(location.key), &backup).await.unwrap();
    db.close().await.unwrap();
    let refused = restore(&location.url, &wrong, &backup, &SystemClock).await;
    assert_matches!(refused, Err(BackupError::Open(ConnectError::WrongKey)));
    fs::write(&backup, "no database").unwrap();
    let refused =
        restore(&location.url, &StoreKey::from_bytes(location.key), &backup, &SystemClock).await;
    assert_matches!(refused, Err(BackupError::Open(ConnectError::Connect(_))));
    assert!(!is_rolled_back(&location).await, "the database was touched");
}
