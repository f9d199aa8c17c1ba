//! The hub: which room is which conversation, what may cross, and what people are told.
//!
//! Owns the portals. Knows no XMPP and no Olm: the other network is behind
//! [`NetworkClient`](crate::network::NetworkClient), encryption behind
//! [`Devices`](crate::matrix::Devices).
//!
//! | module | what |
//! |---|---|
//! | [`from_matrix`], [`read`], [`key_waits`] | the Matrix inbox, one room at a time |
//! | [`from_remote`], [`undelivered`] | the remote inbox, one chat at a time |
//! | [`membership`], [`new_ghosts`] | invitations to ghosts and to the bot, and people who leave |
//! | [`create_room`] | rooms that the bridge makes |
//! | [`say`], [`notices`], [`leg_changes`], [`status`], [`qr`] | what the bridge itself says |
//! | [`commands`], [`trust`] | what people decide |
//! | [`downgrade`], [`expiry`] | what is marked, refused or given up |
//! | [`contact_commands`], [`contact_inquiries`], [`contact_trust`] | what contacts ask the bridge and decide |
//! | [`verification`], [`begin_verification`], [`contact_compares`], [`standing`] | emoji compared across the bridge |
//! | [`own_identity`] | what is told when a person's identity has changed |
//! | [`security`] | what is known of both legs of a chat |
//! | [`content`], [`legs`], [`room_state`] | pure conversions |

mod begin_verification;
mod commands;
mod contact_commands;
mod contact_compares;
mod contact_inquiries;
mod contact_trust;
pub mod content;
mod create_room;
mod doorbells;
mod downgrade;
mod expiry;
mod from_matrix;
mod from_remote;
mod key_waits;
mod leg_changes;
mod legs;
mod locks;
mod membership;
mod new_ghosts;
mod notices;
mod own_identity;
mod qr;
mod read;
mod room_state;
mod say;
mod security;
mod standing;
mod status;
#[cfg(test)]
mod tests;
mod trust;
mod undelivered;
mod verification;

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::notices::contact_trust::for_person as decision_for_person;
pub use self::{
    commands::{ApproveError, OpenChatError},
    doorbells::Doorbells,
    qr::QrError,
    security::{ChatSecurity, IdentityStanding, MatrixKeys},
    trust::{DecideError, Naming, PendingChat, UnknownFingerprint, find_named},
};
use self::{key_waits::KeyWaits, locks::Locks, new_ghosts::NewGhosts, verification::Verifier};
use crate::{
    clock::Clock,
    config::{Permissions, PolicyConfig},
    matrix::{ClientError, Devices, EncryptError, MatrixClient, MatrixError, Outbox},
    namespace::Namespace,
    network::{ChatKey, Network, NetworkClient, SendError},
    queue::Queues,
    store::{Database, Lane, StoreError},
};

/// When work that waits for a person is looked at without a doorbell.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What the hub is built from.
pub struct Parts {
    /// The store.
    pub db: Database,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The homeserver.
    pub client: MatrixClient,
    /// The devices of the ghosts and of the bot.
    pub devices: Arc<Devices>,
    /// What leaves for the homeserver.
    pub outbox: Arc<Outbox>,
    /// The other network.
    pub network: Arc<dyn Network>,
    /// The login on it.
    pub remote: Arc<dyn NetworkClient>,
    /// Who is ours.
    pub namespace: Namespace,
    /// Who may use the bridge.
    pub permissions: Permissions,
    /// What becomes of unencrypted messages, and of messages that wait.
    pub policy: PolicyConfig,
}

/// All portals.
pub struct Hub {
    parts: Parts,
    rooms: Arc<Queues<OwnedRoomId>>,
    chats: Arc<Queues<(ChatKey, Lane)>>,
    /// People whose chats are to be looked at.
    people: Arc<Queues<OwnedUserId>>,
    /// Ghosts whose verifications are to be looked at.
    verifiers: Arc<Queues<Verifier>>,
    /// Messages whose authors know that they wait.
    told_waiting: std::sync::Mutex<HashSet<OwnedEventId>>,
    key_waits: KeyWaits,
    new_ghosts: NewGhosts,
    making_portals: Locks,
    telling_contacts: Locks,
    verifying: Locks,
}

/// Why a step did not end. Nothing of it is stored, and it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the homeserver did not do what it was asked")]
    Client(#[from] ClientError),
    #[error("a device could not do what it was asked")]
    Device(#[from] MatrixError),
    #[error("an event could not be encrypted")]
    Encrypt(#[from] EncryptError),
    #[error("the other network did not do what it was asked")]
    Remote(#[from] SendError),
}

impl StepError {
    /// Whether trying again would end the same way.
    fn is_final(&self) -> bool {
        match self {
            Self::Client(error) => !error.is_temporary(),
            Self::Encrypt(error) => error.is_final(),
            Self::Store(_) | Self::Device(_) | Self::Remote(_) => false,
        }
    }
}

impl Hub {
    /// Builds the hub; work begins with [`Self::start`].
    pub fn new(parts: Parts, tracker: TaskTracker, stop: CancellationToken) -> Arc<Self> {
        Arc::new_cyclic(|hub: &Weak<Self>| Self {
            parts,
            rooms: Queues::new(hub.clone(), tracker.clone(), stop.clone()),
            chats: Queues::new(hub.clone(), tracker.clone(), stop.clone()),
            people: Queues::new(hub.clone(), tracker.clone(), stop.clone()),
            verifiers: Queues::new(hub.clone(), tracker, stop),
            told_waiting: std::sync::Mutex::default(),
            key_waits: KeyWaits::default(),
            new_ghosts: NewGhosts::default(),
            making_portals: Locks::new(),
            telling_contacts: Locks::new(),
            verifying: Locks::new(),
        })
    }

    /// Makes the bot ready and takes up what an earlier run has left.
    ///
    /// # Errors
    /// When the bot could not be made; nothing has begun.
    pub(crate) async fn start(&self) -> Result<(), StepError> {
        self.parts.devices.ensure_published(self.parts.namespace.bot()).await?;
        Ok(self.ring_for_all().await?)
    }

    /// Everything that waits is looked at.
    ///
    /// # Errors
    /// When the store failed.
    pub(crate) async fn ring_for_all(&self) -> Result<(), StoreError> {
        let mut tx = self.parts.db.read().await?;
        let rooms = tx.matrix_inbox().pending_rooms().await?;
        let chats = tx.remote_inbox().pending_chats().await?;
        drop(tx);
        rooms.into_iter().for_each(|room| self.rooms.ring(room));
        chats.iter().for_each(|chat| self.ring_chat(chat));
        self.ring_all_verifiers().await
    }

    /// Something of this chat may be in the remote inbox.
    fn ring_chat(&self, chat: &ChatKey) {
        Lane::ALL.into_iter().for_each(|lane| self.chats.ring((chat.clone(), lane)));
    }

    fn ring_reports(&self, chat: &ChatKey) {
        self.chats.ring((chat.clone(), Lane::Reports));
    }

    fn may_use(&self, user: &UserId) -> bool {
        !self.parts.namespace.is_ours(user)
            && self.parts.permissions.of(user) >= crate::config::Permission::User
    }

    /// What encrypts on the other network.
    fn remote_encryption(&self) -> &'static str {
        self.parts.network.capabilities().encryption
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.parts.clock.now_ms()).unwrap_or(i64::MAX)
    }

    /// What waits in chats of this person is looked at again.
    async fn ring_all_of(&self, user: &UserId) -> Result<(), StoreError> {
        let network = self.parts.network.name();
        let mut tx = self.parts.db.read().await?;
        let portals = tx.portals().load_waiting(network, user).await?;
        drop(tx);
        for portal in portals {
            self.ring_chat(&from_remote::chat_of(&portal));
            self.rooms.ring(portal.room_id);
        }
        Ok(())
    }

    fn ring_room(&self, room: &RoomId) {
        self.rooms.ring(room.to_owned());
    }
}
