use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header::AUTHORIZATION},
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::{
    appservice::{AppserviceState, Intake, router},
    clock::Clock,
    config::Secret,
    store::{Database, InboxEvent, StoreKey},
};

pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub(super) const TRANSACTION: &str = "/_matrix/app/v1/transactions/1";

/// The bridge as far as the homeserver sees it.
pub(super) struct TestBridge {
    pub(super) db: Database,
    pub(super) hub: Arc<RecordingIntake>,
    pub(super) router: Router,
    folder: TempDir,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn errcode(&self) -> &str {
        self.body["errcode"].as_str().unwrap_or_default()
    }
}

impl TestBridge {
    pub(super) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    /// Stops and starts on the same database.
    pub(super) async fn restart(self) -> Self {
        let Self { db, router, folder, .. } = self;
        db.close().await.unwrap();
        drop((db, router));
        Self::start_in(folder).await
    }

    /// Past all that `Database` does.
    pub(super) async fn execute(&self, sql: &'static str) {
        let mut raw = AnyConnection::connect(&url_in(&self.folder)).await.unwrap();
        raw.execute(sql).await.unwrap();
    }

    async fn start_in(folder: TempDir) -> Self {
        let url = url_in(&folder);
        let (key, witness) = (StoreKey::from_bytes([7; 32]), folder.path().join("witness"));
        let db = Database::connect(&url, &key, &witness).await.unwrap();
        let hub = Arc::new(RecordingIntake::default());
        let last_transaction =
            db.read().await.unwrap().matrix_inbox().last_transaction().await.unwrap();
        let router = router(AppserviceState {
            hs_token: Secret::new(TOKEN),
            db: db.clone(),
            last_transaction,
            intake: hub.clone(),
            clock: Arc::new(FixedClock),
        });
        Self { db, hub, router, folder }
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(super) async fn push(&self, body: impl Into<Body>) -> Answer {
        self.answer(request("PUT", TRANSACTION, body)).await
    }

    /// As [`Self::push_events`], in the transaction of this number.
    pub(super) async fn push_as(&self, number: u64, events: &[Value]) -> Answer {
        let path = format!("/_matrix/app/v1/transactions/{number}");
        self.answer(request("PUT", &path, json!({ "events": events }).to_string())).await
    }

    pub(super) async fn push_events(&self, events: &[Value]) -> Answer {
        self.push(json!({ "events": events }).to_string()).await
    }

    /// The open events of a room.
    pub(super) async fn inbox(&self, room: &str) -> Vec<InboxEvent> {
        let mut tx = self.db.read().await.unwrap();
        let room = RoomId::parse(room).unwrap();
        tx.matrix_inbox().load_pending(&room, None, 100).await.unwrap()
    }

    pub(super) async fn inbox_ids(&self, room: &str) -> Vec<String> {
        self.inbox(room).await.into_iter().map(|row| row.event.event_id.to_string()).collect()
    }
}

fn url_in(folder: &TempDir) -> String {
    format!("sqlite://{}", folder.path().join("gephyra.db").display())
}

/// A request that shows the right token.
pub(super) fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(AUTHORIZATION, format!("Bearer {TOKEN}"))
        .body(body.into())
        .unwrap()
}

pub(super) fn event(id: &str) -> Value {
    json!({
        "event_id": id,
        "room_id": "!room:example.org",
        "sender": "@alice:example.org",
        "type": "m.room.message",
        "origin_server_ts": 1_700_000_000_000_i64,
        "content": { "msgtype": "m.text", "body": "hello" },
        "unsigned": { "age": 5 }
    })
}

/// Writes down what it is told, and knows one ghost.
#[derive(Default)]
pub(super) struct RecordingIntake {
    pub(super) asked: Mutex<Vec<OwnedUserId>>,
    pub(super) rooms: Mutex<Vec<OwnedRoomId>>,
    pub(super) hinted: Mutex<Vec<OwnedUserId>>,
}

#[async_trait]
impl Intake for RecordingIntake {
    async fn user_exists(&self, user: &UserId) -> bool {
        self.asked.lock().unwrap().push(user.to_owned());
        user == "@xmpp_bob=40example.net:example.org"
    }

    fn events_committed(&self, rooms: &[OwnedRoomId]) {
        self.rooms.lock().unwrap().extend_from_slice(rooms);
    }

    fn to_device_hint(&self, users: &[OwnedUserId]) {
        self.hinted.lock().unwrap().extend_from_slice(users);
    }
}

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }
}
