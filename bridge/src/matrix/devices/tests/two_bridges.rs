//! Two bridges at one homeserver: to the ghost of one the users of the other are people.

use std::collections::BTreeMap;

use ruma::room_id;
use serde_json::json;

use super::{homeserver::Homeserver, *};
use crate::store::Pin;

pub fn alice() -> &'static UserId {
    user_id!("@mail_alice:example.org")
}

pub fn carol() -> &'static UserId {
    user_id!("@mail_carol:example.org")
}

pub fn room() -> &'static RoomId {
    room_id!("!portal:example.org")
}

/// What an encryption made of the last message.
pub struct Written {
    pub session: String,
    pub identity: IdentityTrust,
    content: Value,
}

impl Written {
    /// As the homeserver pushes it, under an id of its choice.
    pub fn event(&self, sender: &UserId, id: &str) -> String {
        json!({
            "type": "m.room.encrypted", "event_id": id, "room_id": room(), "sender": sender,
            "origin_server_ts": 1_700_000_000_000_u64, "content": self.content,
        })
        .to_string()
    }
}

/// The devices of a bridge, with its database.
pub struct Bridge {
    pub devices: Arc<Devices>,
    database: TestDatabase,
    network: &'static str,
}

impl Bridge {
    async fn start(homeserver: &Homeserver, network: &'static str) -> Self {
        Self::on(sqlite(), homeserver, network, DeviceLimits::default()).await
    }

    async fn on(
        database: TestDatabase,
        homeserver: &Homeserver,
        network: &'static str,
        limits: DeviceLimits,
    ) -> Self {
        // Nothing comes between that no test has asked for.
        let limits = DeviceLimits { waiting: 0, ..limits };
        let devices = devices_on(&database, &homeserver.url, network, limits).await;
        Self { devices, database, network }
    }

    /// The same bridge, after it was stopped and started.
    pub async fn restarted(self, homeserver: &Homeserver) -> Self {
        self.restarted_with(homeserver, DeviceLimits::default()).await
    }

    /// The same bridge, after it was stopped and started with other limits.
    pub async fn restarted_with(self, homeserver: &Homeserver, limits: DeviceLimits) -> Self {
        self.devices.stop.cancel();
        self.devices.tracker.close();
        self.devices.tracker.wait().await;
        let Self { devices, database, network } = self;
        drop(devices);
        Self::on(database, homeserver, network, limits).await
    }

    pub async fn write(&self, from: &UserId, to: &[&UserId]) -> Result<Written, EncryptError> {
        let write = |_| Map::from_iter([("body".to_owned(), json!("hello"))]);
        let sealed = self.devices.encrypt(from, room(), to, "m.room.message", write).await?;
        let content: Value = serde_json::from_str(&sealed.content.into_json()).unwrap();
        let session = content.get("session_id").and_then(Value::as_str).unwrap().to_owned();
        Ok(Written { session, identity: sealed.identity, content })
    }

    pub async fn read(&self, event: &str) -> Result<Decrypted, DecryptError> {
        self.devices.decrypt(&ghost(1), None, room(), event).await
    }

    /// What is known of the identity of a user.
    pub async fn pin(&self, user: &UserId) -> Pin {
        let mut tx = self.devices.shared.db.read().await.unwrap();
        tx.pins().find(user).await.unwrap().unwrap()
    }
}

pub struct World {
    pub homeserver: Homeserver,
    pub ghosts: Bridge,
    pub people: Bridge,
}

impl World {
    /// The ghost, Alice and Carol are in the room; Alice has a device.
    pub async fn start() -> Self {
        let homeserver = Homeserver::start().await;
        let ghosts = Bridge::start(&homeserver, "xmpp").await;
        let people = Bridge::start(&homeserver, "mail").await;
        for user in [&ghost(1), alice(), carol()] {
            homeserver.state().join(user);
        }
        ghosts.devices.ensure_published(&ghost(1)).await.unwrap();
        people.devices.ensure_published(alice()).await.unwrap();
        Self { homeserver, ghosts, people }
    }

    /// Alice loses all her devices and her identity, and begins anew.
    pub async fn reset_alice(&mut self) {
        self.homeserver.state().reset(alice());
        self.people = Bridge::start(&self.homeserver, "mail").await;
        self.people.devices.ensure_published(alice()).await.unwrap();
    }

    /// An event of Alice's, which the ghost can read.
    pub async fn alice_writes(&self, id: &str) -> String {
        self.people.write(alice(), &[&ghost(1)]).await.unwrap().event(alice(), id)
    }

    /// Alice's identity of today as the homeserver shows it.
    pub fn master_key(&self) -> String {
        let (identity, _) = self.homeserver.state().keys_of(alice());
        let keys: BTreeMap<String, String> =
            serde_json::from_value(identity["master_key"]["keys"].clone()).unwrap();
        keys.into_values().next().unwrap()
    }
}
