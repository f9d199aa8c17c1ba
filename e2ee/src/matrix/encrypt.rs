//! Sharing room keys with the devices that people have signed, and encrypting with them.
//!
//! Spec: <https://spec.matrix.org/v1.17/client-server-api/#sharing-keys-between-devices>

use std::{collections::BTreeSet, time::Duration};

use matrix_sdk_crypto::{
    CollectStrategy, Device, EncryptionSettings, MegolmError, OlmError, SetRoomSettingsError,
    UserIdentity, store::types::RoomSettings, types::EventEncryptionAlgorithm,
};
use ruma::{
    OwnedUserId, RoomId, UserId,
    events::room::{encryption::RoomEncryptionEventContent, history_visibility::HistoryVisibility},
    serde::{JsonObject, Raw},
};

use super::{Machine, MachineError, Request};

/// Messages under one room key at most, whatever the room allows.
pub const MAX_MESSAGES_PER_ROOM_KEY: u64 = 50;

/// How long a room key is used at most, whatever the room allows.
pub const MAX_ROOM_KEY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a person's devices look like to this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Who.
    pub user: OwnedUserId,
    /// Their identity, if they have one.
    pub identity: Option<KnownIdentity>,
    /// How many devices they have signed.
    pub signed_devices: usize,
    /// How many of these can be written to: there is an Olm session.
    pub reachable_devices: usize,
}

/// A person's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownIdentity {
    /// Public master key, in unpadded base64.
    pub master_key: String,
    /// Whether this device's user has verified it.
    pub is_verified: bool,
    /// Whether this machine has seen another one before, which [`Machine::approve`] forgets.
    pub needs_approval: bool,
}

/// A room's own settings for its keys. They can make a room key's life shorter than
/// [`MAX_MESSAGES_PER_ROOM_KEY`] and [`MAX_ROOM_KEY_AGE`], never longer.
#[derive(Clone)]
pub struct RoomKeySettings {
    /// Content of `m.room.encryption`.
    pub encryption: RoomEncryptionEventContent,
    /// From `m.room.history_visibility`. A change makes a new room key.
    pub visibility: HistoryVisibility,
}

/// The content of an `m.room.encrypted` event.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptedContent(String);

impl EncryptedContent {
    /// The content as JSON, exactly as it has to be sent.
    pub fn into_json(self) -> String {
        self.0
    }
}

/// Why nothing was encrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// The room is not encrypted with Megolm.
    #[error("the room's encryption algorithm is not supported")]
    Algorithm,
    /// Somebody in the room was verified, and has another identity now.
    #[error("a verified identity in the room has changed")]
    IdentityChanged {
        /// Who.
        users: Vec<OwnedUserId>,
    },
    /// This device is not published, so nobody would trust its room key.
    #[error("this device is not signed by its own identity")]
    NotPublished,
    /// There is no room key to encrypt with, or it has just expired: share one.
    #[error("there is no shared room key")]
    NotShared,
    /// The machine failed.
    #[error("the machine failed")]
    Machine(#[from] MachineError),
}

impl Machine {
    /// Keeps the devices of these users known from now on: [`Machine::requests`] asks for those
    /// that are not, and syncs report their changes.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn track(&self, users: &BTreeSet<OwnedUserId>) -> Result<(), MachineError> {
        Ok(self.olm.update_tracked_users(ids(users)).await?)
    }

    /// What is known of a person.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn recipient(&self, user: &UserId) -> Result<Recipient, MachineError> {
        let identity = self.olm.get_identity(user, None).await?.and_then(known_identity);
        let devices = self.olm.get_user_devices(user, None).await?;
        let (mut signed, mut reachable) = (0, 0);
        for device in devices.devices().filter(Device::is_cross_signed_by_owner) {
            signed += 1;
            if self.has_olm_session(&device).await? {
                reachable += 1;
            }
        }
        Ok(Recipient {
            user: user.to_owned(),
            identity,
            signed_devices: signed,
            reachable_devices: reachable,
        })
    }

    pub(super) async fn has_olm_session(&self, device: &Device) -> Result<bool, MachineError> {
        let Some(key) = device.curve25519_key() else { return Ok(false) };
        let sessions = self.olm.store().get_sessions(&key.to_base64()).await?;
        Ok(sessions.is_some_and(|sessions| !sessions.is_empty()))
    }

    /// Makes the identity that a person has now the expected one for this machine.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn approve(&self, user: &UserId) -> Result<(), MachineError> {
        if let Some(UserIdentity::Other(identity)) = self.olm.get_identity(user, None).await? {
            if identity.has_verification_violation() {
                identity.withdraw_verification().await?;
            }
            identity.pin_current_master_key().await?;
        }
        Ok(())
    }

    /// A claim of one-time keys for those devices of these users that there is no session with. What
    /// the library wants for other reasons is among [`Machine::requests`].
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn claim(
        &self,
        users: &BTreeSet<OwnedUserId>,
    ) -> Result<Option<Request>, MachineError> {
        let claim = self.olm.get_missing_sessions(ids(users)).await?;
        let Some((id, mut claim)) = claim else { return Ok(None) };
        claim.one_time_keys.retain(|user, _| users.contains(user));
        for (user, devices) in &mut claim.one_time_keys {
            for device in self.olm.get_user_devices(user, None).await?.devices() {
                if self.has_olm_session(&device).await? {
                    devices.remove(device.device_id());
                }
            }
        }
        claim.one_time_keys.retain(|_, devices| !devices.is_empty());
        let is_needed = !claim.one_time_keys.is_empty();
        Ok(is_needed.then_some(Request { id, body: super::RequestBody::KeysClaim(claim) }))
    }

    /// Shares the room key with all signed devices of exactly these users; makes a new one when
    /// somebody or some device has left or the key is worn out. All requests have to be sent and
    /// answered before [`Self::encrypt`].
    ///
    /// # Errors
    /// See [`EncryptError`].
    pub async fn share(
        &self,
        room: &RoomId,
        users: &BTreeSet<OwnedUserId>,
        settings: &RoomKeySettings,
    ) -> Result<Vec<Request>, EncryptError> {
        if !self.is_published().await? {
            return Err(EncryptError::NotPublished);
        }
        self.remember_encrypted(room, &settings.encryption).await?;
        let settings = sharing(settings);
        let requests =
            self.olm.share_room_key(room, ids(users), settings).await.map_err(refusal)?;
        Ok(requests.iter().map(Request::to_device).collect())
    }

    /// Makes the next [`Self::share`] in this room begin with a new room key.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn discard_room_key(&self, room: &RoomId) -> Result<(), MachineError> {
        self.olm.discard_room_key(room).await?;
        Ok(())
    }

    /// Whether this device has ever shared a room key in this room. If so, the room must not be
    /// taken for an unencrypted one again.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn was_encrypted(&self, room: &RoomId) -> Result<bool, MachineError> {
        Ok(self.olm.room_settings(room).await?.is_some())
    }

    async fn remember_encrypted(
        &self,
        room: &RoomId,
        encryption: &RoomEncryptionEventContent,
    ) -> Result<(), EncryptError> {
        let algorithm = EventEncryptionAlgorithm::from(encryption.algorithm.as_str());
        let settings = RoomSettings { algorithm, ..RoomSettings::default() };
        self.olm.set_room_settings(room, &settings).await.map_err(|error| match error {
            SetRoomSettingsError::EncryptionDowngrade | SetRoomSettingsError::InvalidSettings => {
                EncryptError::Algorithm
            }
            SetRoomSettingsError::Store(error) => EncryptError::Machine(error.into()),
        })
    }

    /// Encrypts an event under the room key that was shared last. The ratchet is stored before
    /// this returns, so no index is used twice.
    ///
    /// # Errors
    /// See [`EncryptError`].
    pub async fn encrypt(
        &self,
        room: &RoomId,
        event_type: &str,
        content: &JsonObject,
    ) -> Result<EncryptedContent, EncryptError> {
        let session = self
            .olm
            .store()
            .get_outbound_group_session(room)
            .await
            .map_err(MachineError::from)?
            .filter(|session| session.shared() && !session.expired() && !session.invalidated());
        if session.is_none() {
            return Err(EncryptError::NotShared);
        }
        let content =
            Raw::new(content).map_err(|_| MachineError::Refused("content"))?.cast_unchecked();
        let encrypted =
            self.olm.encrypt_room_event_raw(room, event_type, &content).await.map_err(|error| {
                match error {
                    MegolmError::Store(error) => MachineError::from(error),
                    _ => MachineError::Refused("encryption"),
                }
            })?;
        Ok(EncryptedContent(encrypted.content.json().get().to_owned()))
    }
}

/// Without a closure: one in an iterator that lives across an `await` makes its future not `Send`.
pub(super) fn ids(users: &BTreeSet<OwnedUserId>) -> impl Iterator<Item = &UserId> + Send {
    users.iter().map(OwnedUserId::as_ref)
}

/// With whom a room key is shared, and when it is worn out.
fn sharing(room: &RoomKeySettings) -> EncryptionSettings {
    let mut settings = EncryptionSettings::new(
        room.encryption.clone(),
        room.visibility.clone(),
        CollectStrategy::IdentityBasedStrategy,
    );
    settings.rotation_period = settings.rotation_period.min(MAX_ROOM_KEY_AGE);
    settings.rotation_period_msgs = settings.rotation_period_msgs.min(MAX_MESSAGES_PER_ROOM_KEY);
    settings
}

pub(super) fn known_identity(identity: UserIdentity) -> Option<KnownIdentity> {
    let (master, is_verified, needs_approval) = match &identity {
        UserIdentity::Own(own) => (own.master_key().get_first_key(), own.is_verified(), false),
        UserIdentity::Other(other) => (
            other.master_key().get_first_key(),
            other.is_verified(),
            other.identity_needs_user_approval() || other.has_verification_violation(),
        ),
    };
    let master_key = master?.to_base64();
    Some(KnownIdentity { master_key, is_verified, needs_approval })
}

fn refusal(error: OlmError) -> EncryptError {
    use matrix_sdk_crypto::SessionRecipientCollectionError as Recipients;

    match error {
        OlmError::SessionRecipientCollectionError(Recipients::VerifiedUserChangedIdentity(
            users,
        )) => EncryptError::IdentityChanged { users },
        OlmError::SessionRecipientCollectionError(
            Recipients::CrossSigningNotSetup | Recipients::SendingFromUnverifiedDevice,
        ) => EncryptError::NotPublished,
        error => EncryptError::Machine(error.into()),
    }
}
