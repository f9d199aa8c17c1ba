//! Matrix to XMPP, steps 2 to 4: one room of the Matrix inbox at a time, in order.
//!
//! A message that waits (for its key, for a person) holds back the messages behind it, but not
//! commands and memberships, which may be what it waits for.

use std::time::Duration;

use async_trait::async_trait;
use ruma::{OwnedRoomId, RoomId, UserId};
use sha2::{Digest, Sha256};

use super::{
    Hub, LOOK_AGAIN, StepError, content,
    expiry::Vain,
    from_remote::chat_of,
    leg_changes::Direction,
    membership::Rows,
    read::{Message, command_in},
    say::{UNSIGNED_SENDER, Wording},
};
use crate::{
    commands,
    matrix::{DecryptError, SenderTrust},
    network::{Hold, LegSecurity, OutgoingMessage, RemoteMessageId, SendError},
    queue::{Drain, Drained},
    store::{InboxEvent, InboxId, Portal, RoomEncryption},
};

/// Rows looked at in one go: one may have 64 KiB, and the queues of many rooms work at the same time.
const BATCH: u32 = 50;

/// When a message that the other network could not take is tried again at first.
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// How often a missing room key is looked for without a doorbell.
const KEY_RETRY: Duration = Duration::from_secs(5);

/// What became of one event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is done, and that is committed.
    Done,
    /// It is done, and that may be committed with others.
    Skip,
    /// It waits this long or for a doorbell, and so do the messages behind it.
    Wait(Duration),
    /// It waits this long or for a doorbell, and nothing else does: it may be nobody's.
    Aside(Duration),
    /// It is done, and the other rows of the room are to be loaded anew.
    Renumbered,
    /// What was set aside before it is to be looked at once more: it may be of the same device,
    /// which has been signed meanwhile.
    FirstLookAgain,
}

/// How long what could not be done waits.
#[derive(Default)]
struct Waits {
    /// A message, and so those behind it.
    message: Option<Duration>,
    /// What holds nothing back.
    aside: Option<Duration>,
    /// What was set aside was looked at once more.
    looked_again: bool,
}

/// What a room is to the bridge.
enum Place {
    Portal(Box<Portal>),
    Management {
        encryption: RoomEncryption,
    },
    /// Nothing, or not yet.
    Unknown,
}

#[async_trait]
impl Drain<OwnedRoomId> for Hub {
    #[tracing::instrument(name = "portal.from_matrix", skip_all)]
    async fn drain(&self, room: &OwnedRoomId) -> Drained {
        match self.drain_room(room).await {
            Ok(drained) => drained,
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "portal.from_matrix.failed");
                Drained::Failed
            }
        }
    }
}

impl Hub {
    async fn drain_room(&self, room: &RoomId) -> Result<Drained, StepError> {
        let mut waits = Waits::default();
        let mut after = None;
        loop {
            let mut tx = self.parts.db.read().await?;
            let rows = tx.matrix_inbox().load_pending(room, after, BATCH).await?;
            drop(tx);
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            if self.take_rows(&rows, &mut waits).await? == Rows::Renumbered {
                let looked_again = waits.looked_again;
                (after, waits) = (None, Waits { looked_again, ..Waits::default() });
            }
        }
        let waits = waits.message.into_iter().chain(waits.aside).min();
        Ok(waits.map_or(Drained::Empty, |retry_in| Drained::Blocked { retry_in }))
    }

    async fn take_rows(&self, rows: &[InboxEvent], waits: &mut Waits) -> Result<Rows, StepError> {
        let mut skipped = Vec::new();
        let mut taken = Ok(Rows::AsTheyWere);
        for row in rows {
            match self.take_row(row, waits).await {
                Ok(Step::Done) => {}
                Ok(Step::Skip) => skipped.push(row.id),
                Ok(Step::Wait(time)) => waits.message = Some(shorter(waits.message, time)),
                Ok(Step::Aside(time)) => waits.aside = Some(shorter(waits.aside, time)),
                Ok(Step::Renumbered) => {
                    skipped.push(row.id);
                    taken = Ok(Rows::Renumbered);
                    break;
                }
                Ok(Step::FirstLookAgain) => {
                    waits.looked_again = true;
                    taken = Ok(Rows::Renumbered);
                    break;
                }
                Err(error) if error.is_final() => {
                    tracing::warn!(error = %crate::error_chain(&error), "portal.from_matrix.given_up");
                    skipped.push(row.id);
                }
                Err(error) => {
                    taken = Err(error);
                    break;
                }
            }
        }
        self.mark_all_done(&skipped).await?;
        taken
    }

    async fn mark_all_done(&self, rows: &[InboxId]) -> Result<(), StepError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut tx = self.parts.db.begin().await?;
        for &row in rows {
            tx.matrix_inbox().mark_done(row).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// One event, behind those that wait.
    async fn take_row(&self, row: &InboxEvent, waits: &Waits) -> Result<Step, StepError> {
        let event = &row.event;
        if event.state_key.is_some() {
            return self.take_state(row).await;
        }
        let kind = event.event_type.as_str();
        let is_message = content::is_said(kind)
            || kind == "m.room.encrypted"
            || kind.starts_with("m.key.verification.");
        if !is_message || self.parts.namespace.is_ours(&event.sender) {
            return Ok(Step::Skip);
        }
        failpoint!("w03_transaction_answered");
        match self.place_of(&event.room_id).await? {
            Place::Portal(portal) => self.take_in_portal(row, &portal, waits).await,
            Place::Management { encryption } => self.take_in_management(row, encryption).await,
            Place::Unknown => Ok(Step::Skip),
        }
    }

    async fn take_state(&self, row: &InboxEvent) -> Result<Step, StepError> {
        self.parts.devices.room_changed(&row.event.room_id);
        let mut tx = self.parts.db.read().await?;
        let portal = tx.portals().find_by_room(&row.event.room_id).await?;
        drop(tx);
        match row.event.event_type.as_str() {
            "m.room.member" => {
                let rows = self.take_membership(row, portal.as_ref()).await?;
                if rows == Rows::Renumbered {
                    return Ok(Step::Renumbered);
                }
            }
            "m.room.encryption" if portal.is_some() => {
                let mut tx = self.parts.db.begin().await?;
                tx.portals().set_encrypted(&row.event.room_id).await?;
                tx.commit().await?;
            }
            _ => {}
        }
        Ok(Step::Skip)
    }

    async fn place_of(&self, room: &RoomId) -> Result<Place, StepError> {
        let mut tx = self.parts.db.read().await?;
        if let Some(portal) = tx.portals().find_by_room(room).await? {
            return Ok(Place::Portal(Box::new(portal)));
        }
        let management = tx.management_rooms().find_by_room(room).await?;
        drop(tx);
        if management.is_none() {
            return Ok(Place::Unknown);
        }
        let bot = self.parts.namespace.bot();
        let client = &self.parts.client;
        let state = client.fetch_state_content(bot, room, "m.room.encryption", "").await?;
        // A room stays encrypted, though its homeserver may deny it.
        let is_encrypted = state.is_some() || self.parts.devices.was_encrypted(bot, room).await?;
        let encryption =
            if is_encrypted { RoomEncryption::Encrypted } else { RoomEncryption::Plain };
        Ok(Place::Management { encryption })
    }

    async fn take_in_portal(
        &self,
        row: &InboxEvent,
        portal: &Portal,
        waits: &Waits,
    ) -> Result<Step, StepError> {
        let behind = waits.message.is_some();
        // Somebody else in the room is not the person whose address the contact sees.
        if row.event.sender != portal.local || !self.may_use(&portal.local) {
            return Ok(Step::Skip);
        }
        if self.take_plain_verification(row, portal).await? {
            return Ok(Step::Skip);
        }
        let message = match self.read(row, &portal.ghost, portal.encryption).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Step::Skip),
            Err(_) if behind => return Ok(Step::Wait(LOOK_AGAIN)),
            Err(error) => return self.cannot_read(row, portal, error).await,
        };
        let portal = &self.as_written_in(portal, &message).await?;
        if self.take_verification(row, portal, &message).await? {
            return Ok(Step::Skip);
        }
        if !content::is_said(&message.event_type) {
            return Ok(Step::Skip);
        }
        if message.trust == Some(SenderTrust::UnsignedDevice) {
            // Anybody who controls the account can add such a device: not even commands count, and
            // what the person says from their own devices does not wait for it.
            if self.expire_from_person(row, portal, Vain::UnsignedDevice).await? {
                return Ok(Step::Done);
            }
            self.tell_unsigned_sender(portal).await?;
            return Ok(Step::Aside(LOOK_AGAIN));
        }
        if waits.aside.is_some() && !waits.looked_again {
            return Ok(Step::FirstLookAgain);
        }
        if message.trust == Some(SenderTrust::Outdated) {
            let reason = "it was sent under an encryption identity that you have replaced. \
                Verify this device under your new one, then send it again";
            self.fail(portal, row, reason).await?;
            return Ok(Step::Done);
        }
        if let Some(command) = command_in(&message.content, true) {
            return self.obey(row, portal.encryption, command, &message, Some(portal)).await;
        }
        if behind {
            return Ok(Step::Wait(LOOK_AGAIN));
        }
        if message.trust == Some(SenderTrust::Changed) {
            if self.expire_from_person(row, portal, Vain::OwnIdentity).await? {
                return Ok(Step::Done);
            }
            self.tell_identity_changed(portal).await?;
            return Ok(Step::Wait(LOOK_AGAIN));
        }
        if message.new_identity_waits {
            // The room key is from before: what it opens is the person's, as it was.
            self.tell_identity_changed(portal).await?;
        }
        self.send_to_contact(row, portal, message).await
    }

    /// The portal, encrypted where the person's client encrypts: then the room is, whatever its homeserver has told.
    async fn as_written_in(&self, portal: &Portal, message: &Message) -> Result<Portal, StepError> {
        let mut portal = portal.clone();
        if portal.encryption == RoomEncryption::Plain && message.security != LegSecurity::Plaintext
        {
            let mut tx = self.parts.db.begin().await?;
            tx.portals().set_encrypted(&portal.room_id).await?;
            tx.commit().await?;
            portal.encryption = RoomEncryption::Encrypted;
        }
        Ok(portal)
    }

    /// Carries out a command. It is done before it begins: a command that is met by a fault is
    /// not repeated in another situation than the one its author saw.
    async fn obey(
        &self,
        row: &InboxEvent,
        encryption: RoomEncryption,
        command: &str,
        message: &Message,
        portal: Option<&Portal>,
    ) -> Result<Step, StepError> {
        self.mark_all_done(&[row.id]).await?;
        let sender = &row.event.sender;
        let call = commands::Call {
            hub: self,
            sender,
            room: &row.event.room_id,
            encryption,
            portal,
            security: message.security,
            identity: message.identity.as_deref(),
        };
        let answer = commands::run(&call, command).await;
        if let Err(error) = self.answer((&row.event.room_id, sender), encryption, &answer).await {
            tracing::warn!(error = %crate::error_chain(&error), "portal.command.not_answered");
        }
        Ok(Step::Done)
    }

    async fn take_in_management(
        &self,
        row: &InboxEvent,
        encryption: RoomEncryption,
    ) -> Result<Step, StepError> {
        let sender = &row.event.sender;
        if !self.may_use(sender) {
            return Ok(Step::Skip);
        }
        let message = match self.read(row, self.parts.namespace.bot(), encryption).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Step::Skip),
            Err(DecryptError::MissingRoomKey { .. }) if self.key_may_take(row).is_some() => {
                return Ok(Step::Wait(KEY_RETRY));
            }
            Err(DecryptError::Device(error)) => return Err(error.into()),
            Err(_) => {
                let text = "I could not decrypt your message.";
                let step = self.answer_and_end(row, encryption, text).await?;
                self.key_waits.end(&row.event.event_id);
                return Ok(step);
            }
        };
        if message.event_type != "m.room.message" {
            return Ok(Step::Skip);
        }
        if matches!(message.trust, Some(SenderTrust::UnsignedDevice | SenderTrust::Outdated)) {
            let text = "I take commands only from a device that you have verified yourself.";
            return self.answer_and_end(row, encryption, text).await;
        }
        match command_in(&message.content, false) {
            Some(command) => self.obey(row, encryption, command, &message, None).await,
            None => Ok(Step::Skip),
        }
    }

    /// The bot answers, and the row is done, in one commit.
    async fn answer_and_end(
        &self,
        row: &InboxEvent,
        encryption: RoomEncryption,
        text: &str,
    ) -> Result<Step, StepError> {
        let room = &row.event.room_id;
        let to = (room.as_ref(), row.event.sender.as_ref());
        let staged = self.stage_notice(to, encryption, Wording::Public, text).await?;
        let mut tx = self.parts.db.begin().await?;
        tx.matrix_outbox().insert(&staged).await?;
        tx.matrix_inbox().mark_done(row.id).await?;
        tx.commit().await?;
        self.parts.outbox.ring(room);
        Ok(Step::Done)
    }

    /// Says something as the bot to somebody in a room that is no portal.
    pub(super) async fn answer(
        &self,
        (room, reader): (&RoomId, &UserId),
        encryption: RoomEncryption,
        text: &str,
    ) -> Result<(), StepError> {
        let to = (room, reader);
        let staged = self.stage_notice(to, encryption, Wording::Public, text).await?;
        let mut tx = self.parts.db.begin().await?;
        tx.matrix_outbox().insert(&staged).await?;
        tx.commit().await?;
        self.parts.outbox.ring(room);
        Ok(())
    }

    fn waited(&self, row: &InboxEvent) -> Duration {
        let waited = self.now_ms().saturating_sub(row.received_ms);
        Duration::from_millis(u64::try_from(waited).unwrap_or(0))
    }

    /// How much longer a missing room key may take; `None` when that is over.
    pub(super) fn key_may_take(&self, row: &InboxEvent) -> Option<Duration> {
        self.key_waits.left(&row.event.event_id, self.parts.clock.moment())
    }

    pub(super) async fn cannot_read(
        &self,
        row: &InboxEvent,
        portal: &Portal,
        error: DecryptError,
    ) -> Result<Step, StepError> {
        match error {
            DecryptError::MissingRoomKey { withheld } => {
                if let Some(left) = self.key_may_take(row) {
                    return Ok(Step::Wait(KEY_RETRY.min(left)));
                }
                let reason = withheld_words(withheld.as_deref());
                self.fail(portal, row, &reason).await?;
                self.key_waits.end(&row.event.event_id);
            }
            DecryptError::NotEncrypted => {
                self.fail(portal, row, "it was not encrypted, in an encrypted chat").await?;
            }
            DecryptError::Device(error) => return Err(error.into()),
            DecryptError::Forged | DecryptError::Malformed | DecryptError::Replayed => {
                tracing::warn!(error = %error, "portal.from_matrix.refused");
                return Ok(Step::Skip);
            }
        }
        Ok(Step::Done)
    }

    /// Steps 3 and 4.
    async fn send_to_contact(
        &self,
        row: &InboxEvent,
        portal: &Portal,
        message: Message,
    ) -> Result<Step, StepError> {
        let content = match content::read(&message.event_type, &message.content) {
            Ok(content) => content,
            Err(content::NotCarried(what)) => {
                let reason = format!("this bridge does not carry {what} yet");
                self.fail(portal, row, &reason).await?;
                return Ok(Step::Done);
            }
        };
        let outgoing = OutgoingMessage {
            inbox: Some(row.id),
            chat: chat_of(portal),
            id: remote_id(row.event.event_id.as_str()),
            content,
            security: message.security,
            plaintext: portal.plaintext,
        };
        failpoint!("w04_event_decrypted");
        match self.parts.remote.send(outgoing).await {
            Ok(sent) => {
                self.no_longer_waits(&row.event.event_id);
                self.tell_of_legs(portal, Direction::ToContact, sent.security).await;
                Ok(Step::Done)
            }
            Err(error) => self.cannot_send(row, portal, error).await,
        }
    }

    async fn cannot_send(
        &self,
        row: &InboxEvent,
        portal: &Portal,
        error: SendError,
    ) -> Result<Step, StepError> {
        match error {
            SendError::Held(hold) => {
                if self.expire_from_person(row, portal, Vain::Contact(&hold)).await? {
                    return Ok(Step::Done);
                }
                self.tell_held(portal, &hold).await?;
                self.tell_waiting(portal, &row.event.event_id, waiting_for(&hold)).await;
                Ok(Step::Wait(LOOK_AGAIN))
            }
            SendError::Unsupported(what) => {
                let reason = format!("this network cannot carry {what}");
                self.fail(portal, row, &reason).await?;
                Ok(Step::Done)
            }
            SendError::Rejected(reason) => {
                self.fail(portal, row, &reason).await?;
                Ok(Step::Done)
            }
            SendError::Temporary => {
                // The first try after a start may only have been too early.
                let was_tried = self.is_told_waiting(&row.event.event_id);
                if was_tried && self.expire_from_person(row, portal, Vain::Outage).await? {
                    return Ok(Step::Done);
                }
                let reason = "the contact's server does not answer";
                self.tell_waiting(portal, &row.event.event_id, reason).await;
                // Asked again after a quarter of the time that it has waited.
                let wait = self.waited(row) / 4;
                Ok(Step::Wait(wait.clamp(FIRST_RETRY, LOOK_AGAIN)))
            }
        }
    }

    async fn tell_unsigned_sender(&self, portal: &Portal) -> Result<(), StepError> {
        let text = "Your messages wait: the device you write from is not verified by you. Open \
            the settings of your client, set up cross-signing (in Element: Settings, Encryption) \
            and verify this device; then everything that waits is delivered.";
        self.tell_once(portal, UNSIGNED_SENDER, Wording::Public, text).await
    }
}

fn shorter(one: Option<Duration>, other: Duration) -> Duration {
    one.map_or(other, |one| one.min(other))
}

/// The id of a Matrix message on the other network: the same at every retry, and not the event's
/// own, which is nobody else's business.
fn remote_id(event_id: &str) -> RemoteMessageId {
    let digest = Sha256::new_with_prefix(b"gephyra message id\0").chain_update(event_id).finalize();
    RemoteMessageId::new(hex::encode(digest.get(..16).unwrap_or_default()))
}

pub(super) fn waiting_for(hold: &Hold) -> &'static str {
    match hold {
        Hold::NoEncryption => "the contact has no encryption",
        Hold::NoUsableDevice => "no device of the contact can be encrypted to",
        Hold::IdentityChanged { .. } => "the contact's identity has changed",
        Hold::NewDevices { .. } => "the contact's new device waits for your approval",
        Hold::NoTrustedDevice => "you have distrusted all devices of the contact",
        Hold::DistrustedByContact => "the contact has distrusted your encryption identity",
    }
}

/// Why a room key did not come. Spec: `m.room_key.withheld`.
fn withheld_words(code: Option<&str>) -> String {
    let why = match code {
        None => "your client did not send its key",
        Some("m.unverified") => "your client keeps its keys from unverified devices",
        Some("m.blacklisted") => "your client blocks this bridge's device",
        Some("m.unauthorised") => "your client says that this bridge may not read it",
        Some("m.no_olm") => "your client could not open a secure channel to this bridge",
        Some(_) => "your client withheld its key",
    };
    format!("it could not be decrypted, because {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_id_that_is_not_its_event_id() {
        let id = remote_id("$event");
        assert_eq!(id, remote_id("$event"));
        assert_ne!(id, remote_id("$other"));
        assert_eq!(id.as_str().len(), 32);
    }
}
