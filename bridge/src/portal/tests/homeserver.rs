//! A homeserver that takes what is said of the fate of messages, and nothing else; while it is away, not even that.
//! Messages it may refuse for good.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    body::Bytes,
    http::{StatusCode, Uri},
};
use serde_json::{Value, json};
use url::Url;

use crate::matrix::testing::MadeUp;

const STATUS: &str = "/send/com.beeper.message_send_status/";
const MESSAGE: &str = "/send/m.room.message/";

/// A homeserver that runs until this is dropped.
pub(super) struct Homeserver {
    server: MadeUp,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_away: AtomicBool,
    refuses_messages: AtomicBool,
    statuses: Mutex<Vec<Status>>,
}

/// What the author of a message was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) txn: String,
    pub(super) content: Value,
}

impl State {
    fn answer(&self, uri: &Uri, body: &Bytes) -> (StatusCode, Value) {
        let txn = uri.path().split_once(STATUS).map(|(_, txn)| txn.to_owned());
        match txn.filter(|_| !self.is_away.load(Ordering::SeqCst)) {
            Some(txn) => {
                let content = serde_json::from_slice(body).unwrap();
                self.statuses.lock().unwrap().push(Status { txn, content });
                (StatusCode::OK, json!({ "event_id": "$status" }))
            }
            None if uri.path().contains(MESSAGE)
                && self.refuses_messages.load(Ordering::SeqCst) =>
            {
                (StatusCode::PAYLOAD_TOO_LARGE, json!({ "errcode": "M_TOO_LARGE" }))
            }
            None => (StatusCode::BAD_GATEWAY, json!({})),
        }
    }
}

impl Homeserver {
    pub(super) async fn start() -> Self {
        let state = Arc::new(State::default());
        let answering = state.clone();
        let server = MadeUp::start(move |uri, body| answering.answer(uri, body)).await;
        Self { server, state }
    }

    pub(super) fn url(&self) -> &Url {
        &self.server.url
    }

    pub(super) fn goes(&self) {
        self.state.is_away.store(true, Ordering::SeqCst);
    }

    pub(super) fn refuses_messages(&self) {
        self.state.refuses_messages.store(true, Ordering::SeqCst);
    }

    pub(super) fn returns(&self) {
        self.state.is_away.store(false, Ordering::SeqCst);
    }

    /// All that it has taken, what was said again with the id that it had too.
    pub(super) fn statuses(&self) -> Vec<Status> {
        self.state.statuses.lock().unwrap().clone()
    }
}
