//! Matrix to XMPP, step 2: opening an event, and judging who sent it.

use e2ee::matrix::{
    DecryptError as MachineDecryptError, DecryptedEvent, Machine, SenderTrust as MachineTrust,
};
use ruma::{OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::device::Device;
use crate::{
    matrix::{DecryptError, MatrixError},
    store::{IndexCheck, MessagePosition, PinOutcome, PinState},
};

/// A decrypted event.
#[derive(Clone, PartialEq)]
pub struct Decrypted {
    /// The type inside the ciphertext.
    pub event_type: String,
    /// The content inside the ciphertext.
    pub content: Value,
    /// Who sent it; the same as outside.
    pub sender: OwnedUserId,
    /// Whether the sender is who they were. To be looked at every time.
    pub sender_trust: SenderTrust,
    /// The public master key behind the event, in unpadded base64; `None` when its device was not
    /// signed.
    pub identity: Option<String>,
}

/// Whether the sender of an event is who they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderTrust {
    /// Verified by people.
    Verified,
    /// The identity is the pinned one.
    Pinned,
    /// The identity is not the pinned one.
    Changed,
    /// The device was not signed by its owner: it may be anybody's who controls the account.
    UnsignedDevice,
}

#[derive(Deserialize)]
struct Envelope {
    sender: OwnedUserId,
}

impl Device {
    /// See [`super::Devices::decrypt`].
    pub(super) async fn decrypt(
        &mut self,
        room: &RoomId,
        event: &str,
    ) -> Result<Decrypted, DecryptError> {
        let result = self.try_decrypt(room, event).await;
        self.settle(result)
    }

    async fn try_decrypt(&mut self, room: &RoomId, event: &str) -> Result<Decrypted, DecryptError> {
        let event: Box<RawValue> =
            serde_json::from_str(event).map_err(|_| DecryptError::Malformed)?;
        let machine = self.ready().await?;
        let opened = match machine.decrypt(room, &event).await {
            Ok(opened) if matches!(opened.trust, MachineTrust::Signed { .. }) => opened,
            Ok(_) | Err(MachineDecryptError::MissingRoomKey { .. }) => {
                self.look_closer(&machine, &event).await?;
                machine.decrypt(room, &event).await?
            }
            Err(error) => return Err(error.into()),
        };
        let sender_trust = self.judge(&machine, &opened).await?;
        self.guard_against_replay(room, &opened).await?;
        Ok(Decrypted {
            event_type: opened.event_type,
            content: Value::Object(opened.content),
            sender: opened.sender,
            sender_trust,
            identity: match opened.trust {
                MachineTrust::Signed { master_key, .. } => Some(master_key),
                MachineTrust::Unsigned | MachineTrust::Unknown => None,
            },
        })
    }

    /// The room key, or the signature of the sender's device, may just not have come yet.
    async fn look_closer(
        &mut self,
        machine: &Machine,
        event: &RawValue,
    ) -> Result<(), DecryptError> {
        let Envelope { sender } =
            serde_json::from_str(event.get()).map_err(|_| DecryptError::Malformed)?;
        self.sync().await?;
        let senders = [sender].into();
        machine.track(&senders).await?;
        let exchange = self.exchange(machine).await?;
        if !exchange.queried.is_superset(&senders) {
            self.send_all(machine, vec![machine.query(&senders)]).await?;
        }
        Ok(())
    }

    async fn judge(
        &self,
        machine: &Machine,
        opened: &DecryptedEvent,
    ) -> Result<SenderTrust, DecryptError> {
        match &opened.trust {
            MachineTrust::Signed { is_verified: true, .. } => Ok(SenderTrust::Verified),
            MachineTrust::Signed { master_key, is_verified: false } => {
                let is_pinned = self.is_pinned(machine, &opened.sender, master_key).await?;
                Ok(if is_pinned { SenderTrust::Pinned } else { SenderTrust::Changed })
            }
            MachineTrust::Unsigned => Ok(SenderTrust::UnsignedDevice),
            // Nothing ties its room key to the sender. It may be tied yet, so it waits for that
            // like for the key itself.
            MachineTrust::Unknown => Err(DecryptError::MissingRoomKey { withheld: None }),
        }
    }

    /// Whether the identity behind an event is the pinned one; the first one is pinned. What
    /// waits for approval is never an identity of the past, but the one the user presents now.
    async fn is_pinned(
        &self,
        machine: &Machine,
        user: &UserId,
        master_key: &str,
    ) -> Result<bool, MatrixError> {
        let mut tx = self.shared.db.read().await?;
        let pin = tx.pins().find(user).await?;
        drop(tx);
        let Some(pin) = pin else {
            return Ok(self.shared.pin_or_check(user, master_key).await? != PinOutcome::Changed);
        };
        if pin.master_key == master_key {
            return Ok(true);
        }
        if let Some(identity) = machine.recipient(user).await?.identity {
            let presented = PinState::Changed { new_master_key: identity.master_key.clone() };
            if pin.state != presented {
                // The answer is about the identity of today; this event is not of the pinned one.
                let _ = self.shared.pin_or_check(user, &identity.master_key).await?;
            }
        }
        Ok(false)
    }

    /// Binds the place in the Megolm session to this event.
    async fn guard_against_replay(
        &self,
        room: &RoomId,
        opened: &DecryptedEvent,
    ) -> Result<(), DecryptError> {
        let position = MessagePosition {
            room_id: room,
            session_id: &opened.session_id,
            message_index: opened.message_index,
        };
        let sent_at: i64 = opened.origin_server_ts.get().into();
        let mut tx = self.shared.db.begin().await?;
        let check = tx.megolm_index().check_and_insert(position, &opened.event_id, sent_at).await?;
        tx.commit().await?;
        match check {
            IndexCheck::Fresh | IndexCheck::SameEvent => Ok(()),
            IndexCheck::Replay => Err(DecryptError::Replayed),
        }
    }
}
