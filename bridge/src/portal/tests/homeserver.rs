//! A homeserver that takes what is said of the fate of messages, and nothing else; while it is away, not even that.
//! Messages it may refuse for good. Where a test wants it, it has users and rooms, and takes no messages into them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    body::Bytes,
    http::{StatusCode, Uri},
};
use ruma::UserId;
use serde_json::{Value, json};
use tokio::sync::watch;
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
    has_rooms: AtomicBool,
    refuses_rooms: AtomicBool,
    stalls_leaves: AtomicBool,
    /// Who has asked to leave a room, and waits.
    leaving: watch::Sender<usize>,
    /// Rooms that it was asked to make.
    made: AtomicUsize,
    /// Users of ours that it knows.
    registered: Mutex<BTreeSet<String>>,
    statuses: Mutex<Vec<Status>>,
}

/// What the author of a message was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) txn: String,
    pub(super) content: Value,
}

impl State {
    fn stalls_leaves(&self, uri: &Uri) -> bool {
        let stalls = self.stalls_leaves.load(Ordering::SeqCst) && uri.path().ends_with("/leave");
        self.leaving.send_modify(|leaving| *leaving += usize::from(stalls));
        stalls
    }

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
            None if self.has_rooms.load(Ordering::SeqCst) && !uri.path().contains("/send/") => {
                self.answer_about_rooms(uri, body)
            }
            None => (StatusCode::BAD_GATEWAY, json!({})),
        }
    }

    fn answer_about_rooms(&self, uri: &Uri, body: &Bytes) -> (StatusCode, Value) {
        let url = Url::parse(&format!("http://homeserver{uri}")).unwrap();
        let asker = url.query_pairs().find(|(name, _)| name == "user_id");
        let asker = asker.map(|(_, user)| user.into_owned());
        let mut registered = self.registered.lock().unwrap();
        if asker.is_some_and(|asker| !registered.contains(&asker)) {
            return (StatusCode::FORBIDDEN, json!({ "errcode": "M_FORBIDDEN" }));
        }
        if uri.path().ends_with("/register") {
            let body: Value = serde_json::from_slice(body).unwrap();
            let user = format!("@{}:example.org", body["username"].as_str().unwrap());
            return if registered.insert(user.clone()) {
                (StatusCode::OK, json!({ "user_id": user }))
            } else {
                (StatusCode::BAD_REQUEST, json!({ "errcode": "M_USER_IN_USE" }))
            };
        }
        drop(registered);
        match self.find(uri, body) {
            Some(answer) => (StatusCode::OK, answer),
            None => (StatusCode::NOT_FOUND, json!({ "errcode": "M_NOT_FOUND" })),
        }
    }

    /// Who has joined a room: Alice, and all of ours.
    fn joined(&self) -> Vec<String> {
        let registered = self.registered.lock().unwrap().clone();
        registered.into_iter().chain(["@alice:example.org".to_owned()]).collect()
    }

    fn find(&self, uri: &Uri, body: &Bytes) -> Option<Value> {
        let path = uri.path().strip_prefix("/_matrix/client/v3/")?;
        let parts: Vec<&str> = path.split('/').collect();
        // Nobody waits here for what may come.
        let waits = !uri.query().is_some_and(|query| query.contains("timeout=0"));
        Some(match parts.as_slice() {
            ["devices"] => json!({ "devices": [] }),
            ["keys", "upload"] => json!({ "one_time_key_counts": { "signed_curve25519": 50 } }),
            // Nobody has any devices.
            ["keys", "query"] => {
                let query: Value = serde_json::from_slice(body).unwrap();
                let users = query["device_keys"].as_object().unwrap().keys();
                let none = users.map(|user| (user.clone(), json!({})));
                let none: serde_json::Map<String, Value> = none.collect();
                json!({ "device_keys": none })
            }
            ["devices", _] | ["keys", _, "upload"] | ["profile", ..] => json!({}),
            ["sync"] if !waits => json!({
                "next_batch": "1", "device_one_time_keys_count": { "signed_curve25519": 50 },
                "device_unused_fallback_key_types": ["signed_curve25519"],
            }),
            ["createRoom"] => {
                let number = self.made.fetch_add(1, Ordering::SeqCst);
                if self.refuses_rooms.load(Ordering::SeqCst) {
                    return None;
                }
                json!({ "room_id": format!("!made{number}:example.org") })
            }
            ["rooms", _, "join"] => json!({ "room_id": "!room:example.org" }),
            ["rooms", _, "invite" | "leave"] => json!({}),
            ["rooms", _, "joined_members"] => {
                let joined = self.joined().into_iter().map(|user| (user, json!({})));
                let joined: serde_json::Map<String, Value> = joined.collect();
                json!({ "joined": joined })
            }
            ["rooms", _, "members" | "messages"] => json!({ "start": "1", "chunk": [] }),
            ["rooms", _, "state", "m.room.power_levels" | "m.room.member", ..] => {
                json!({ "users": {}, "event_id": "$state" })
            }
            // An encrypted one, as it is made.
            ["rooms", _, "state"] => {
                let event = |kind: &str, key: &str, content: Value| {
                    json!({
                        "type": kind, "state_key": key, "content": content, "event_id": "$state",
                        "sender": "@maker:example.org", "origin_server_ts": 1,
                    })
                };
                let is_joined = json!({ "membership": "join" });
                let joined = self.joined();
                let members = joined.iter().map(|it| event("m.room.member", it, is_joined.clone()));
                let algorithm = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
                members.chain([event("m.room.encryption", "", algorithm)]).collect()
            }
            _ => return None,
        })
    }
}

impl Homeserver {
    pub(super) async fn start() -> Self {
        let state = Arc::new(State::default());
        let (answering, stalling) = (state.clone(), state.clone());
        let server = MadeUp::start_stalling(
            move |uri, body| answering.answer(uri, body),
            move |uri| stalling.stalls_leaves(uri),
        );
        let server = server.await;
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

    /// It has the bridge's bot, and rooms from now on.
    pub(super) fn has_rooms(&self) {
        let bot = "@gephyra:example.org".to_owned();
        self.state.registered.lock().unwrap().insert(bot);
        self.state.has_rooms.store(true, Ordering::SeqCst);
    }

    /// It was restored from a backup of before this user was made.
    pub(super) fn forgets(&self, user: &UserId) {
        self.state.registered.lock().unwrap().remove(user.as_str());
    }

    pub(super) fn knows(&self, user: &UserId) -> bool {
        self.state.registered.lock().unwrap().contains(user.as_str())
    }

    /// It asks another one about every leave, which does not answer.
    pub(super) fn stalls_leaves(&self) {
        self.state.stalls_leaves.store(true, Ordering::SeqCst);
    }

    /// Returns when so many wait to leave.
    pub(super) async fn lets_wait(&self, many: usize) {
        let mut leaving = self.state.leaving.subscribe();
        leaving.wait_for(|leaving| *leaving >= many).await.unwrap();
    }

    /// It makes no more.
    pub(super) fn refuses_rooms(&self) {
        self.state.refuses_rooms.store(true, Ordering::SeqCst);
    }

    /// How many rooms it was asked to make.
    pub(super) fn made(&self) -> usize {
        self.state.made.load(Ordering::SeqCst)
    }

    pub(super) fn returns(&self) {
        self.state.is_away.store(false, Ordering::SeqCst);
    }

    /// All that it has taken, what was said again with the id that it had too.
    pub(super) fn statuses(&self) -> Vec<Status> {
        self.state.statuses.lock().unwrap().clone()
    }
}
