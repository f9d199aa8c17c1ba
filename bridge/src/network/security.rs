//! How one leg was protected, and whom it was protected for.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::RemoteUserId;

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

impl IdentityTrust {
    /// What is known of two identities together: no more than of the one that less is known of.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self.strength() < other.strength() { self } else { other }
    }

    fn strength(self) -> u8 {
        match self {
            Self::Verified => 3,
            Self::Pinned => 2,
            Self::Changed => 1,
            Self::Unknown => 0,
        }
    }
}

impl LegSecurity {
    /// Whether less protected it than `other`.
    pub fn is_weaker_than(self, other: Self) -> bool {
        self.strength() < other.strength()
    }

    fn strength(self) -> u8 {
        match self {
            Self::Plaintext => 0,
            Self::Encrypted { identity } => 1 + identity.strength(),
        }
    }
}

/// What a device of a contact is to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceTrust {
    /// Its identity was compared by people, and is unchanged since.
    Verified,
    /// Trusted on first use or by approval, and unchanged since.
    Pinned,
    /// It is new, the contact was verified before, and nobody has approved it: it gets nothing, and
    /// what it sends is held.
    Waiting,
    /// It presents another identity than the pinned one: the same.
    Changed,
    /// Somebody has decided against it: it gets nothing, and what it sends is refused.
    Distrusted,
    /// It is listed, but was never written to nor heard.
    Unknown,
}

/// A device of a contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteDevice {
    /// The device as its network numbers it.
    pub id: String,
    /// Fingerprint of the identity that it presents, as the network's own clients print it.
    pub fingerprint: String,
    /// What it is.
    pub trust: DeviceTrust,
    /// Since when, in milliseconds since 1970, if that is known.
    pub since_ms: Option<i64>,
}

/// A device of the bridge on the other network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnDevice {
    /// The device as its network numbers it.
    pub id: String,
    /// Fingerprint of its identity, as the network's own clients print it.
    pub fingerprint: String,
}

/// Messages that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub messages: u64,
    /// Since when the oldest waits, in milliseconds since 1970.
    pub since_ms: Option<i64>,
}

/// What waits for a decision about a contact's devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    /// Messages of the contact.
    pub held: Held,
    /// The devices that are new or have changed.
    pub devices: Vec<RemoteDevice>,
}

/// What is decided about a device of a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceDecision {
    /// A new device or a changed identity counts like one of first use.
    Approve,
    /// People have compared its identity.
    Verify,
    /// It gets nothing any more, and nothing of it is delivered.
    Distrust,
}

/// Why a URI has verified nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyUriError {
    /// It is none, or no fingerprint is in it.
    #[error("the URI was not understood: {0}")]
    NotUnderstood(&'static str),
    /// It is somebody else's.
    #[error("the URI is of another contact")]
    OtherContact,
    /// Devices of the contact do not present the keys that it names.
    #[error("keys do not match")]
    Mismatch {
        /// These devices, as their network numbers them.
        devices: Vec<String>,
    },
    /// Try again later.
    #[error("the network or the store did not answer")]
    Temporary,
}

/// Who has decided something about a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Decider {
    /// Nobody: it was seen, or trusted on first use.
    Nobody,
    /// A Matrix user.
    Person(OwnedUserId),
    /// A contact, from their side.
    Contact(RemoteUserId),
}
