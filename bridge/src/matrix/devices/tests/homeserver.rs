//! A homeserver as far as keys go, behind HTTP: what the devices of one bridge publish or send, those of another find.
//! It has one encrypted room.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::http::{StatusCode, Uri};
use ruma::UserId;
use serde_json::{Value, json};
use tokio::sync::watch;
use url::Url;

use crate::matrix::testing::MadeUp;

/// User and device.
type Key = (String, String);

/// Everything that it knows. Users that are served by others are known here all the same.
#[derive(Default)]
pub struct State {
    devices: BTreeMap<String, BTreeMap<String, Value>>,
    identities: BTreeMap<String, Value>,
    one_time_keys: BTreeMap<Key, Vec<(String, Value)>>,
    inboxes: BTreeMap<Key, Vec<Value>>,
    changed: BTreeMap<Key, BTreeSet<String>>,
    members: BTreeSet<String>,
    /// Whose devices are shown to others without the signatures of their owners.
    pub unsigned: BTreeSet<String>,
    /// Servers that do not answer this one.
    pub silent: BTreeSet<String>,
    /// What was asked for since this was last taken: `keys/query` for each user, and the last part of the path else.
    pub requests: Vec<String>,
    /// Who has synced last.
    pub synced: watch::Sender<String>,
    batch: u64,
}

/// A homeserver that answers until this is dropped.
pub struct Homeserver {
    pub url: Url,
    state: Arc<Mutex<State>>,
    _server: MadeUp,
}

impl Homeserver {
    pub async fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let answering = state.clone();
        let server = MadeUp::start(move |uri, body| {
            let body = serde_json::from_slice(body).unwrap_or(Value::Null);
            match answering.lock().unwrap().answer(uri, &body) {
                Some(answer) => (StatusCode::OK, answer),
                None => (StatusCode::NOT_FOUND, json!({ "errcode": "M_NOT_FOUND" })),
            }
        });
        let server = server.await;
        Self { url: server.url.clone(), state, _server: server }
    }

    /// Returns when a user syncs, from now on.
    pub async fn syncs(&self, user: &UserId) {
        let mut synced = self.state().synced.subscribe();
        synced.mark_unchanged();
        loop {
            synced.changed().await.unwrap();
            if *synced.borrow() == user.as_str() {
                return;
            }
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How often the keys of a user were asked for since this was last asked.
    pub fn take_queries(&self, of: &UserId) -> usize {
        let query = format!("keys/query {of}");
        let mut state = self.state();
        let before = state.requests.len();
        state.requests.retain(|request| *request != query);
        before - state.requests.len()
    }
}

impl State {
    pub fn join(&mut self, user: &UserId) {
        self.members.insert(user.to_string());
    }

    pub fn leave(&mut self, user: &UserId) {
        self.members.remove(user.as_str());
    }

    /// All keys that begin sessions with the devices of a user are gone.
    pub fn take_one_time_keys(&mut self, user: &UserId) {
        self.one_time_keys.retain(|(owner, _), _| owner != user.as_str());
    }

    /// Forgets a user's identity and devices, as when they start from nothing.
    pub fn reset(&mut self, user: &UserId) {
        self.devices.remove(user.as_str());
        self.identities.remove(user.as_str());
        self.announce(user.as_str());
    }

    /// A user's identity and devices, for [`Self::show`].
    pub fn keys_of(&self, user: &UserId) -> (Value, BTreeMap<String, Value>) {
        let user = user.as_str();
        (self.identities.get(user).unwrap().clone(), self.devices.get(user).unwrap().clone())
    }

    /// Shows an identity and devices as a user's.
    pub fn show(&mut self, user: &UserId, keys: (Value, BTreeMap<String, Value>)) {
        self.identities.insert(user.to_string(), keys.0);
        self.devices.insert(user.to_string(), keys.1);
        self.announce(user.as_str());
    }

    /// Everybody shares a room with everybody.
    fn announce(&mut self, changed: &str) {
        for (user, devices) in &self.devices {
            for device in devices.keys() {
                let key = (user.clone(), device.clone());
                self.changed.entry(key).or_default().insert(changed.to_owned());
            }
        }
    }

    fn answer(&mut self, uri: &Uri, body: &Value) -> Option<Value> {
        let query = Url::parse(&format!("http://homeserver{uri}")).unwrap();
        let query: BTreeMap<_, _> = query.query_pairs().into_owned().collect();
        let user = query.get("user_id").cloned().unwrap_or_default();
        let device = query
            .iter()
            .find_map(|(name, id)| name.ends_with("device_id").then(|| id.clone()))
            .unwrap_or_default();
        let path = uri.path().strip_prefix("/_matrix/client/v3/").unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        if path == "sync" {
            self.synced.send_replace(user.clone());
        } else if path != "keys/query" {
            self.requests.push((*parts.last().unwrap()).to_owned());
        }
        Some(match parts.as_slice() {
            ["register"] => {
                let name = body["username"].as_str().unwrap();
                json!({ "user_id": format!("@{name}:example.org") })
            }
            ["devices"] => json!({ "devices": [] }),
            ["devices", _] => json!({}),
            ["keys", "upload"] => self.upload_keys((user, device), body),
            ["keys", "device_signing", "upload"] => {
                self.identities.insert(user.clone(), body.clone());
                self.announce(&user);
                json!({})
            }
            ["keys", "query"] => self.query(&user, body),
            ["keys", "claim"] => self.claim(body),
            ["sendToDevice", event_type, _] => {
                self.deliver(&user, event_type, body);
                json!({})
            }
            ["sync"] => self.sync(&(user, device)),
            ["rooms", _, "state"] => {
                let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
                let joined = json!({ "membership": "join" });
                let members = self.members.iter().map(|it| ("m.room.member", it.as_str(), &joined));
                let state = members.chain([("m.room.encryption", "", &encryption)]);
                let event = |(kind, key, content): (&str, &str, &Value)| {
                    json!({
                        "type": kind, "state_key": key, "content": content, "event_id": "$state",
                        "sender": "@maker:example.org", "origin_server_ts": 1,
                    })
                };
                state.map(event).collect()
            }
            _ => return None,
        })
    }

    fn upload_keys(&mut self, key: Key, body: &Value) -> Value {
        if body["device_keys"].is_object() {
            let devices = self.devices.entry(key.0.clone()).or_default();
            devices.insert(key.1.clone(), body["device_keys"].clone());
            self.announce(&key.0);
        }
        let stored = self.one_time_keys.entry(key).or_default();
        let keys = body["one_time_keys"].as_object().into_iter().flatten();
        stored.extend(keys.map(|(id, key)| (id.clone(), key.clone())));
        json!({ "one_time_key_counts": { "signed_curve25519": stored.len() } })
    }

    fn query(&mut self, asker: &str, body: &Value) -> Value {
        let mut answer = json!({
            "device_keys": {}, "master_keys": {}, "self_signing_keys": {}, "user_signing_keys": {},
            "failures": {},
        });
        for user in body["device_keys"].as_object().unwrap().keys() {
            self.requests.push(format!("keys/query {user}"));
            let server = user.split_once(':').unwrap().1;
            if self.silent.contains(server) {
                answer["failures"][server] = json!({});
                continue;
            }
            let mut devices = self.devices.get(user).cloned().unwrap_or_default();
            if user != asker && self.unsigned.contains(user) {
                devices.iter_mut().for_each(|(id, keys)| hide_owner(keys, user, id));
            }
            answer["device_keys"][user] = json!(devices);
            let Some(identity) = self.identities.get(user) else { continue };
            answer["master_keys"][user] = identity["master_key"].clone();
            answer["self_signing_keys"][user] = identity["self_signing_key"].clone();
            if user == asker {
                answer["user_signing_keys"][user] = identity["user_signing_key"].clone();
            }
        }
        answer
    }

    fn claim(&mut self, body: &Value) -> Value {
        let mut answer = json!({ "one_time_keys": {} });
        for (user, devices) in body["one_time_keys"].as_object().unwrap() {
            for device in devices.as_object().unwrap().keys() {
                let stored = self.one_time_keys.get_mut(&(user.clone(), device.clone()));
                if let Some((id, key)) = stored.and_then(Vec::pop) {
                    answer["one_time_keys"][user][device] = json!({ id: key });
                }
            }
        }
        answer
    }

    fn deliver(&mut self, sender: &str, event_type: &str, body: &Value) {
        for (user, devices) in body["messages"].as_object().unwrap() {
            for (device, content) in devices.as_object().unwrap() {
                let event = json!({ "type": event_type, "sender": sender, "content": content });
                self.inboxes.entry((user.clone(), device.clone())).or_default().push(event);
            }
        }
    }

    fn sync(&mut self, key: &Key) -> Value {
        self.batch += 1;
        let changed = self.changed.remove(key).unwrap_or_default();
        json!({
            "next_batch": self.batch.to_string(),
            "to_device": { "events": self.inboxes.remove(key).unwrap_or_default() },
            "device_lists": { "changed": changed, "left": [] },
            "device_one_time_keys_count": {
                "signed_curve25519": self.one_time_keys.get(key).map_or(0, Vec::len),
            },
            "device_unused_fallback_key_types": ["signed_curve25519"],
        })
    }
}

/// Leaves only the signature that a device has made itself.
fn hide_owner(keys: &mut Value, user: &str, device: &str) {
    let signatures = keys["signatures"][user].as_object_mut().unwrap();
    signatures.retain(|id, _| id == &format!("ed25519:{device}"));
}
