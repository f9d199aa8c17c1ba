//! Matrix to XMPP, step 2: opening an event, and judging who sent it.

use e2ee::matrix::{
    DecryptError as MachineDecryptError, DecryptedEvent, Machine, SenderTrust as MachineTrust,
};
use ruma::{OwnedUserId, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    device::Device,
    sender_trust::{Judgement, SenderTrust, Signer},
};
use crate::{
    matrix::{DecryptError, MatrixError},
    store::{IndexCheck, MessagePosition, Pin, StoreError},
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
    /// signed, or by an identity of the past.
    pub identity: Option<String>,
    /// Whether the sender presents another identity than the pinned one now, which waits for approval.
    pub new_identity_waits: bool,
}

/// A pin that was set a moment ago is gone.
const NO_PIN: StoreError = StoreError::NoSuchRow { table: "matrix_pins" };

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
        let is_judged = |opened: &Decrypted| {
            matches!(opened.sender_trust, SenderTrust::Verified | SenderTrust::Pinned)
        };
        if !result.as_ref().is_ok_and(is_judged) {
            // The room key, or what its sender is trusted by, may come in a moment.
            self.needs.listen.notify_one();
        }
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
        let judgement = self.judge(&machine, &opened).await?;
        self.guard_against_replay(room, &opened).await?;
        Ok(Decrypted {
            event_type: opened.event_type,
            content: Value::Object(opened.content),
            sender: opened.sender,
            sender_trust: judgement.trust,
            identity: judgement.identity,
            new_identity_waits: judgement.new_identity_waits,
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

    /// How far the sender can be trusted.
    async fn judge(
        &self,
        machine: &Machine,
        opened: &DecryptedEvent,
    ) -> Result<Judgement, DecryptError> {
        let signer = match &opened.trust {
            MachineTrust::Signed { master_key, master_key_now, is_verified } => Signer {
                master_key,
                master_key_now: master_key_now.as_deref(),
                is_verified: *is_verified,
            },
            MachineTrust::Unsigned => return Ok(Judgement::UNSIGNED),
            // Nothing ties its room key to the sender. It may be tied yet, so it waits for that
            // like for the key itself.
            MachineTrust::Unknown => return Err(DecryptError::MissingRoomKey { withheld: None }),
        };
        let mut pin = self.find_pin(&opened.sender).await?;
        if pin.as_ref().is_none_or(|pin| signer.is_news_to(pin)) {
            pin = self.check_pin(machine, &opened.sender, signer.master_key, pin).await?;
        }
        Ok(signer.judge(pin.ok_or(MatrixError::Store(NO_PIN))?))
    }

    /// The pin of a user after it was compared with the identity that they present now: what waits
    /// for approval is never an identity of the past. The first identity is pinned.
    async fn check_pin(
        &self,
        machine: &Machine,
        user: &UserId,
        master_key: &str,
        pin: Option<Pin>,
    ) -> Result<Option<Pin>, DecryptError> {
        let presented = machine.recipient(user).await?.identity;
        let presented = presented.map_or_else(|| master_key.to_owned(), |own| own.master_key);
        let is_known = pin.as_ref().is_some_and(|pin| pin.presented() == presented);
        if is_known {
            return Ok(pin);
        }
        // The answer is about the identity of today; what it means for this event is judged later.
        let _ = self.shared.pin_or_check(user, &presented).await?;
        Ok(self.find_pin(user).await?)
    }

    async fn find_pin(&self, user: &UserId) -> Result<Option<Pin>, MatrixError> {
        let mut tx = self.shared.db.read().await?;
        Ok(tx.pins().find(user).await?)
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
        failpoint!("w05_index_committed");
        match check {
            IndexCheck::Fresh | IndexCheck::SameEvent => Ok(()),
            IndexCheck::Replay => Err(DecryptError::Replayed),
        }
    }
}
