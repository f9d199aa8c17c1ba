//! What the bridge itself says in a room, always as the bot.

use ruma::{RoomId, TransactionId, UserId};
use serde_json::{Map, Value};

use super::{Hub, StepError, content, notices};
use crate::{
    matrix::EncryptError,
    network::{Author, ChatKey, MessageContent, OutgoingMessage, PlaintextPolicy, RemoteMessageId},
    network::{LegSecurity, RemoteUserId},
    store::{BotPresence, NewOutboxEvent, Notice, Portal, RoomEncryption, StoreError, Transaction},
};

/// How the bridge may say something in an encrypted room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wording {
    /// It may name what the room is about, so it is encrypted or not said.
    Private,
    /// It holds nothing of anybody's conversation: where it cannot be encrypted, it is said in
    /// the clear.
    Public,
}

/// The short words for what keeps messages of a person from leaving, whoever ends it.
pub(super) const WAITS: [&str; 4] =
    [UNSIGNED_SENDER, NO_ENCRYPTION, NO_USABLE_DEVICE, NO_TRUSTED_DEVICE];

/// The short word for a person's device that they have not signed.
pub(super) const UNSIGNED_SENDER: &str = "unsigned_sender";

/// The short word for a contact without encryption.
pub(super) const NO_ENCRYPTION: &str = "no_encryption";

/// The short word for a contact with no device that can be encrypted to.
pub(super) const NO_USABLE_DEVICE: &str = "no_usable_device";

/// The short word for a contact all of whose devices are distrusted.
pub(super) const NO_TRUSTED_DEVICE: &str = "no_trusted_device";

impl Hub {
    /// Makes the outbox row for an event in a room, encrypted for `reader` if the room is, and tells
    /// how it is protected. `write` makes its content, when that is known.
    pub(super) async fn stage(
        &self,
        sender: &UserId,
        (room, reader): (&RoomId, &UserId),
        encryption: RoomEncryption,
        event_type: &str,
        write: impl FnOnce(LegSecurity) -> Map<String, Value> + Send + 'static,
    ) -> Result<(NewOutboxEvent, LegSecurity), EncryptError> {
        if encryption == RoomEncryption::Plain {
            let content = Value::Object(write(LegSecurity::Plaintext)).to_string();
            let row = row(sender, room, event_type.to_owned(), content);
            return Ok((row, LegSecurity::Plaintext));
        }
        let write = |identity| write(LegSecurity::Encrypted { identity });
        let devices = &self.parts.devices;
        let sealed = devices.encrypt(sender, room, &[reader], event_type, write).await?;
        let row = row(sender, room, "m.room.encrypted".to_owned(), sealed.content.into_json());
        Ok((row, LegSecurity::Encrypted { identity: sealed.identity }))
    }

    /// The bot's words to `reader` as an outbox row.
    pub(super) async fn stage_notice(
        &self,
        (room, reader): (&RoomId, &UserId),
        encryption: RoomEncryption,
        wording: Wording,
        text: &str,
    ) -> Result<NewOutboxEvent, EncryptError> {
        let bot = self.parts.namespace.bot();
        let notice = content::notice(text);
        let staged =
            self.stage(bot, (room, reader), encryption, "m.room.message", |_| notice).await;
        match staged.map(|(row, _)| row) {
            Err(error) if wording == Wording::Public && error.waits_for_person() => {
                let content = Value::Object(content::notice(text)).to_string();
                Ok(row(bot, room, "m.room.message".to_owned(), content))
            }
            staged => staged,
        }
    }

    /// Says something as the bot.
    pub(super) async fn say(
        &self,
        portal: &Portal,
        wording: Wording,
        text: &str,
    ) -> Result<(), StepError> {
        let Some(staged) = self.stage_for_person(portal, wording, text).await? else {
            return Ok(());
        };
        let mut tx = self.parts.db.begin().await?;
        tx.matrix_outbox().insert(&staged).await?;
        tx.commit().await?;
        self.parts.outbox.ring(&portal.room_id);
        Ok(())
    }

    /// The bot's words to the person of a portal as an outbox row; `None` where the bot cannot
    /// speak at all. What it would have said must stop no message.
    pub(super) async fn stage_for_person(
        &self,
        portal: &Portal,
        wording: Wording,
        text: &str,
    ) -> Result<Option<NewOutboxEvent>, StepError> {
        self.ensure_bot(portal).await;
        match self.stage_notice(reader_of(portal), portal.encryption, wording, text).await {
            Ok(staged) => Ok(Some(staged)),
            Err(error) if error.is_final() => {
                tracing::warn!(error = %crate::error_chain(&error), "portal.say.given_up");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says something as the bot, once until it is forgotten with [`Self::forget_told`].
    pub(super) async fn tell_once(
        &self,
        portal: &Portal,
        kind: &str,
        wording: Wording,
        text: &str,
    ) -> Result<(), StepError> {
        self.tell_once_about(portal, kind, &[""], wording, text).await
    }

    /// As [`Self::tell_once`], once for these subjects: with a new one among them it is said again.
    pub(super) async fn tell_once_about(
        &self,
        portal: &Portal,
        kind: &str,
        subjects: &[&str],
        wording: Wording,
        text: &str,
    ) -> Result<(), StepError> {
        let scope = portal.room_id.as_str();
        let mut tx = self.parts.db.read().await?;
        let told = tx.notices().subjects(scope, kind).await?;
        drop(tx);
        if subjects.iter().all(|subject| told.iter().any(|known| known == subject)) {
            return Ok(());
        }
        let Some(staged) = self.stage_for_person(portal, wording, text).await? else {
            return Ok(());
        };
        let mut tx = self.parts.db.begin().await?;
        let mut is_news = false;
        for subject in subjects {
            is_news |= tx.notices().first_time(Notice { scope, subject, kind }).await?;
        }
        if is_news {
            tx.matrix_outbox().insert(&staged).await?;
        }
        tx.commit().await?;
        self.parts.outbox.ring(&portal.room_id);
        Ok(())
    }

    /// What was told has ended: if it happens again it will be told again.
    pub(super) async fn forget_told(
        tx: &mut Transaction,
        portal: &Portal,
        kinds: &[&str],
    ) -> Result<(), StepError> {
        for kind in kinds {
            tx.notices().forget(portal.room_id.as_str(), kind).await?;
        }
        Ok(())
    }

    /// A message of the person has left, so none waits: when one does again, they are told again.
    pub(super) async fn forget_waits(&self, portal: &Portal) -> Result<(), StepError> {
        let mut tx = self.parts.db.read().await?;
        let mut told = Vec::new();
        for kind in WAITS {
            if !tx.notices().subjects(portal.room_id.as_str(), kind).await?.is_empty() {
                told.push(kind);
            }
        }
        drop(tx);
        if told.is_empty() {
            return Ok(());
        }
        let mut tx = self.parts.db.begin().await?;
        Self::forget_told(&mut tx, portal, &told).await?;
        Ok(tx.commit().await?)
    }

    /// Tells both sides, once, that a bridge stands between them, and what each leg is.
    pub(super) async fn introduce(
        &self,
        portal: &Portal,
        remote_leg: LegSecurity,
    ) -> Result<(), StepError> {
        let text = notices::first_for_person(portal.encryption, remote_leg);
        self.tell_once(portal, "first", Wording::Private, &text).await?;
        let subject = portal.local.as_str();
        let notice = Notice { scope: portal.contact.as_str(), subject, kind: "first" };
        let text = notices::first_for_contact(&portal.local, portal.encryption, remote_leg);
        self.tell_contact_once(&portal.contact, notice, &text).await
    }

    /// The bot comes back to a portal that it was put out of, if it may.
    async fn ensure_bot(&self, portal: &Portal) {
        if portal.bot == BotPresence::Absent
            && let Err(error) = self.bring_bot(portal).await
        {
            tracing::info!(error = %crate::error_chain(&error), "portal.bot.not_joined");
        }
    }

    /// Tells a contact that the homeserver has refused a message of theirs for good. Returns whether it is told.
    pub(super) async fn tell_of_refusal(&self, user: &UserId, contact: &RemoteUserId) -> bool {
        let text = format!(
            "A message of yours to {user} was not delivered: the Matrix server refused it."
        );
        self.tell_contact(contact, "refused", &text).await
    }

    /// Says something to a contact, from the bridge's own address and never in a person's name,
    /// once until `notice` is forgotten. A contact who cannot be told now is told the next time.
    pub(super) async fn tell_contact_once(
        &self,
        contact: &RemoteUserId,
        notice: Notice<'_>,
        text: &str,
    ) -> Result<(), StepError> {
        // Looked at before the lock, which others may hold while they wait for a slow server.
        if self.is_told(notice).await? {
            return Ok(());
        }
        // Both directions of a chat may have the same to say at the same time.
        let key = (notice.scope, notice.kind);
        let tell = async {
            if !self.is_told(notice).await? && self.tell_contact(contact, notice.kind, text).await {
                let mut tx = self.parts.db.begin().await?;
                tx.notices().first_time(notice).await?;
                tx.commit().await?;
            }
            Ok(())
        };
        self.telling_contacts.alone(key, tell).await
    }

    async fn is_told(&self, notice: Notice<'_>) -> Result<bool, StoreError> {
        self.parts.db.read().await?.notices().is_told(notice).await
    }

    /// Whether it is on its way. It holds nothing of anybody's conversation, so a contact without
    /// encryption gets it too.
    pub(super) async fn tell_contact(
        &self,
        contact: &RemoteUserId,
        kind: &str,
        text: &str,
    ) -> bool {
        self.send_to_contact_as_bridge(contact, kind, text, PlaintextPolicy::Allow).await
    }

    /// As [`Self::tell_contact`], but encrypted or not at all.
    pub(super) async fn show_contact(&self, contact: &RemoteUserId, text: &str) -> bool {
        let kind = "verification";
        self.send_to_contact_as_bridge(contact, kind, text, PlaintextPolicy::Refuse).await
    }

    async fn send_to_contact_as_bridge(
        &self,
        contact: &RemoteUserId,
        kind: &str,
        text: &str,
        plaintext: PlaintextPolicy,
    ) -> bool {
        let message = OutgoingMessage {
            inbox: None,
            chat: ChatKey { local: Author::Bridge, contact: contact.clone() },
            id: RemoteMessageId::new(format!("gephyra-{kind}-{}", TransactionId::new())),
            content: MessageContent::Text { body: text.to_owned() },
            security: LegSecurity::Plaintext,
            plaintext,
        };
        match self.parts.remote.send(message).await {
            Ok(_) => true,
            Err(error) => {
                tracing::info!(error = %error, "portal.tell_contact.failed");
                false
            }
        }
    }
}

/// A portal is between one person and a contact: whoever else is in its room reads nothing.
pub(super) fn reader_of(portal: &Portal) -> (&RoomId, &UserId) {
    (&portal.room_id, &portal.local)
}

fn row(sender: &UserId, room: &RoomId, event_type: String, content: String) -> NewOutboxEvent {
    NewOutboxEvent {
        room_id: room.to_owned(),
        user_id: sender.to_owned(),
        event_type,
        txn_id: TransactionId::new(),
        content,
        reference: None,
    }
}
