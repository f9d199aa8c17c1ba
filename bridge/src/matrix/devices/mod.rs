//! The devices of the ghosts and of the bridge bot: who is loaded, and what they can be asked.
//!
//! Each loaded device is owned by one task. What is asked of it is queued and done one after the
//! other, to its end, whether or not the asker still waits. A machine whose store failed is
//! thrown away and loaded anew.

mod asked;
mod claims;
mod device;
mod directory;
mod keys;
mod open;
mod publish;
mod seal;
mod sender_trust;
mod sync;
#[cfg(test)]
mod tests;
mod uploads;
mod verify;

use std::{sync::Arc, time::Duration};

use ruma::{OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::directory::{Directory, Interest};
pub use self::{
    open::Decrypted,
    seal::Sealed,
    sender_trust::SenderTrust,
    verify::{LostEnd, LostFlow, VerificationStep},
};
use super::{DecryptError, EncryptError, MatrixClient, MatrixError, rooms::Rooms};
use crate::{clock::Clock, namespace::Namespace, network::IdentityTrust, store::Database};

/// Where devices report what has changed. These are only doorbells: they may be rung late or
/// twice, and must not wait.
pub trait DeviceEvents: Send + Sync {
    /// A room key for this room has come, or the word that none will.
    fn keys_arrived(&self, room: &RoomId);
    /// The devices or identities of these users, none of them ours, have changed.
    fn device_lists_changed(&self, users: &[OwnedUserId]);
    /// A verification of this user of ours has moved, or has something to say.
    fn verifications_changed(&self, user: &UserId);
}

/// What the devices are built from.
pub struct DevicesParts {
    /// The homeserver.
    pub client: MatrixClient,
    /// The store.
    pub db: Database,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who is ours.
    pub namespace: Namespace,
    /// Who hears of changes.
    pub events: Arc<dyn DeviceEvents>,
    /// Where tasks run.
    pub tracker: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
    /// How much is kept in memory.
    pub limits: DeviceLimits,
}

/// How much is kept in memory, and how often devices look into their inboxes.
#[derive(Debug, Clone, Copy)]
pub struct DeviceLimits {
    /// Devices loaded at a time; 150 KiB each.
    pub loaded: usize,
    /// Loaded devices that wait for messages at a time: one connection each.
    pub waiting: usize,
    /// How long one such wait lasts.
    pub wait: Duration,
    /// How long a device that is loaded in the place of another has been so before it waits without a reason of its own.
    pub settled: Duration,
    /// How often every published device looks into its inbox.
    pub sweep: Duration,
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self {
            loaded: 256,
            waiting: 64,
            wait: Duration::from_secs(30),
            settled: Duration::from_secs(60),
            sweep: Duration::from_secs(600),
        }
    }
}

/// What all devices share.
struct Shared {
    client: MatrixClient,
    db: Database,
    clock: Arc<dyn Clock>,
    namespace: Namespace,
    events: Arc<dyn DeviceEvents>,
    rooms: Rooms,
    asked: asked::Asked,
}

/// All devices.
pub struct Devices {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    tracker: TaskTracker,
    stop: CancellationToken,
    sweep: Duration,
}

impl Devices {
    /// Devices, none of them loaded. [`Self::start`] begins what goes on in the background.
    pub fn new(parts: DevicesParts) -> Arc<Self> {
        let shared = Arc::new(Shared {
            rooms: Rooms::new(parts.client.clone()),
            asked: asked::Asked::default(),
            client: parts.client,
            db: parts.db,
            clock: parts.clock,
            namespace: parts.namespace,
            events: parts.events,
        });
        let directory =
            Directory::new(shared.clone(), parts.tracker.clone(), parts.stop.clone(), parts.limits);
        let (tracker, stop) = (parts.tracker, parts.stop);
        Arc::new(Self { shared, directory, tracker, stop, sweep: parts.limits.sweep })
    }

    /// Lets every published device look into its inbox, now and from time to time.
    pub fn start(self: &Arc<Self>) {
        let devices = Arc::clone(self);
        self.tracker.spawn(async move { devices.sweep_until_stopped().await });
    }

    /// Makes sure that a ghost or the bot exists, has a device and an identity, and that all of
    /// it is published. What a crash has interrupted goes on where it was; the identity is made
    /// once.
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn ensure_published(&self, user: &UserId) -> Result<(), MatrixError> {
        self.directory
            .call(user, Interest::Wanted, |device| Box::pin(device.ensure_published()))
            .await?
    }

    /// Decrypts an `m.room.encrypted` event, JSON as the homeserver has pushed it, with the
    /// device of `receiver` or, when the room key is missing there, of `second_chance`.
    ///
    /// The place in the Megolm session is bound to the event, and a first identity is pinned,
    /// before this returns. The same event may be decrypted again.
    ///
    /// # Errors
    /// See [`DecryptError`].
    pub async fn decrypt(
        &self,
        receiver: &UserId,
        second_chance: Option<&UserId>,
        room: &RoomId,
        event: &str,
    ) -> Result<Decrypted, DecryptError> {
        let first = self.decrypt_with(receiver, room, event).await;
        let (Err(DecryptError::MissingRoomKey { .. }), Some(second)) = (&first, second_chance)
        else {
            return first;
        };
        match self.decrypt_with(second, room, event).await {
            Ok(decrypted) => Ok(decrypted),
            Err(_) => first,
        }
    }

    async fn decrypt_with(
        &self,
        user: &UserId,
        room: &RoomId,
        event: &str,
    ) -> Result<Decrypted, DecryptError> {
        let (room, event) = (room.to_owned(), event.to_owned());
        self.directory
            .call(user, Interest::Wanted, move |device| {
                Box::pin(async move { device.decrypt(&room, &event).await })
            })
            .await
            .map_err(DecryptError::Device)?
    }

    /// Encrypts an event as `sender`, who is in the room, for those of `audience` who are there
    /// and not ours; shares the room key with them, and with nobody else, first. `write` makes the
    /// content, when it is known whose identities those are. The result is the content of an
    /// `m.room.encrypted` event.
    ///
    /// # Errors
    /// See [`EncryptError`].
    pub async fn encrypt(
        &self,
        sender: &UserId,
        room: &RoomId,
        audience: &[&UserId],
        event_type: &str,
        write: impl FnOnce(IdentityTrust) -> Map<String, Value> + Send + 'static,
    ) -> Result<Sealed, EncryptError> {
        let (room, event_type) = (room.to_owned(), event_type.to_owned());
        let audience = audience.iter().map(|&user| user.to_owned()).collect();
        self.directory
            .call(sender, Interest::Wanted, move |device| {
                Box::pin(async move {
                    device.encrypt(&room, &audience, &event_type, Box::new(write)).await
                })
            })
            .await
            .map_err(EncryptError::Device)?
    }

    /// From the next message on, `sender` encrypts under a new room key in this room.
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn rotate(&self, sender: &UserId, room: &RoomId) -> Result<(), MatrixError> {
        let room = room.to_owned();
        self.directory
            .call(sender, Interest::Wanted, move |device| {
                Box::pin(async move { device.rotate(&room).await })
            })
            .await?
    }

    /// Whether this user has ever shared a room key in this room. If so, it is an encrypted one,
    /// whatever the homeserver says of it now.
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn was_encrypted(&self, user: &UserId, room: &RoomId) -> Result<bool, MatrixError> {
        let room = room.to_owned();
        self.directory
            .call(user, Interest::Wanted, move |device| {
                Box::pin(async move {
                    let known = device.was_encrypted(&room).await;
                    device.settle(known)
                })
            })
            .await?
    }

    /// Makes `meant`, the public master key of a new identity that a Matrix user presents, the pinned one. Machines
    /// follow at their next share. Returns whether it was the one that waits.
    ///
    /// `approver` is the public master key behind the word of approval, as in
    /// [`Decrypted::identity`]; see [`crate::store::Pins::approve`].
    ///
    /// # Errors
    /// See [`MatrixError`].
    pub async fn approve(
        &self,
        user: &UserId,
        meant: &str,
        approver: &str,
    ) -> Result<bool, MatrixError> {
        let mut tx = self.shared.db.begin().await?;
        let approved = tx.pins().approve(user, meant, approver, self.shared.now_ms()).await?;
        tx.commit().await?;
        Ok(approved)
    }

    /// A state event of this room was seen: what is known of it is fetched anew.
    pub fn room_changed(&self, room: &RoomId) {
        self.shared.rooms.forget(room);
    }

    /// These users of ours may have something in their inboxes.
    pub fn sync_soon(self: &Arc<Self>, users: &[OwnedUserId]) {
        let (devices, users) = (Arc::clone(self), users.to_vec());
        self.tracker.spawn(async move {
            for user in users {
                devices.sync(&user, Interest::Wanted).await;
            }
        });
    }
}

impl Shared {
    fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX)
    }
}
