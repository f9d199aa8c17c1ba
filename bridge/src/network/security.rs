//! How one leg was protected, and whom it was protected for.

use serde::{Deserialize, Serialize};

/// How one message was protected on one leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegSecurity {
    /// Anybody who carried it could read it.
    Plaintext,
    /// Only the bridge and the devices of this identity could read it.
    Encrypted {
        /// What is known of the identity at the far end of the leg.
        identity: IdentityTrust,
    },
}

/// What is known of a cryptographic identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityTrust {
    /// Compared by people, and unchanged since.
    Verified,
    /// Trusted on first use, and unchanged since.
    Pinned,
    /// Not the one that was pinned.
    Changed,
    /// Nothing binds it to the person.
    Unknown,
}

/// A device of a contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteDevice {
    /// The device as its network numbers it.
    pub id: String,
    /// Fingerprint as the network's own clients print it.
    pub fingerprint: String,
    /// What the bridge knows of it.
    pub trust: IdentityTrust,
}
