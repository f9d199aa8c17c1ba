//! The seam between the Matrix side of the bridge and any other network.
//!
//! Owns the types both sides speak. Knows no network and no Matrix room: what a network cannot
//! do is a value in [`Capabilities`] and a typed [`SendError::Unsupported`], and remote ids are
//! opaque newtypes.

mod capabilities;
mod events;
mod ids;
mod inquiries;
mod security;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use self::{
    capabilities::Capabilities,
    events::{
        Author, ChatKey, Hold, MessageContent, OutgoingMessage, PlaintextPolicy, RemoteEvent,
        RemoteEventKind, SendError, Sent,
    },
    ids::{RemoteMessageId, RemoteUserId},
    inquiries::{Answer, Inquiries, Inquiry, NoAnswer},
    security::{
        Decider, DeviceDecision, DeviceTrust, Held, IdentityTrust, LegSecurity, OwnDevice,
        RemoteDevice, Undecided, VerifyUriError,
    },
};

/// A network, one per process. Does no I/O.
pub trait Network: Send + Sync {
    /// Short lower-case name, used in ghost ids and bot commands (`xmpp`).
    fn name(&self) -> &'static str;
    /// What this network can carry.
    fn capabilities(&self) -> Capabilities;
    /// Parses what a person typed or what a ghost id holds into the canonical id of a contact.
    ///
    /// # Errors
    /// [`InvalidContact`] tells what was wrong with it.
    fn parse_contact(&self, text: &str) -> Result<RemoteUserId, InvalidContact>;
}

/// One login on a network. The XMPP component is the login that serves everyone.
#[async_trait]
pub trait NetworkClient: Send + Sync {
    /// Keeps the connection up until `stop` is cancelled; returns when nothing is under way.
    async fn run(&self, stop: CancellationToken);

    /// Encrypts a message and puts it into the outbox.
    ///
    /// The ratchet changes, the exact bytes that will leave, that the chat was encrypted
    /// ([`Portals::encryption_was_used`](crate::store::Portals::encryption_was_used)) and "inbox
    /// row [`OutgoingMessage::inbox`] done" are one commit. On an error nothing has changed and the
    /// row is still open. Where the contact has distrusted the author
    /// ([`ContactDecisions`](crate::store::ContactDecisions)) that commit is not made:
    /// [`Hold::DistrustedByContact`].
    ///
    /// # Errors
    /// See [`SendError`].
    async fn send(&self, message: OutgoingMessage) -> Result<Sent, SendError>;

    /// Carries out a decision about the contact's devices in this chat whose fingerprints are
    /// among these, exactly as [`RemoteDevice::fingerprint`] has them, and retries what was held.
    /// Returns about how many devices this has decided something.
    ///
    /// # Errors
    /// [`SendError::Temporary`] when the store or the network failed.
    async fn decide(
        &self,
        chat: &ChatKey,
        fingerprints: &[String],
        decision: DeviceDecision,
        decided_by: &Decider,
    ) -> Result<usize, SendError>;

    /// What waits in this chat for a decision about the contact's devices. Asks nobody.
    ///
    /// # Errors
    /// [`SendError::Temporary`] when the store failed.
    async fn undecided(&self, chat: &ChatKey) -> Result<Undecided, SendError>;

    /// Whether a device of the contact was ever verified in this chat, whatever is known of that one by now: a new
    /// device waits for a decision then. Asks nobody.
    ///
    /// # Errors
    /// [`SendError::Temporary`] when the store failed.
    async fn new_devices_wait(&self, chat: &ChatKey) -> Result<bool, SendError>;

    /// A URI with a user's address on this network and the fingerprint of the bridge's device
    /// there, as clients scan it to verify that device.
    ///
    /// # Errors
    /// [`SendError::Temporary`] when the store failed; [`SendError::Rejected`] for a user who can
    /// have no address there.
    async fn own_uri(&self, author: &Author) -> Result<String, SendError>;

    /// The bridge's device there that speaks for a user, as the other side's clients show it.
    ///
    /// # Errors
    /// As [`Self::own_uri`].
    async fn own_device(&self, author: &Author) -> Result<OwnDevice, SendError>;

    /// The fingerprints that a URI of the contact's client names, if the contact's devices present
    /// every one of them. It decides nothing.
    ///
    /// # Errors
    /// See [`VerifyUriError`].
    async fn match_uri(&self, chat: &ChatKey, uri: &str) -> Result<Vec<String>, VerifyUriError>;

    /// The name the contact gives themselves, if the network tells.
    async fn contact_name(&self, contact: &RemoteUserId) -> Option<String>;

    /// Tells the network how a Matrix user wants to be called.
    async fn publish_name(&self, user: &ruma::UserId, name: &str);

    /// The devices of a contact that this chat knows, and those they have announced.
    ///
    /// # Errors
    /// [`SendError::Temporary`] when the contact's server did not answer.
    async fn devices(&self, chat: &ChatKey) -> Result<Vec<RemoteDevice>, SendError>;
}

/// Where a network reports that it has committed something for the portal.
///
/// The event itself is in the store: this is only a doorbell, so it may be rung late or twice.
pub trait RemoteEvents: Send + Sync {
    /// A [`RemoteEvent`] of this chat was committed to the remote inbox.
    fn committed(&self, chat: &ChatKey);
    /// Only this was committed, that the server has messages of this chat ([`RemoteEventKind::Accepted`]). As a rule
    /// the receipt of the contact's client follows at once.
    fn accepted(&self, chat: &ChatKey);
    /// Something that held messages back in this chat may have changed.
    fn unblocked(&self, chat: &ChatKey);
}

/// A contact's id that this network cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid contact address: {reason}")]
pub struct InvalidContact {
    /// What was wrong, without the address itself.
    pub reason: &'static str,
}
