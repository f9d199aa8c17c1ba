//! XMPP to Matrix, step 4: each chat of the remote inbox in order, messages and reports apart.
//!
//! A message that waits for a person holds back the messages behind it, not what else happened; and while the
//! homeserver is behind with what became of a person's messages, the contact's go on.

use async_trait::async_trait;
use ruma::{EventId, UserId};

use super::{
    Hub, LOOK_AGAIN, StepError,
    contact_commands::{UNAPPROVED, UNREADABLE},
    contact_trust::DISTRUSTED_BY_CONTACT,
    content,
    create_room::{NoRoom, is_usable},
    downgrade::{PLAINTEXT_REFUSED, Passage},
    expiry::Vain,
    leg_changes::Direction,
    legs::Legs,
    notices::contact_trust as words,
    own_identity::OWN_IDENTITY_CHANGED,
    say::{NO_ENCRYPTION, NO_TRUSTED_DEVICE, NO_USABLE_DEVICE, Wording, reader_of},
    status::is_progress,
};
use crate::{
    matrix::{EncryptError, MatrixError, SentReference},
    network::{
        Author, ChatKey, Hold, LegSecurity, MessageContent, RemoteEventKind, RemoteMessageId,
        RemoteUserId,
    },
    queue::{Drain, Drained},
    store::{DeliveryStatus, Lane, Notice, PendingRemoteEvent, Portal, PortalState, RemoteInboxId},
};

/// Messages loaded at a time: one may be large, and the queues of many chats work at the same time.
const MESSAGES: u32 = 1;

/// Reports loaded at a time: of what they say of one message only the newest is told.
pub(super) const REPORTS: u32 = 50;

/// The chat of a portal.
pub(super) fn chat_of(portal: &Portal) -> ChatKey {
    ChatKey { local: Author::Person(portal.local.clone()), contact: portal.contact.clone() }
}

/// What became of one event.
pub(super) enum Step {
    Done,
    /// It waits for a person, or until a contact can be told.
    Waits,
}

/// What of a chat's reports waits.
#[derive(Default)]
struct Waits {
    any: bool,
    /// How far messages have come: the homeserver does not take it.
    progress: bool,
}

/// A message as it came.
struct Message<'a> {
    id: Option<&'a RemoteMessageId>,
    content: &'a MessageContent,
    security: LegSecurity,
}

#[async_trait]
impl Drain<(ChatKey, Lane)> for Hub {
    #[tracing::instrument(name = "portal.from_remote", skip_all)]
    async fn drain(&self, (chat, lane): &(ChatKey, Lane)) -> Drained {
        let drained = match lane {
            Lane::Messages => self.drain_messages(chat).await,
            Lane::Reports => self.drain_reports(chat).await,
        };
        match drained {
            Ok(drained) => drained,
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "portal.from_remote.failed");
                Drained::Failed
            }
        }
    }
}

impl Hub {
    async fn drain_messages(&self, chat: &ChatKey) -> Result<Drained, StepError> {
        let mut last = None;
        while let Some(row) = self.load(chat, Lane::Messages, last, MESSAGES).await?.pop() {
            last = Some(row.id);
            // The messages behind one that waits do too, and are not even loaded.
            if matches!(self.take_event(&row).await?, Step::Waits) {
                return self.wait(chat, Lane::Messages).await;
            }
        }
        Ok(Drained::Empty)
    }

    async fn drain_reports(&self, chat: &ChatKey) -> Result<Drained, StepError> {
        let (mut last, mut waits) = (None, Waits::default());
        loop {
            let rows = self.load(chat, Lane::Reports, last, REPORTS).await?;
            let Some(newest) = rows.last() else { break };
            last = Some(newest.id);
            self.take_reports(chat, &rows, &mut waits).await?;
        }
        if waits.any { self.wait(chat, Lane::Reports).await } else { Ok(Drained::Empty) }
    }

    async fn load(
        &self,
        chat: &ChatKey,
        lane: Lane,
        after: Option<RemoteInboxId>,
        limit: u32,
    ) -> Result<Vec<PendingRemoteEvent>, StepError> {
        let mut tx = self.parts.db.read().await?;
        Ok(tx.remote_inbox().load_pending((chat, lane), after, limit).await?)
    }

    /// Reports in their order; what is said of messages of ours is taken together.
    async fn take_reports(
        &self,
        chat: &ChatKey,
        rows: &[PendingRemoteEvent],
        waits: &mut Waits,
    ) -> Result<(), StepError> {
        for rows in rows.chunk_by(|one, next| is_progress(one) && is_progress(next)) {
            match (&chat.local, rows) {
                (Author::Person(user), [first, ..]) if is_progress(first) => {
                    let portal = self.find_portal(user, &chat.contact).await?;
                    let portal = portal.filter(|_| self.may_use(user));
                    // What the homeserver did not take just now it will not take at once.
                    waits.progress =
                        waits.progress || !self.tell_progress(portal.as_ref(), rows).await?;
                    waits.any |= waits.progress;
                }
                _ => {
                    for row in rows {
                        waits.any |= matches!(self.take_event(row).await?, Step::Waits);
                    }
                }
            }
        }
        Ok(())
    }

    /// Everything that is open is known to wait.
    async fn wait(&self, chat: &ChatKey, lane: Lane) -> Result<Drained, StepError> {
        if self.parts.db.read().await?.remote_inbox().has_undated((chat, lane)).await? {
            let mut tx = self.parts.db.begin().await?;
            tx.remote_inbox().wait_from_now((chat, lane), self.now_ms()).await?;
            tx.commit().await?;
        }
        Ok(Drained::Blocked { retry_in: LOOK_AGAIN })
    }

    async fn take_event(&self, row: &PendingRemoteEvent) -> Result<Step, StepError> {
        failpoint!("w03_remote_event_pending");
        let contact = &row.event.chat.contact;
        let Author::Person(user) = &row.event.chat.local else {
            return self.take_for_bridge(row).await;
        };
        let RemoteEventKind::Message { id, content, security } = &row.event.kind else {
            return self.take_report(row, user, contact).await;
        };
        if !self.may_use(user) {
            return self.not_permitted(row, user).await;
        }
        let portal = match self.portal_to_tell_in(user, contact).await? {
            Ok(portal) => portal,
            Err(none) => return self.no_room(row, user, &none).await,
        };
        let message = Message { id: id.as_ref(), content, security: *security };
        self.deliver(row, &portal, message).await
    }

    /// The portal of a chat in which the person is to hear something.
    async fn portal_to_tell_in(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Result<Portal, NoRoom>, StepError> {
        match self.ensure_portal(user, contact).await {
            Err(StepError::Client(error)) if !error.is_temporary() => {
                Ok(Err(NoRoom::Refused(error)))
            }
            ensured => ensured,
        }
    }

    /// What a contact writes to the bridge itself.
    async fn take_for_bridge(&self, row: &PendingRemoteEvent) -> Result<Step, StepError> {
        match &row.event.kind {
            RemoteEventKind::Message { content, security, .. } => {
                self.obey_contact(row, content, *security).await?;
                Ok(Step::Done)
            }
            RemoteEventKind::Undecryptable { .. } => self.cannot_obey(row, UNREADABLE).await,
            RemoteEventKind::Held(_) | RemoteEventKind::Expired => {
                self.cannot_obey(row, UNAPPROVED).await
            }
            _ => self.end(row).await,
        }
    }

    /// What became of messages to the contact, and what waits for whom.
    async fn take_report(
        &self,
        row: &PendingRemoteEvent,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Step, StepError> {
        if row.event.kind == RemoteEventKind::NotTaken {
            if !self.tell_of_refusal(user, contact).await && !self.has_waited_too_long(row) {
                return Ok(Step::Waits);
            }
            return self.end(row).await;
        }
        let portal = self.find_portal(user, contact).await?;
        if !portal.as_ref().is_some_and(is_usable) && self.has_message_before(row).await? {
            // There will be a room for that one.
            return Ok(Step::Waits);
        }
        if matches!(row.event.kind, RemoteEventKind::Held(_)) {
            return self.take_held(row, user, contact).await;
        }
        let Some(portal) = portal.filter(|_| self.may_use(user)) else {
            return self.end(row).await;
        };
        if is_progress(row) {
            // Of before there were lanes: it stands among the messages.
            let ended = self.tell_progress(Some(&portal), std::slice::from_ref(row)).await?;
            return Ok(if ended { Step::Done } else { Step::Waits });
        }
        if row.event.kind == RemoteEventKind::Expired {
            let ended = self.give_up_from_contact(row, &portal, Vain::ContactsDevice).await?;
            return Ok(if ended { Step::Done } else { Step::Waits });
        }
        self.tell_person(&portal, row).await
    }

    /// Something waits for the person's decision. That is said once, so there is a room to say it in, as for a message.
    async fn take_held(
        &self,
        row: &PendingRemoteEvent,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Step, StepError> {
        if !self.may_use(user) {
            return self.not_permitted(row, user).await;
        }
        match self.portal_to_tell_in(user, contact).await? {
            Ok(portal) => self.tell_person(&portal, row).await,
            Err(none) => self.no_room(row, user, &none).await,
        }
    }

    async fn tell_person(
        &self,
        portal: &Portal,
        row: &PendingRemoteEvent,
    ) -> Result<Step, StepError> {
        match self.tell_of(portal, row).await {
            Ok(()) => Ok(Step::Done),
            Err(StepError::Encrypt(error)) if error.waits_for_person() => Ok(Step::Waits),
            Err(error) => Err(error),
        }
    }

    async fn has_message_before(&self, row: &PendingRemoteEvent) -> Result<bool, StepError> {
        let mut tx = self.parts.db.read().await?;
        Ok(tx.remote_inbox().has_message_before(&row.event.chat, row.id).await?)
    }

    pub(super) async fn end(&self, row: &PendingRemoteEvent) -> Result<Step, StepError> {
        self.end_row(row).await?;
        Ok(Step::Done)
    }

    pub(super) async fn end_row(&self, row: &PendingRemoteEvent) -> Result<(), StepError> {
        let mut tx = self.parts.db.begin().await?;
        tx.remote_inbox().mark_done(row.id).await?;
        Ok(tx.commit().await?)
    }

    async fn deliver(
        &self,
        row: &PendingRemoteEvent,
        portal: &Portal,
        message: Message<'_>,
    ) -> Result<Step, StepError> {
        let policy = self.parts.policy.plaintext_from_contacts;
        let passage = Passage::of(portal, message.security, policy);
        if passage == Passage::Refused {
            self.tell_plaintext_refused(portal).await?;
            return self.end(row).await;
        }
        if self.is_distrusted(portal).await? {
            return self.wait_for_contact(row, portal).await;
        }
        let marked = passage == Passage::Marked;
        let written = content::to_matrix(message.content, message.security, marked);
        let (remote, protocol) = (message.security, self.remote_encryption());
        let write = move |matrix| {
            let mut written = written;
            Legs { matrix, remote }.write_into(&mut written, protocol);
            written
        };
        let staged = self
            .stage(&portal.ghost, reader_of(portal), portal.encryption, "m.room.message", write)
            .await;
        let (mut staged, matrix_leg) = match staged {
            Ok(staged) => staged,
            Err(error) => return self.cannot_encrypt(row, portal, error).await,
        };
        let reference = SentReference {
            chat: row.event.chat.clone(),
            remote_id: message.id.cloned(),
            matrix_leg,
            remote_leg: message.security,
        };
        staged.reference = reference.to_text();
        failpoint!("w06_event_encrypted");
        let mut tx = self.parts.db.begin().await?;
        if tx.contact_decisions().is_distrusted(&row.event.chat).await? {
            // It was decided a moment ago: what was encrypted leaves nowhere.
            drop(tx);
            return self.wait_for_contact(row, portal).await;
        }
        tx.matrix_outbox().insert(&staged).await?;
        tx.remote_inbox().mark_done(row.id).await?;
        Self::forget_told(&mut tx, portal, &["no_signed_device", OWN_IDENTITY_CHANGED]).await?;
        if message.security != LegSecurity::Plaintext {
            tx.portals().encryption_was_used(&portal.network, &row.event.chat).await?;
            Self::forget_told(&mut tx, portal, &[PLAINTEXT_REFUSED]).await?;
        }
        let committed = tx.commit().await;
        failpoint!("w06_event_committed");
        // Rung also where the confirmation was lost: the event may be there, and nobody comes back to it.
        self.parts.outbox.ring(&portal.room_id);
        committed?;
        self.tell_of_legs(portal, Direction::FromContact, message.security).await;
        Ok(Step::Done)
    }

    /// A message between a person and a contact who has distrusted them.
    async fn wait_for_contact(
        &self,
        row: &PendingRemoteEvent,
        portal: &Portal,
    ) -> Result<Step, StepError> {
        let hold = Hold::DistrustedByContact;
        if self.expire_from_contact(row, portal, Vain::Contact(&hold)).await? {
            return Ok(Step::Done);
        }
        self.tell_held(portal, &hold).await?;
        Ok(Step::Waits)
    }

    /// What is told of the legs is no part of a message's way: what fails is tried with the next one.
    pub(super) async fn tell_of_legs(
        &self,
        portal: &Portal,
        direction: Direction,
        remote_leg: LegSecurity,
    ) {
        let told = async {
            self.introduce(portal, remote_leg).await?;
            if direction == Direction::ToContact {
                self.forget_waits(portal).await?;
            }
            self.note_leg(portal, direction, remote_leg).await
        };
        if let Err(error) = told.await {
            tracing::debug!(error = %crate::error_chain(&error), "portal.tell_of_legs.failed");
        }
    }

    async fn cannot_encrypt(
        &self,
        row: &PendingRemoteEvent,
        portal: &Portal,
        error: EncryptError,
    ) -> Result<Step, StepError> {
        match error {
            EncryptError::NoSignedDevice => {
                if self.expire_from_contact(row, portal, Vain::NoSignedDevice).await? {
                    return Ok(Step::Done);
                }
                self.tell_no_signed_device(portal).await?;
                Ok(Step::Waits)
            }
            EncryptError::IdentityChanged => {
                if self.expire_from_contact(row, portal, Vain::OwnIdentity).await? {
                    return Ok(Step::Done);
                }
                self.tell_identity_changed(portal).await?;
                Ok(Step::Waits)
            }
            EncryptError::Device(error) => {
                if is_put_out(&error) {
                    // The message goes to another room.
                    let mut tx = self.parts.db.begin().await?;
                    tx.portals().set_state(&portal.room_id, PortalState::Closed).await?;
                    tx.commit().await?;
                }
                Err(error.into())
            }
        }
    }

    pub(super) async fn tell_no_signed_device(&self, portal: &Portal) -> Result<(), StepError> {
        let text = "Messages wait here: none of your devices is verified by you. Open the \
            settings of your client, set up cross-signing (in Element: Settings, Encryption) and \
            verify this device; then everything that waits is delivered.";
        self.tell_once(portal, "no_signed_device", Wording::Public, text).await
    }

    /// Tells what is not a message, and ends it.
    async fn tell_of(&self, portal: &Portal, row: &PendingRemoteEvent) -> Result<(), StepError> {
        match &row.event.kind {
            RemoteEventKind::Failed { id, reason } => {
                return self.tell_failed(portal, row, id, reason).await;
            }
            RemoteEventKind::Undecryptable { reason } => {
                let words = format!("A message of your contact could not be decrypted: {reason}");
                return self.end_with_words(portal, row, &words, None).await;
            }
            RemoteEventKind::Held(hold) => self.tell_held(portal, hold).await?,
            RemoteEventKind::GivenUp { fingerprint } => {
                let scope = portal.room_id.as_str();
                let mut tx = self.parts.db.begin().await?;
                for kind in [CONTACT_CHANGED, NEW_DEVICES] {
                    let notice = Notice { scope, subject: fingerprint, kind };
                    tx.notices().forget_about(notice).await?;
                }
                tx.commit().await?;
            }
            RemoteEventKind::Refused { fingerprint } => {
                self.tell_refused(portal, fingerprint).await?;
            }
            // They have ways of their own.
            RemoteEventKind::Message { .. }
            | RemoteEventKind::Expired
            | RemoteEventKind::NotTaken
            | RemoteEventKind::Accepted { .. }
            | RemoteEventKind::Delivered { .. } => {}
        }
        self.end_row(row).await
    }

    /// What the bot says is in the outbox with the end of the event: it is said once. So is that a
    /// message of ours has failed, where it is about one.
    pub(super) async fn end_with_words(
        &self,
        portal: &Portal,
        row: &PendingRemoteEvent,
        words: &str,
        failed: Option<&EventId>,
    ) -> Result<(), StepError> {
        let staged = self.stage_for_person(portal, Wording::Private, words).await?;
        let mut tx = self.parts.db.begin().await?;
        if let Some(failed) = failed {
            tx.message_map().set_status(failed, DeliveryStatus::Failed).await?;
        }
        if let Some(staged) = &staged {
            tx.matrix_outbox().insert(staged).await?;
        }
        tx.remote_inbox().mark_done(row.id).await?;
        let committed = tx.commit().await;
        self.parts.outbox.ring(&portal.room_id);
        Ok(committed?)
    }

    /// Says once what messages of this chat wait for; every new fingerprint is said, because only
    /// what was said can be approved.
    pub(super) async fn tell_held(&self, portal: &Portal, hold: &Hold) -> Result<(), StepError> {
        let (kind, text) = held_words(hold);
        let subjects: Vec<&str> = match hold {
            Hold::IdentityChanged { fingerprints } | Hold::NewDevices { fingerprints } => {
                fingerprints.iter().map(String::as_str).collect()
            }
            Hold::NoEncryption
            | Hold::NoUsableDevice
            | Hold::NoTrustedDevice
            | Hold::DistrustedByContact => vec![""],
        };
        self.tell_once_about(portal, kind, &subjects, Wording::Public, &text).await?;
        match hold {
            Hold::DistrustedByContact => self.tell_contact_of_distrust(portal).await,
            _ => Ok(()),
        }
    }

    /// Says once for each device that what it sends is not delivered.
    async fn tell_refused(&self, portal: &Portal, fingerprint: &str) -> Result<(), StepError> {
        let text = format!(
            "A device of your contact that you have distrusted has sent something. It is not \
             delivered, and neither is what follows from this device. To trust it again, compare \
             its fingerprint with your contact and write “!xmpp trust” with it.\n{fingerprint}"
        );
        self.tell_once_about(portal, DISTRUSTED, &[fingerprint], Wording::Public, &text).await
    }
}

/// The short word for changed identities of a contact that wait for approval.
pub(super) const CONTACT_CHANGED: &str = "contact_identity_changed";

/// The short word for new devices of a contact that wait for approval.
pub(super) const NEW_DEVICES: &str = "contact_new_devices";

/// The short word for a distrusted device that has sent something.
pub(super) const DISTRUSTED: &str = "distrusted_device";

/// The short word of a hold, and what it means.
pub(super) fn held_words(hold: &Hold) -> (&'static str, String) {
    match hold {
        Hold::NoEncryption => (
            NO_ENCRYPTION,
            "Your messages wait: your contact's client offers no encryption. They are sent as \
             soon as it does. To send them unencrypted from the bridge on, write “!xmpp plaintext \
             allow”."
                .to_owned(),
        ),
        Hold::NoUsableDevice => (
            NO_USABLE_DEVICE,
            "Your messages wait: none of your contact's devices can be encrypted to at the \
             moment. They are sent as soon as one can."
                .to_owned(),
        ),
        Hold::NoTrustedDevice => (
            NO_TRUSTED_DEVICE,
            "Your messages wait: you have distrusted all devices of your contact. They are sent \
             as soon as there is one that you trust; “!xmpp devices” lists them."
                .to_owned(),
        ),
        Hold::DistrustedByContact => (DISTRUSTED_BY_CONTACT, words::DISTRUSTED.to_owned()),
        Hold::NewDevices { fingerprints } => (
            NEW_DEVICES,
            format!(
                "Your contact, whom you have verified, has a new device. It gets nothing, and what \
                 it sends waits. Compare its fingerprint with your contact and write “!xmpp trust” \
                 with it; “!xmpp approve” lets it in without a comparison, “!xmpp distrust” keeps \
                 it out.\n{}",
                fingerprints.join("\n")
            ),
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

/// Whether the ghost cannot speak in the room any more.
fn is_put_out(error: &MatrixError) -> bool {
    match error {
        MatrixError::NotThere => true,
        MatrixError::Client(error) => {
            error.is_not_found() || error.errcode() == Some("M_FORBIDDEN")
        }
        _ => false,
    }
}
