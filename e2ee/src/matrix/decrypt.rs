//! Opening room events, and saying who stands behind them.
//!
//! Spec: <https://spec.matrix.org/v1.17/client-server-api/#mmegolmv1aes-sha2>

use matrix_sdk_common::deserialized_responses::{
    DeviceLinkProblem, VerificationLevel, VerificationState, WithheldCode,
};
use matrix_sdk_crypto::{
    DecryptionSettings, EventError, MegolmError, TrustRequirement,
    olm::{KnownSenderData, SenderData},
    types::events::room::encrypted::{EncryptedEvent, RoomEventEncryptionScheme},
    vodozemac::{Curve25519PublicKey, megolm::DecryptionError},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId, UserId,
    serde::{JsonObject, Raw},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Machine, MachineError, encrypt::known_identity};

/// A decrypted room event.
#[derive(Clone, PartialEq)]
pub struct DecryptedEvent {
    /// Who sent it. Proven by the room key unless [`Self::trust`] says otherwise.
    pub sender: OwnedUserId,
    /// The event's id, as the homeserver says.
    pub event_id: OwnedEventId,
    /// When it was sent, as the homeserver says.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// The type inside the ciphertext.
    pub event_type: String,
    /// The content inside the ciphertext. It holds `m.relates_to` only if that was inside too,
    /// or if it is an edit whose new content was inside.
    pub content: JsonObject,
    /// What stands behind the sender.
    pub trust: SenderTrust,
    /// The Megolm session.
    pub session_id: String,
    /// The index of the message in it. Nothing here stops a replay: the caller keeps the
    /// indices it has seen.
    pub message_index: u32,
}

/// What stands behind the sender of an event. To be looked at every time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderTrust {
    /// A device that its owner has signed. Whether the owner's identity is the expected one is
    /// for the caller to ask.
    Signed {
        /// The owner's public master key when the room key came, in unpadded base64.
        master_key: String,
        /// The owner's public master key of today, where it is another one that has signed the
        /// same device.
        master_key_now: Option<String>,
        /// Whether this device's user has verified [`Self::Signed::master_key`].
        is_verified: bool,
    },
    /// A device of the sender that its owner has not signed: whoever controls the account can
    /// add such a device.
    Unsigned,
    /// Nothing: the device is not known.
    Unknown,
}

/// Why an event was not decrypted. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DecryptError {
    /// Its room key is not here.
    #[error("the room key is missing")]
    MissingRoomKey {
        /// Why its maker did not send it, if they said so.
        withheld: Option<WithheldCode>,
    },
    /// Its room key is not the sender's, or did not come from its maker.
    #[error("the room key does not belong to the sender")]
    Forged,
    /// It is no Megolm event, or damaged.
    #[error("the event is not a valid encrypted event: {0}")]
    Malformed(&'static str),
    /// The machine failed.
    #[error("the machine failed")]
    Machine(#[from] MachineError),
}

/// The library decrypts everything; [`SenderTrust`] is what callers must look at.
const JUDGED_HERE: DecryptionSettings =
    DecryptionSettings { sender_device_trust_requirement: TrustRequirement::Untrusted };

/// The event inside the ciphertext, with what the library copied from outside.
#[derive(Deserialize)]
struct Opened {
    #[serde(rename = "type")]
    event_type: String,
    content: JsonObject,
}

impl Machine {
    /// Decrypts an `m.room.encrypted` event as the homeserver sent it.
    ///
    /// # Errors
    /// See [`DecryptError`].
    pub async fn decrypt(
        &self,
        room: &RoomId,
        event: &RawValue,
    ) -> Result<DecryptedEvent, DecryptError> {
        let (event, outer_relation) = split_relation(event)?;
        let parsed: EncryptedEvent =
            event.deserialize().map_err(|_| DecryptError::Malformed("fields"))?;
        let RoomEventEncryptionScheme::MegolmV1AesSha2(scheme) = &parsed.content.scheme else {
            return Err(DecryptError::Malformed("algorithm"));
        };
        let decrypted =
            self.olm.decrypt_room_event(&event, room, &JUDGED_HERE).await.map_err(from_megolm)?;
        if decrypted.encryption_info.forwarder.is_some() {
            return Err(DecryptError::Forged);
        }
        let opened: Opened = serde_json::from_str(decrypted.event.json().get())
            .map_err(|_| DecryptError::Malformed("plaintext"))?;
        let state = &decrypted.encryption_info.verification_state;
        let trust = self.sender_trust(state, room, &scheme.session_id).await?;
        Ok(DecryptedEvent {
            content: with_relation(opened.content, outer_relation),
            event_type: opened.event_type,
            sender: parsed.sender,
            event_id: parsed.event_id,
            origin_server_ts: parsed.origin_server_ts,
            trust,
            session_id: scheme.session_id.clone(),
            message_index: scheme.ciphertext.message_index(),
        })
    }

    async fn sender_trust(
        &self,
        state: &VerificationState,
        room: &RoomId,
        session_id: &str,
    ) -> Result<SenderTrust, DecryptError> {
        let is_verified = match state {
            VerificationState::Verified => true,
            VerificationState::Unverified(level) => match level {
                VerificationLevel::UnverifiedIdentity
                | VerificationLevel::VerificationViolation => false,
                VerificationLevel::UnsignedDevice => return Ok(SenderTrust::Unsigned),
                VerificationLevel::None(DeviceLinkProblem::MissingDevice) => {
                    return Ok(SenderTrust::Unknown);
                }
                VerificationLevel::None(DeviceLinkProblem::InsecureSource)
                | VerificationLevel::MismatchedSender => return Err(DecryptError::Forged),
            },
        };
        let session = self.olm.store().get_inbound_group_session(room, session_id).await;
        let Some(session) = session.map_err(MachineError::from)? else {
            return Ok(SenderTrust::Unknown);
        };
        let (SenderData::SenderUnverified(known)
        | SenderData::SenderVerified(known)
        | SenderData::VerificationViolation(known)) = &session.sender_data
        else {
            return Ok(SenderTrust::Unknown);
        };
        let master_key = known.master_key.to_base64();
        // The library keeps with a room key what was so when it came.
        let is_verified = is_verified || self.has_verified(&known.user_id, &master_key).await?;
        let now = self.master_key_now(known, session.sender_key()).await?;
        let master_key_now = now.filter(|now| *now != master_key);
        Ok(SenderTrust::Signed { master_key, master_key_now, is_verified })
    }

    async fn has_verified(&self, user: &UserId, master_key: &str) -> Result<bool, MachineError> {
        let identity = self.olm.get_identity(user, None).await?.and_then(known_identity);
        Ok(identity.is_some_and(|known| known.is_verified && known.master_key == master_key))
    }

    /// The identity that signs the device behind a room key today. The library keeps with a room
    /// key what it saw when that came; a client goes on with its room keys under a new identity.
    async fn master_key_now(
        &self,
        known: &KnownSenderData,
        sender_key: Curve25519PublicKey,
    ) -> Result<Option<String>, MachineError> {
        let Some(device) = &known.device_id else { return Ok(None) };
        let device = self.olm.get_device(&known.user_id, device, None).await?;
        let is_signed = device.is_some_and(|device| {
            device.curve25519_key() == Some(sender_key) && device.is_cross_signed_by_owner()
        });
        if !is_signed {
            return Ok(None);
        }
        Ok(self.recipient(&known.user_id).await?.identity.map(|identity| identity.master_key))
    }
}

/// The relation outside the ciphertext is taken off, because the library would copy it in.
fn split_relation(
    event: &RawValue,
) -> Result<(Raw<EncryptedEvent>, Option<serde_json::Value>), DecryptError> {
    let malformed = |_| DecryptError::Malformed("JSON");
    let mut event: JsonObject = serde_json::from_str(event.get()).map_err(malformed)?;
    let relation = event
        .get_mut("content")
        .and_then(|content| content.as_object_mut())
        .and_then(|content| content.remove("m.relates_to"));
    // What the homeserver bundles with the event is not part of it.
    event.remove("unsigned");
    let event = Raw::new(&event).map_err(malformed)?;
    Ok((event.cast_unchecked(), relation))
}

/// A relation outside the ciphertext is the homeserver's word. Only an edit may use it, because
/// an edit also has its new content inside; whose message it edits is checked by the caller.
fn with_relation(mut content: JsonObject, outer: Option<serde_json::Value>) -> JsonObject {
    let is_edit = |relation: &serde_json::Value| {
        relation.get("rel_type").and_then(|kind| kind.as_str()) == Some("m.replace")
    };
    let edits = content.get("m.new_content").is_some_and(serde_json::Value::is_object);
    if edits
        && !content.contains_key("m.relates_to")
        && let Some(relation) = outer.filter(is_edit)
    {
        content.insert("m.relates_to".to_owned(), relation);
    }
    content
}

fn from_megolm(error: MegolmError) -> DecryptError {
    match error {
        MegolmError::MissingRoomKey(withheld) => DecryptError::MissingRoomKey { withheld },
        MegolmError::Decryption(DecryptionError::UnknownMessageIndex(_, _)) => {
            DecryptError::MissingRoomKey { withheld: None }
        }
        MegolmError::SenderIdentityNotTrusted(_) | MegolmError::MismatchedIdentityKeys(_) => {
            DecryptError::Forged
        }
        MegolmError::Store(error) => DecryptError::Machine(error.into()),
        MegolmError::EventError(EventError::MismatchedRoom(_, _)) => {
            DecryptError::Malformed("the room key is for another room")
        }
        MegolmError::EventError(_) => DecryptError::Malformed("fields"),
        MegolmError::JsonError(_) => DecryptError::Malformed("plaintext"),
        MegolmError::Decode(_) | MegolmError::Decryption(_) => {
            DecryptError::Malformed("ciphertext")
        }
    }
}
