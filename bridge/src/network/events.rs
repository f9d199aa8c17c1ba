//! What crosses the seam, in both directions.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use super::{LegSecurity, RemoteMessageId, RemoteUserId};
use crate::store::InboxId;

/// One conversation: a Matrix user and a contact. The bridge itself may stand in for the user.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChatKey {
    /// Who talks on the Matrix side.
    pub local: Author,
    /// Who talks on the other side.
    pub contact: RemoteUserId,
}

/// Shows no id: it would name people in a log line.
impl std::fmt::Debug for ChatKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChatKey(…)")
    }
}

/// In whose name the Matrix side speaks.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// A Matrix user.
    Person(OwnedUserId),
    /// The bridge itself, from its own address, never in a person's name.
    Bridge,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MessageContent {
    /// Text.
    Text {
        /// UTF-8, no markup.
        body: String,
    },
    /// An action (`/me`).
    Emote {
        /// The action without the author's name.
        body: String,
    },
}

/// A message on its way from Matrix to the other network.
#[derive(Clone)]
pub struct OutgoingMessage {
    /// The inbox row that is done with this send; absent for what the bridge says by itself.
    pub inbox: Option<InboxId>,
    /// Who says it to whom.
    pub chat: ChatKey,
    /// The id it gets on the other network: unguessable, the same at every retry.
    pub id: RemoteMessageId,
    /// What it says.
    pub content: MessageContent,
    /// How it came to the bridge.
    pub security: LegSecurity,
    /// What to do when the contact has no encryption.
    pub plaintext: PlaintextPolicy,
}

/// Whether a chat may be unencrypted on the network's leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaintextPolicy {
    /// Nothing leaves in the clear.
    Refuse,
    /// The person has allowed it for this chat. Encryption is still used where it exists. In a
    /// chat of [`Author::Bridge`] it says that the words are nobody's conversation: there nobody
    /// decides about devices, so what would be held goes in the clear.
    Allow,
}

/// A message is committed to the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// How it will leave.
    pub security: LegSecurity,
}

/// Why a message did not get into the outbox. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It waits for a person's decision.
    #[error("the message waits: {0}")]
    Held(Hold),
    /// This network cannot carry it.
    #[error("this network cannot carry {0}")]
    Unsupported(&'static str),
    /// It will never go; the reason is for its author.
    #[error("the message cannot be delivered: {0}")]
    Rejected(String),
    /// Try again later.
    #[error("the network or the store did not answer")]
    Temporary,
}

/// What a held message waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "hold", rename_all = "snake_case")]
pub enum Hold {
    /// The contact has no encryption, and plaintext is not allowed in this chat.
    #[error("the contact's client offers no encryption")]
    NoEncryption,
    /// Known devices of the contact present other identities than the pinned ones.
    #[error("the contact's encryption identity has changed")]
    IdentityChanged {
        /// The devices' fingerprints as the contact's client prints them.
        fingerprints: Vec<String>,
    },
    /// New devices of a contact who was verified before wait for approval, and for what there is to
    /// be done there is no other.
    #[error("new devices of the contact wait for approval")]
    NewDevices {
        /// The devices' fingerprints as the contact's client prints them.
        fingerprints: Vec<String>,
    },
    /// The contact has devices, but the person has distrusted them all.
    #[error("none of the contact's devices is trusted")]
    NoTrustedDevice,
    /// The contact has distrusted the identity of the Matrix user: only they can end that.
    #[error("the contact has distrusted the person's identity")]
    DistrustedByContact,
    /// The contact has devices, but not one could be encrypted to.
    #[error("none of the contact's devices could be encrypted to")]
    NoUsableDevice,
}

/// Something that came from the other network, decrypted. It is stored sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteEvent {
    /// The conversation it belongs to.
    pub chat: ChatKey,
    /// When its network says it was sent, in milliseconds since 1970; `None` when it was live.
    pub sent_at_ms: Option<u64>,
    /// What happened.
    pub kind: RemoteEventKind,
}

/// What happened on the other network.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RemoteEventKind {
    /// The contact says something.
    Message {
        /// The id the contact's client gave it, if any.
        id: Option<RemoteMessageId>,
        /// What it says.
        content: MessageContent,
        /// How it came.
        security: LegSecurity,
    },
    /// The contact's client has received a message of ours.
    Delivered {
        /// The id it was sent under.
        id: RemoteMessageId,
    },
    /// The network has accepted a message of ours.
    Accepted {
        /// The id it was sent under.
        id: RemoteMessageId,
        /// How it left.
        security: LegSecurity,
    },
    /// The network has refused a message of ours.
    Failed {
        /// The id it was sent under.
        id: RemoteMessageId,
        /// Why, for its author. Never the message's text.
        reason: String,
    },
    /// Something came that could not be decrypted; its author has been told by the network
    /// where it knows a way.
    Undecryptable {
        /// Why, for the receiver.
        reason: String,
    },
    /// A device has given up an identity that nobody has approved: what was said of it has ended.
    GivenUp {
        /// The identity's fingerprint.
        fingerprint: String,
    },
    /// What the contact sends, or what was to be sent to them, waits for a decision.
    Held(Hold),
    /// What the contact has sent has waited too long for a decision about its device, and is
    /// given up.
    Expired,
    /// The homeserver has refused a message of the contact for good, of which the network has told its author that it
    /// has come. The bridge's own word, in the order of what is told.
    NotTaken,
    /// A device that the person has distrusted has sent something. It is not delivered.
    Refused {
        /// The device's fingerprint as the contact's client prints it.
        fingerprint: String,
    },
}
