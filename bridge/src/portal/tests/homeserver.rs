//! A homeserver that takes what is said of the fate of messages, and nothing else; while it is away, not even that.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json, Router,
    body::Bytes,
    http::{StatusCode, Uri},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use url::Url;

const STATUS: &str = "/send/com.beeper.message_send_status/";

/// A homeserver that runs until this is dropped.
pub(super) struct Homeserver {
    pub(super) url: Url,
    state: Arc<State>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct State {
    is_away: AtomicBool,
    statuses: Mutex<Vec<Status>>,
}

/// What the author of a message was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) txn: String,
    pub(super) content: Value,
}

impl State {
    fn answer(&self, uri: &Uri, body: &Bytes) -> (StatusCode, Json<Value>) {
        let txn = uri.path().split_once(STATUS).map(|(_, txn)| txn.to_owned());
        match txn.filter(|_| !self.is_away.load(Ordering::SeqCst)) {
            Some(txn) => {
                let content = serde_json::from_slice(body).unwrap();
                self.statuses.lock().unwrap().push(Status { txn, content });
                (StatusCode::OK, Json(json!({ "event_id": "$status" })))
            }
            None => (StatusCode::BAD_GATEWAY, Json(json!({}))),
        }
    }
}

impl Homeserver {
    pub(super) async fn start() -> Self {
        let state = Arc::new(State::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let answering = state.clone();
        let answer = async move |uri: Uri, body: Bytes| answering.answer(&uri, &body);
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, Router::new().fallback(answer)).await.unwrap();
        });
        Self { url, state, _server: server }
    }

    pub(super) fn goes(&self) {
        self.state.is_away.store(true, Ordering::SeqCst);
    }

    pub(super) fn returns(&self) {
        self.state.is_away.store(false, Ordering::SeqCst);
    }

    /// All that it has taken, what was said again with the id that it had too.
    pub(super) fn statuses(&self) -> Vec<Status> {
        self.state.statuses.lock().unwrap().clone()
    }
}
