//! XMPP to Matrix, step 4: one chat of the remote inbox at a time, in order.
//!
//! A message that waits for a person holds back the messages behind it, not what else happened.

use async_trait::async_trait;
use ruma::UserId;

use super::{
    Hub, LOOK_AGAIN, RETRY, StepError, content,
    say::{Wording, reader_of},
    status::Fate,
};
use crate::{
    matrix::{EncryptError, SentReference},
    network::{
        Author, ChatKey, Hold, IdentityTrust, LegSecurity, MessageContent, RemoteEventKind,
        RemoteMessageId, RemoteUserId,
    },
    queue::{Drain, Drained},
    store::{DeliveryStatus, Notice, PendingRemoteEvent, Portal, RoomEncryption},
};

/// Rows looked at in one go.
const BATCH: u32 = 500;

/// The chat of a portal.
pub(super) fn chat_of(portal: &Portal) -> ChatKey {
    ChatKey { local: Author::Person(portal.local.clone()), contact: portal.contact.clone() }
}

/// What became of one event.
enum Step {
    Done,
    /// It waits for a person, and so do the messages behind it.
    Waits,
}

/// A message as it came.
struct Message<'a> {
    id: Option<&'a RemoteMessageId>,
    content: &'a MessageContent,
    security: LegSecurity,
}

#[async_trait]
impl Drain<ChatKey> for Hub {
    #[tracing::instrument(name = "portal.from_remote", skip_all)]
    async fn drain(&self, chat: &ChatKey) -> Drained {
        match self.drain_chat(chat).await {
            Ok(drained) => drained,
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "portal.from_remote.failed");
                Drained::Blocked { retry_in: RETRY }
            }
        }
    }
}

impl Hub {
    async fn drain_chat(&self, chat: &ChatKey) -> Result<Drained, StepError> {
        loop {
            let mut tx = self.parts.db.read().await?;
            let pending = tx.remote_inbox().load_pending(chat, BATCH).await?;
            drop(tx);
            if pending.is_empty() {
                return Ok(Drained::Empty);
            }
            let mut waits = false;
            for event in &pending {
                let is_message = matches!(event.event.kind, RemoteEventKind::Message { .. });
                if waits && is_message {
                    continue;
                }
                waits |= matches!(self.take_event(event).await?, Step::Waits);
            }
            if waits {
                return Ok(Drained::Blocked { retry_in: LOOK_AGAIN });
            }
        }
    }

    async fn take_event(&self, row: &PendingRemoteEvent) -> Result<Step, StepError> {
        let Author::Person(user) = &row.event.chat.local else {
            return self.end(row).await;
        };
        if !self.may_use(user) {
            tracing::info!("portal.from_remote.not_permitted");
            if matches!(row.event.kind, RemoteEventKind::Message { .. }) {
                self.tell_not_permitted(&row.event.chat.contact, user).await?;
            }
            return self.end(row).await;
        }
        let contact = &row.event.chat.contact;
        if let RemoteEventKind::Message { id, content, security } = &row.event.kind {
            let portal = match self.ensure_portal(user, contact).await? {
                Ok(portal) => portal,
                Err(too_long) => {
                    tracing::warn!(error = %too_long, "portal.from_remote.no_ghost");
                    return self.end(row).await;
                }
            };
            let message = Message { id: id.as_ref(), content, security: *security };
            return self.deliver(row, &portal, message).await;
        }
        let mut tx = self.parts.db.read().await?;
        let portal = tx.portals().find_by_chat(self.parts.network.name(), user, contact).await?;
        drop(tx);
        if let Some(portal) = portal {
            self.tell_of(&portal, &row.event.kind).await?;
        }
        self.end(row).await
    }

    async fn end(&self, row: &PendingRemoteEvent) -> Result<Step, StepError> {
        let mut tx = self.parts.db.begin().await?;
        tx.remote_inbox().mark_done(row.id).await?;
        tx.commit().await?;
        Ok(Step::Done)
    }

    async fn deliver(
        &self,
        row: &PendingRemoteEvent,
        portal: &Portal,
        message: Message<'_>,
    ) -> Result<Step, StepError> {
        let encrypted = portal.encryption == RoomEncryption::Encrypted;
        let written = content::to_matrix(message.content, message.security, encrypted);
        let staged = self
            .stage(&portal.ghost, reader_of(portal), portal.encryption, "m.room.message", written)
            .await;
        let mut staged = match staged {
            Ok(staged) => staged,
            Err(error) => return self.cannot_encrypt(portal, error).await,
        };
        let matrix_leg = if encrypted {
            LegSecurity::Encrypted { identity: IdentityTrust::Pinned }
        } else {
            LegSecurity::Plaintext
        };
        let reference = SentReference {
            chat: row.event.chat.clone(),
            remote_id: message.id.cloned(),
            matrix_leg,
            remote_leg: message.security,
        };
        staged.reference = reference.to_text();
        let mut tx = self.parts.db.begin().await?;
        tx.matrix_outbox().insert(&staged).await?;
        tx.remote_inbox().mark_done(row.id).await?;
        Self::forget_told(&mut tx, portal, &["no_signed_device", "own_identity_changed"]).await?;
        tx.commit().await?;
        self.parts.outbox.ring(&portal.room_id);
        if message.security != LegSecurity::Plaintext {
            self.end_plaintext(portal).await?;
        }
        self.introduce_or_log(portal).await;
        Ok(Step::Done)
    }

    /// The introduction is no part of a message's way: what fails is tried with the next one.
    pub(super) async fn introduce_or_log(&self, portal: &Portal) {
        if let Err(error) = self.introduce(portal).await {
            tracing::debug!(error = %crate::error_chain(&error), "portal.introduce.failed");
        }
    }

    async fn cannot_encrypt(
        &self,
        portal: &Portal,
        error: EncryptError,
    ) -> Result<Step, StepError> {
        match error {
            EncryptError::NoSignedDevice => {
                self.tell_no_signed_device(portal).await?;
                Ok(Step::Waits)
            }
            EncryptError::IdentityChanged => {
                self.tell_identity_changed(portal).await?;
                Ok(Step::Waits)
            }
            EncryptError::Device(error) => Err(error.into()),
        }
    }

    pub(super) async fn tell_no_signed_device(&self, portal: &Portal) -> Result<(), StepError> {
        let text = "Messages wait here: none of your devices is verified by you. Open the \
            settings of your client, set up cross-signing (in Element: Settings, Encryption) and \
            verify this device; then everything that waits is delivered.";
        self.tell_once(portal, "no_signed_device", Wording::Public, text).await
    }

    /// The contact's client has shown the message as delivered, because the bridge has it.
    async fn tell_not_permitted(
        &self,
        contact: &RemoteUserId,
        user: &UserId,
    ) -> Result<(), StepError> {
        let notice =
            Notice { scope: contact.as_str(), subject: user.as_str(), kind: "not_permitted" };
        let text = "Your message was not delivered: the person you wrote to does not use this \
            bridge.";
        self.tell_contact_once(contact, notice, text).await
    }

    /// Both sides learn that the Matrix user's identity is another one, once each.
    pub(super) async fn tell_identity_changed(&self, portal: &Portal) -> Result<(), StepError> {
        let text = "Your encryption identity has changed. If you have reset it yourself, write \
            “!xmpp approve” here, and what waits is delivered. If you have not, somebody else may \
            be using your account: do not approve it.";
        self.tell_once(portal, "own_identity_changed", Wording::Public, text).await?;
        let notice = Notice {
            scope: portal.contact.as_str(),
            subject: portal.local.as_str(),
            kind: "matrix_identity_changed",
        };
        let text = "The Matrix identity of somebody you talk to has changed. Messages wait until \
            they have approved it.";
        self.tell_contact_once(&portal.contact, notice, text).await
    }

    /// What is not a message.
    async fn tell_of(&self, portal: &Portal, kind: &RemoteEventKind) -> Result<(), StepError> {
        match kind {
            RemoteEventKind::Message { .. } => Ok(()),
            RemoteEventKind::Accepted { id, .. } => {
                self.report(portal, id, DeliveryStatus::Sent, Fate::Sent).await.map(drop)
            }
            RemoteEventKind::Delivered { id } => {
                self.report(portal, id, DeliveryStatus::Delivered, Fate::Delivered).await.map(drop)
            }
            RemoteEventKind::Failed { id, reason } => {
                let fate = Fate::Failed(reason);
                if self.report(portal, id, DeliveryStatus::Failed, fate).await? {
                    let words = format!("A message of yours was not delivered: {reason}");
                    self.say(portal, Wording::Private, &words).await;
                }
                Ok(())
            }
            RemoteEventKind::Undecryptable { reason } => {
                let words = format!("A message of your contact could not be decrypted: {reason}");
                self.say(portal, Wording::Private, &words).await;
                Ok(())
            }
            RemoteEventKind::Held(hold) => self.tell_held(portal, hold).await,
        }
    }

    /// Says once what messages of this chat wait for; every new fingerprint is said, because only
    /// what was said can be approved.
    pub(super) async fn tell_held(&self, portal: &Portal, hold: &Hold) -> Result<(), StepError> {
        let (kind, text) = held_words(hold);
        let subjects: Vec<&str> = match hold {
            Hold::IdentityChanged { fingerprints } => {
                fingerprints.iter().map(String::as_str).collect()
            }
            Hold::NoEncryption | Hold::NoUsableDevice => vec![""],
        };
        self.tell_once_about(portal, kind, &subjects, Wording::Public, &text).await
    }

    /// A ghost or the bot that the homeserver asks for is made when its name means something.
    pub(super) async fn ensure_user(&self, user: &UserId) -> bool {
        let namespace = &self.parts.namespace;
        let is_known = user == namespace.bot() || self.contact_of_ghost(user).is_some();
        if !is_known {
            return false;
        }
        match self.parts.devices.ensure_published(user).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "portal.ghost.failed");
                false
            }
        }
    }
}

/// The short word for fingerprints of a contact that wait for approval.
pub(super) const CONTACT_CHANGED: &str = "contact_identity_changed";

/// The short word of a hold, and what it means.
pub(super) fn held_words(hold: &Hold) -> (&'static str, String) {
    match hold {
        Hold::NoEncryption => (
            "no_encryption",
            "Your messages wait: your contact's client offers no encryption. They are sent as \
             soon as it does. To send them unencrypted from the bridge on, write “!xmpp plaintext \
             allow”."
                .to_owned(),
        ),
        Hold::NoUsableDevice => (
            "no_usable_device",
            "Your messages wait: none of your contact's devices can be encrypted to at the \
             moment. They are sent as soon as one can."
                .to_owned(),
        ),
        Hold::IdentityChanged { fingerprints } => (
            CONTACT_CHANGED,
            format!(
                "Messages wait: the encryption identity of your contact has changed. Compare the \
                 new fingerprint with them, then write “!xmpp approve”.\n{}",
                fingerprints.join("\n")
            ),
        ),
    }
}
