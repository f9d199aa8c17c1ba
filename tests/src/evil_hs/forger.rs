//! Keys that a homeserver could give out as somebody's.

use anyhow::{Context, Result};
use matrix_sdk::ruma::CanonicalJsonValue;
use serde_json::{Value, json};
use vodozemac::olm::Account;
use vodozemac::{Ed25519SecretKey, Ed25519Signature};

/// A device that its supposed owner has never seen. Its keys are whole and signed by itself.
pub struct ForgedDevice {
    user: String,
    id: String,
    account: Account,
}

/// A cross-signing identity that its supposed owner has never seen.
pub struct ForgedIdentity {
    user: String,
    master: Ed25519SecretKey,
    self_signing: Ed25519SecretKey,
}

impl ForgedDevice {
    /// A new device of somebody, under an id of one's choice.
    pub fn new(user: &str, id: &str) -> Self {
        Self { user: user.to_owned(), id: id.to_owned(), account: Account::new() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its keys, as in an answer to `/keys/query`.
    ///
    /// # Errors
    /// When they cannot be written as canonical JSON.
    pub fn keys(&self) -> Result<Value> {
        let id = &self.id;
        let keys = json!({
            "user_id": self.user,
            "device_id": id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{id}"): self.account.curve25519_key().to_base64(),
                format!("ed25519:{id}"): self.account.ed25519_key().to_base64(),
            },
        });
        sign(keys, &self.user, id, |message| self.account.sign(message))
    }

    /// A one-time key, as in an answer to `/keys/claim`.
    ///
    /// # Errors
    /// When it cannot be written as canonical JSON.
    pub fn one_time_key(&mut self) -> Result<Value> {
        self.account.generate_one_time_keys(1);
        let keys = self.account.one_time_keys();
        let (key_id, key) = keys.iter().next().context("no one-time key was made")?;
        let name = format!("signed_curve25519:{}", key_id.to_base64());
        let key = json!({ "key": key.to_base64() });
        let key = sign(key, &self.user, &self.id, |message| self.account.sign(message))?;
        self.account.mark_keys_as_published();
        Ok(json!({ name: key }))
    }
}

impl ForgedIdentity {
    /// A new identity of somebody.
    pub fn new(user: &str) -> Self {
        let (master, self_signing) = (Ed25519SecretKey::new(), Ed25519SecretKey::new());
        Self { user: user.to_owned(), master, self_signing }
    }

    /// Its master key, as in an answer to `/keys/query`.
    pub fn master_key(&self) -> Value {
        let public = self.master.public_key().to_base64();
        let keys = json!({ format!("ed25519:{public}"): public });
        json!({ "user_id": self.user, "usage": ["master"], "keys": keys })
    }

    /// Its self-signing key, as in an answer to `/keys/query`.
    ///
    /// # Errors
    /// When it cannot be written as canonical JSON.
    pub fn self_signing_key(&self) -> Result<Value> {
        let public = self.self_signing.public_key().to_base64();
        let keys = json!({ format!("ed25519:{public}"): public });
        let key = json!({ "user_id": self.user, "usage": ["self_signing"], "keys": keys });
        let master = self.master.public_key().to_base64();
        sign(key, &self.user, &master, |message| self.master.sign(message.as_bytes()))
    }

    /// The keys of a device, signed by this identity.
    ///
    /// # Errors
    /// When they cannot be written as canonical JSON.
    pub fn signed(&self, device: &ForgedDevice) -> Result<Value> {
        let public = self.self_signing.public_key().to_base64();
        sign(device.keys()?, &self.user, &public, |message| {
            self.self_signing.sign(message.as_bytes())
        })
    }
}

/// Adds a signature over the canonical JSON without the signatures that are there.
fn sign(
    mut value: Value,
    user: &str,
    key_id: &str,
    signer: impl Fn(&str) -> Ed25519Signature,
) -> Result<Value> {
    let fields = value.as_object_mut().context("only objects are signed")?;
    let mut signatures = fields.remove("signatures").unwrap_or_else(|| json!({ user: {} }));
    let canonical: CanonicalJsonValue = value.clone().try_into()?;
    let signature = signer(&canonical.to_string()).to_base64();
    if let Some(of_user) = signatures.get_mut(user).and_then(Value::as_object_mut) {
        of_user.insert(format!("ed25519:{key_id}"), json!(signature));
    }
    if let Some(fields) = value.as_object_mut() {
        fields.insert("signatures".to_owned(), signatures);
    }
    Ok(value)
}
