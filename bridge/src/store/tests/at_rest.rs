//! What a thief of the database finds, and what an attacker who can write to it achieves.

use std::path::Path;

use assert_matches::assert_matches;
use matrix_sdk_crypto::store::{CryptoStore as _, types::Changes};
use ruma::{device_id, event_id, owned_room_id, owned_user_id, room_id, user_id};

use crate::{
    network::{
        Author, ChatKey, LegSecurity, MessageContent, RemoteEvent, RemoteEventKind, RemoteUserId,
    },
    store::{
        Database, NewInboxEvent, NewOutboxEvent, SealError, SqlCryptoStore, StoreError,
        testing::{TestDatabase, on_both_databases, sqlite},
    },
};

on_both_databases!(a_sealed_cell_moved_to_another_row_is_refused, an_altered_cell_is_refused,);

const TOKEN: &str = "unmistakable-4f7c1d";

fn inbox_event(event_id: &ruma::EventId) -> NewInboxEvent {
    NewInboxEvent {
        event_id: event_id.to_owned(),
        room_id: owned_room_id!("!room:example.org"),
        sender: owned_user_id!("@alice:example.org"),
        event_type: "m.room.message".to_owned(),
        state_key: None,
        origin_ts: 1,
        json: format!(r#"{{"body":"{TOKEN}"}}"#),
    }
}

fn remote_event() -> RemoteEvent {
    RemoteEvent {
        chat: ChatKey { local: Author::Bridge, contact: RemoteUserId::new("bob@example.net") },
        sent_at_ms: None,
        kind: RemoteEventKind::Message {
            id: None,
            content: MessageContent::Text { body: TOKEN.to_owned() },
            security: LegSecurity::Plaintext,
        },
    }
}

async fn store_the_token_everywhere(db: &Database) {
    let mut tx = db.begin().await.unwrap();
    tx.matrix_inbox().insert(&[inbox_event(event_id!("$one"))], 1).await.unwrap();
    tx.remote_inbox().insert(&remote_event()).await.unwrap();
    let outgoing = NewOutboxEvent {
        room_id: owned_room_id!("!room:example.org"),
        user_id: owned_user_id!("@xmpp_bob:example.org"),
        event_type: "m.room.message".to_owned(),
        txn_id: "txn".into(),
        content: format!(r#"{{"body":"{TOKEN}"}}"#),
        reference: Some(TOKEN.to_owned()),
    };
    tx.matrix_outbox().insert(&outgoing).await.unwrap();
    tx.commit().await.unwrap();
    let crypto =
        SqlCryptoStore::open(db, user_id!("@alice:example.org"), device_id!("DEVICE")).await;
    let changes = Changes { next_batch_token: Some(TOKEN.to_owned()), ..Changes::default() };
    crypto.unwrap().save_changes(changes).await.unwrap();
}

/// Searches the database's file, its log and whatever else stands beside it.
fn assert_no_token_in(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let found = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!found, "a body is stored in the clear");
    }
}

#[tokio::test]
async fn no_body_stands_in_the_clear() {
    let location = sqlite();
    let directory = location.file.as_deref().and_then(Path::parent).unwrap();
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    let id = tx.matrix_inbox().insert(&[inbox_event(event_id!("$done"))], 1).await.unwrap();
    tx.commit().await.unwrap();
    store_the_token_everywhere(&db).await;
    assert_no_token_in(directory);

    let mut tx = db.begin().await.unwrap();
    tx.matrix_inbox().mark_done(id[0].unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    db.close().await.unwrap();
    assert_no_token_in(directory);
}

/// That the search above would find something.
#[tokio::test]
async fn an_id_does_stand_in_the_clear() {
    let location = sqlite();
    let db = location.open().await;
    store_the_token_everywhere(&db).await;
    db.close().await.unwrap();
    let bytes = std::fs::read(location.file.as_deref().unwrap()).unwrap();
    let id = b"@alice:example.org";
    assert!(bytes.windows(id.len()).any(|window| window == id));
}

async fn refused_inbox(location: &TestDatabase, damage: &'static str) -> SealError {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    let events = [inbox_event(event_id!("$one")), inbox_event(event_id!("$two"))];
    tx.matrix_inbox().insert(&events, 1).await.unwrap();
    tx.commit().await.unwrap();
    sqlx::query(damage).execute(&mut location.raw_connection().await).await.unwrap();

    let mut tx = db.read().await.unwrap();
    match tx.matrix_inbox().load_pending(room_id!("!room:example.org"), None, 10).await {
        Err(StoreError::Sealed { table: "matrix_inbox", column: "content", source }) => source,
        _ => panic!("the damaged cell was accepted"),
    }
}

async fn a_sealed_cell_moved_to_another_row_is_refused(location: TestDatabase) {
    let reason = refused_inbox(
        &location,
        "UPDATE matrix_inbox SET content = (SELECT content FROM matrix_inbox WHERE event_id = '$one') \
         WHERE event_id = '$two'",
    )
    .await;
    assert_matches!(reason, SealError::NotAuthentic);
}

async fn an_altered_cell_is_refused(location: TestDatabase) {
    let damage = match location.file {
        Some(_) => "UPDATE matrix_inbox SET content = CAST(content || x'00' AS BLOB)",
        None => "UPDATE matrix_inbox SET content = content || '\\x00'::bytea",
    };
    assert_matches!(refused_inbox(&location, damage).await, SealError::NotAuthentic);
}
