//! A homeserver as far as keys go, in memory: what one device publishes or sends, others find.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use e2ee::matrix::{Machine, Request, RequestBody, Response, RoomEvent};
use ruma::{
    DeviceId, EventId, MilliSecondsSinceUnixEpoch, OneTimeKeyAlgorithm, OwnedDeviceId,
    OwnedEventId, OwnedUserId, RoomId, UInt, UserId,
    api::client::{
        keys::{claim_keys, get_keys, upload_keys, upload_signatures, upload_signing_keys},
        message::send_message_event,
        sync::sync_events,
        to_device::send_event_to_device,
    },
    serde::JsonObject,
    to_device::DeviceIdOrAllDevices,
};
use serde_json::{Value, json};

type Key = (OwnedUserId, OwnedDeviceId);

#[derive(Default)]
struct State {
    devices: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Value>>,
    identities: BTreeMap<OwnedUserId, upload_signing_keys::v3::Request>,
    /// What the first has signed of the second's identity.
    signatures: BTreeMap<(OwnedUserId, OwnedUserId), Value>,
    one_time_keys: BTreeMap<Key, BTreeMap<String, Value>>,
    fallback_keys: BTreeMap<Key, BTreeMap<String, Value>>,
    inboxes: BTreeMap<Key, Vec<Value>>,
    changed: BTreeMap<Key, BTreeSet<OwnedUserId>>,
    timeline: Vec<RoomEvent>,
    batch: u64,
}

/// The homeserver.
#[derive(Default)]
pub struct Homeserver {
    state: Mutex<State>,
}

impl Homeserver {
    /// Sends all requests in order and gives the machine the answers.
    pub async fn carry(&self, machine: &Machine, requests: Vec<Request>) {
        for Request { id, body } in requests {
            let answer = self.answer(machine.user_id(), machine.device_id(), body);
            machine.receive_response(&id, &answer).await.unwrap();
        }
    }

    /// Carries what the machine wants to send by itself, until nothing is left.
    pub async fn settle(&self, machine: &Machine) {
        loop {
            let requests = machine.requests().await.unwrap();
            if requests.is_empty() {
                return;
            }
            self.carry(machine, requests).await;
        }
    }

    /// One sync and what follows from it.
    pub async fn sync(&self, machine: &Machine) -> e2ee::matrix::SyncOutcome {
        let answer = self.small_sync(machine.user_id(), machine.device_id());
        let outcome = machine.receive_sync(answer).await.unwrap();
        self.settle(machine).await;
        outcome
    }

    /// Answers one request of a device.
    pub fn answer(&self, user: &UserId, device: &DeviceId, body: RequestBody) -> Response {
        match body {
            RequestBody::SigningKeysUpload(request) => {
                let mut state = self.state.lock().unwrap();
                state.identities.insert(user.to_owned(), request);
                state.announce(user);
                Response::SigningKeysUpload(upload_signing_keys::v3::Response::new())
            }
            RequestBody::KeysUpload(request) => {
                Response::KeysUpload(self.upload_keys(user, device, request))
            }
            RequestBody::SignaturesUpload(request) => {
                self.keep_signatures(user, &request);
                Response::SignaturesUpload(upload_signatures::v3::Response::new())
            }
            RequestBody::KeysQuery(request) => Response::KeysQuery(self.query(user, &request)),
            RequestBody::KeysClaim(request) => Response::KeysClaim(self.claim(&request)),
            RequestBody::ToDevice(request) => {
                for (receiver, messages) in &request.messages {
                    for (target, content) in messages {
                        let content = serde_json::from_str(content.json().get()).unwrap();
                        let kind = request.event_type.to_string();
                        self.deliver(user, receiver, target, &kind, content);
                    }
                }
                Response::ToDevice(send_event_to_device::v3::Response::new())
            }
            RequestBody::RoomEvent { room, event_type, content } => {
                let event_id = self.say(user, &room, &event_type, content);
                Response::RoomEvent(send_message_event::v3::Response::new(event_id))
            }
        }
    }

    /// Puts an event into a room.
    pub fn say(
        &self,
        sender: &UserId,
        room: &RoomId,
        event_type: &str,
        content: JsonObject,
    ) -> OwnedEventId {
        let mut state = self.state.lock().unwrap();
        let event = RoomEvent {
            room: room.to_owned(),
            event_id: EventId::parse(format!("$event{}", state.timeline.len())).unwrap(),
            sender: sender.to_owned(),
            origin_server_ts: MilliSecondsSinceUnixEpoch::now(),
            event_type: event_type.to_owned(),
            content,
        };
        state.timeline.push(event.clone());
        event.event_id
    }

    /// All events of all rooms, in order.
    pub fn timeline(&self) -> Vec<RoomEvent> {
        self.state.lock().unwrap().timeline.clone()
    }

    fn deliver(
        &self,
        sender: &UserId,
        receiver: &UserId,
        target: &DeviceIdOrAllDevices,
        event_type: &str,
        content: Value,
    ) {
        let DeviceIdOrAllDevices::DeviceId(device) = target else { panic!("no broadcasts here") };
        self.put_into_inbox(
            receiver,
            device,
            json!({ "type": event_type, "sender": sender, "content": content }),
        );
    }

    /// Puts any event into an inbox, as only the homeserver can.
    pub fn put_into_inbox(&self, user: &UserId, device: &DeviceId, event: Value) {
        let key = (user.to_owned(), device.to_owned());
        self.state.lock().unwrap().inboxes.entry(key).or_default().push(event);
    }

    /// Forgets all keys that begin sessions with a device, as when others have taken them.
    pub fn take_all_keys(&self, user: &UserId, device: &DeviceId) {
        let mut state = self.state.lock().unwrap();
        let key = (user.to_owned(), device.to_owned());
        state.one_time_keys.remove(&key);
        state.fallback_keys.remove(&key);
    }

    /// Forgets a device, as when its owner logs it out.
    pub fn log_out(&self, user: &UserId, device: &DeviceId) {
        let mut state = self.state.lock().unwrap();
        state.devices.get_mut(user).unwrap().remove(device);
        state.announce(user);
    }

    /// Forgets a user's identity and devices, as when they start from nothing.
    pub fn reset(&self, user: &UserId) {
        let mut state = self.state.lock().unwrap();
        state.devices.remove(user);
        state.identities.remove(user);
        state.announce(user);
    }

    fn upload_keys(
        &self,
        user: &UserId,
        device: &DeviceId,
        request: upload_keys::v3::Request,
    ) -> upload_keys::v3::Response {
        let mut state = self.state.lock().unwrap();
        let key = (user.to_owned(), device.to_owned());
        if let Some(keys) = request.device_keys {
            let keys = serde_json::from_str(keys.json().get()).unwrap();
            state.devices.entry(user.to_owned()).or_default().insert(device.to_owned(), keys);
            state.announce(user);
        }
        let stored = state.one_time_keys.entry(key.clone()).or_default();
        for (id, one_time_key) in request.one_time_keys {
            let one_time_key = serde_json::from_str(one_time_key.json().get()).unwrap();
            let before = stored.insert(id.to_string(), one_time_key);
            assert!(before.is_none(), "a one-time key was published twice");
        }
        let count = UInt::try_from(stored.len()).unwrap();
        for (id, fallback_key) in request.fallback_keys {
            let fallback_key = serde_json::from_str(fallback_key.json().get()).unwrap();
            let only = BTreeMap::from([(id.to_string(), fallback_key)]);
            state.fallback_keys.insert(key.clone(), only);
        }
        let counts = BTreeMap::from([(OneTimeKeyAlgorithm::SignedCurve25519, count)]);
        upload_keys::v3::Response::new(counts)
    }

    /// Keeps what somebody signs: of others' identities, which only they see, and of their own devices.
    fn keep_signatures(&self, signer: &UserId, request: &upload_signatures::v3::Request) {
        let mut state = self.state.lock().unwrap();
        for (owner, keys) in request.signed_keys.iter() {
            for (id, key) in keys.iter() {
                let mut key: Value = serde_json::from_str(key.get()).unwrap();
                let signed = key["signatures"][signer.as_str()].take();
                if owner != signer {
                    state.signatures.insert((signer.to_owned(), owner.clone()), signed);
                } else if let Some(device) = state.device(owner, id.into()) {
                    let known = device["signatures"][signer.as_str()].as_object_mut().unwrap();
                    known.extend(signed.as_object().unwrap().clone());
                }
            }
            state.announce(owner);
        }
    }

    fn query(&self, asker: &UserId, request: &get_keys::v3::Request) -> get_keys::v3::Response {
        let state = self.state.lock().unwrap();
        let mut answer = json!({
            "device_keys": {}, "master_keys": {}, "self_signing_keys": {}, "user_signing_keys": {},
        });
        for user in request.device_keys.keys() {
            let devices = state.devices.get(user).cloned().unwrap_or_default();
            answer["device_keys"][user.as_str()] = serde_json::to_value(devices).unwrap();
            let Some(identity) = state.identities.get(user) else { continue };
            let mut master_key = json!(identity.master_key);
            if let Some(signed) = state.signatures.get(&(asker.to_owned(), user.clone())) {
                master_key["signatures"][asker.as_str()] = signed.clone();
            }
            answer["master_keys"][user.as_str()] = master_key;
            answer["self_signing_keys"][user.as_str()] = json!(identity.self_signing_key);
            if user == asker {
                answer["user_signing_keys"][user.as_str()] = json!(identity.user_signing_key);
            }
        }
        let mut response = get_keys::v3::Response::new();
        response.device_keys = serde_json::from_value(answer["device_keys"].take()).unwrap();
        response.master_keys = serde_json::from_value(answer["master_keys"].take()).unwrap();
        response.self_signing_keys =
            serde_json::from_value(answer["self_signing_keys"].take()).unwrap();
        response.user_signing_keys =
            serde_json::from_value(answer["user_signing_keys"].take()).unwrap();
        response
    }

    fn claim(&self, request: &claim_keys::v3::Request) -> claim_keys::v3::Response {
        let mut state = self.state.lock().unwrap();
        let mut answer = json!({});
        for (user, devices) in &request.one_time_keys {
            for device in devices.keys() {
                let key = (user.clone(), device.clone());
                let taken = state.one_time_keys.get_mut(&key).and_then(BTreeMap::pop_first);
                let fallback = state.fallback_keys.get(&key).and_then(BTreeMap::first_key_value);
                let taken = taken.or(fallback.map(|(id, key)| (id.clone(), key.clone())));
                if let Some((id, one_time_key)) = taken {
                    answer[user.as_str()][device.as_str()][&id] = one_time_key;
                }
            }
        }
        claim_keys::v3::Response::new(serde_json::from_value(answer).unwrap())
    }

    /// What one device finds when it syncs.
    pub fn small_sync(&self, user: &UserId, device: &DeviceId) -> sync_events::v3::Response {
        let mut state = self.state.lock().unwrap();
        let key = (user.to_owned(), device.to_owned());
        state.batch += 1;
        let mut response = sync_events::v3::Response::new(format!("s{}", state.batch));
        let inbox = state.inboxes.remove(&key).unwrap_or_default();
        response.to_device.events = serde_json::from_value(json!(inbox)).unwrap();
        response.device_lists.changed =
            state.changed.remove(&key).unwrap_or_default().into_iter().collect();
        let count = state.one_time_keys.get(&key).map_or(0, BTreeMap::len);
        if count > 0 {
            let count = UInt::try_from(count).unwrap();
            response
                .device_one_time_keys_count
                .insert(OneTimeKeyAlgorithm::SignedCurve25519, count);
        }
        response
    }
}

impl State {
    fn device(&mut self, user: &UserId, device: &DeviceId) -> Option<&mut Value> {
        self.devices.get_mut(user)?.get_mut(device)
    }

    /// Everybody shares a room with everybody.
    fn announce(&mut self, changed: &UserId) {
        for (user, devices) in &self.devices {
            for device in devices.keys() {
                let key = (user.clone(), device.clone());
                self.changed.entry(key).or_default().insert(changed.to_owned());
            }
        }
    }
}
