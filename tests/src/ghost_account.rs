//! The account of a ghost on the homeserver, used past the bridge with the bridge's own token: what the homeserver holds
//! of it, and what somebody else could do to it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bridge::Bridge;
use crate::synapse::Synapse;

const ALGORITHM: &str = "signed_curve25519";

/// A ghost with one device.
#[derive(Debug)]
pub struct GhostAccount {
    http: reqwest::Client,
    base: String,
    token: String,
    user: String,
    device: String,
}

/// A key that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedKey {
    /// Its id, with the algorithm.
    pub id: String,
    /// Its public half.
    pub key: String,
    /// Whether it is the fallback key.
    pub is_fallback: bool,
}

impl GhostAccount {
    /// The account of this ghost.
    ///
    /// # Errors
    /// When the ghost has no device.
    pub(crate) async fn open(server: &Synapse, bridge: &Bridge, user: &str) -> Result<Self> {
        let mut account = Self::without_device(server, bridge, user)?;
        let known =
            account.ask(account.http.get(account.url("devices")).query(&[("user_id", user)]));
        let known = known.await?;
        let device = known.pointer("/devices/0/device_id").and_then(Value::as_str);
        device.context("the ghost has no device")?.clone_into(&mut account.device);
        Ok(account)
    }

    /// Makes a ghost that the bridge does not know, with a device: what is left of a database that is gone.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub(crate) async fn make(server: &Synapse, bridge: &Bridge, user: &str) -> Result<Self> {
        let mut account = Self::without_device(server, bridge, user)?;
        "LEFT".clone_into(&mut account.device);
        let localpart = user.split_once(':').map_or(user, |(name, _)| name).trim_start_matches('@');
        let register = json!({
            "type": "m.login.application_service",
            "username": localpart,
            "inhibit_login": true,
        });
        account.ask(account.http.post(account.url("register")).json(&register)).await?;
        let device = account.http.put(account.url(&format!("devices/{}", account.device)));
        account.ask(device.query(&[("user_id", user)]).json(&json!({}))).await?;
        Ok(account)
    }

    fn without_device(server: &Synapse, bridge: &Bridge, user: &str) -> Result<Self> {
        Ok(Self {
            http: reqwest::Client::builder().build()?,
            base: format!("{}/_matrix/client/v3", server.url()),
            token: bridge.as_token()?,
            user: user.to_owned(),
            device: String::new(),
        })
    }

    /// It leaves a room.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn leave(&self, room: &str) -> Result<()> {
        let request = self.http.post(self.url(&format!("rooms/{room}/leave")));
        self.ask(request.query(&[("user_id", &self.user)]).json(&json!({}))).await.map(drop)
    }

    /// Its device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Takes a one-time key of it, or its fallback key when there is no other.
    ///
    /// # Errors
    /// When there is neither.
    pub async fn claim(&self) -> Result<ClaimedKey> {
        let (user, device) = (&self.user, &self.device);
        let claim = json!({ "one_time_keys": { user: { device: ALGORITHM } } });
        let answer = self.ask(self.as_device(self.http.post(self.url("keys/claim"))).json(&claim));
        let answer = answer.await?;
        let keys = answer.get("one_time_keys").and_then(|users| users.get(user)?.get(device));
        let (id, key) = keys.and_then(|keys| keys.as_object()?.iter().next()).context("no key")?;
        Ok(ClaimedKey {
            id: id.clone(),
            key: key.get("key").and_then(Value::as_str).context("a key")?.to_owned(),
            is_fallback: key.get("fallback") == Some(&json!(true)),
        })
    }

    /// Takes all its one-time keys; gives how many there were.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn claim_all(&self) -> Result<usize> {
        let held = self.one_time_keys().await?;
        for _ in 0..held {
            ensure!(!self.claim().await?.is_fallback, "there were fewer than the homeserver said");
        }
        Ok(held)
    }

    /// How many one-time keys of it the homeserver holds, as the answer to an empty upload says.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn one_time_keys(&self) -> Result<usize> {
        let upload = self.as_device(self.http.post(self.url("keys/upload")));
        let answer = self.ask(upload.json(&json!({}))).await?;
        let count = answer.get("one_time_key_counts").and_then(|all| all.get(ALGORITHM));
        Ok(usize::try_from(count.and_then(Value::as_u64).unwrap_or(0))?)
    }

    /// Publishes one-time keys that nobody has the private half of, under these numbers.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn publish_others(&self, numbers: std::ops::Range<u64>) -> Result<()> {
        let key = |number: u64| {
            let id = vodozemac::base64_encode(number.to_be_bytes());
            let key = vodozemac::Curve25519PublicKey::from(&vodozemac::Curve25519SecretKey::new());
            (format!("{ALGORITHM}:{id}"), json!({ "key": key.to_base64(), "signatures": {} }))
        };
        let keys: serde_json::Map<_, _> = numbers.map(key).collect();
        let upload = self.as_device(self.http.post(self.url("keys/upload")));
        self.ask(upload.json(&json!({ "one_time_keys": keys }))).await.map(drop)
    }

    /// Ends its device, as an administrator could.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn end_device(&self) -> Result<()> {
        let end = self.http.post(self.url("delete_devices")).query(&[("user_id", &self.user)]);
        self.ask(end.json(&json!({ "devices": [self.device] }))).await.map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn as_device(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        request.query(&[("user_id", &self.user), ("device_id", &self.device)])
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let answer = request.bearer_auth(&self.token).send().await?;
        let (status, body) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "the homeserver answers {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }
}
