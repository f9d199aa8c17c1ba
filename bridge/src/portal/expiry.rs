//! Messages that have waited too long are given up, and both sides are told.
//!
//! Nothing is given up before it was tried once more: what a person has decided meanwhile counts.

use std::time::Duration;

use super::{Hub, StepError, from_matrix::waiting_for, say::Wording, status::Fate};
use crate::{
    network::{Hold, RemoteUserId},
    store::{InboxEvent, NewOutboxEvent, Notice, PendingRemoteEvent, Portal, Transaction},
};

/// What is given up, or not delivered, within this time after a notice needs no other: it is one batch.
const BATCH: Duration = Duration::from_secs(60 * 60);

/// The short word for messages of a person that were given up.
const FROM_PERSON: &str = "expired_from_person";

/// The short word for messages of a contact that were given up.
const FROM_CONTACT: &str = "expired_from_contact";

/// What a message has waited for in vain.
#[derive(Clone, Copy)]
pub(super) enum Vain<'a> {
    /// That the person signs the device it was written from.
    UnsignedDevice,
    /// That the person has a signed device to encrypt to.
    NoSignedDevice,
    /// That the person approves their own identity.
    OwnIdentity,
    /// That the contact can be encrypted to, or trusts the person again.
    Contact(&'a Hold),
    /// That the person decides about the contact's device that sent it.
    ContactsDevice,
    /// That the contact's server answers.
    Outage,
}

impl Vain<'_> {
    /// Why it waited, for the person.
    fn for_person(self) -> &'static str {
        match self {
            Self::UnsignedDevice => "you have not verified the device they were written from",
            Self::NoSignedDevice => "none of your devices is verified by you",
            Self::OwnIdentity => "you have not approved your new encryption identity",
            Self::Contact(hold) => waiting_for(hold),
            Self::ContactsDevice => "you have not decided about the device they came from",
            Self::Outage => "the contact's server does not answer",
        }
    }

    /// Why it waited, for the contact. `None` where it is nothing to them: they cannot be told,
    /// or it is not known to be the person's.
    fn for_contact(self) -> Option<&'static str> {
        Some(match self {
            Self::UnsignedDevice | Self::Outage => return None,
            Self::NoSignedDevice => "they have no verified device",
            Self::OwnIdentity => "they have not approved their own new encryption identity",
            Self::ContactsDevice => "they have not approved the device that you wrote them from",
            Self::Contact(Hold::NoEncryption) => "your client offers no encryption",
            Self::Contact(Hold::NoUsableDevice) => "none of your devices can be encrypted to",
            Self::Contact(Hold::NoTrustedDevice) => "they trust none of your devices",
            Self::Contact(Hold::DistrustedByContact) => {
                "you have distrusted their encryption identity"
            }
            Self::Contact(Hold::NewDevices { .. }) => "they have not approved your new device",
            Self::Contact(Hold::IdentityChanged { .. }) => {
                "your encryption identity has changed, and they have not approved it"
            }
        })
    }
}

impl Hub {
    /// Gives a message of a person up if it has waited too long. Returns whether it has.
    ///
    /// The end of the message and the notice to its author are one commit.
    pub(super) async fn expire_from_person(
        &self,
        row: &InboxEvent,
        portal: &Portal,
        vain: Vain<'_>,
    ) -> Result<bool, StepError> {
        if !self.is_over(row.received_ms) {
            return Ok(false);
        }
        let (time, why) = (self.parts.policy.hold_hours, vain.for_person());
        if let Some(reason) = vain.for_contact() {
            let text = format!(
                "Messages that {} wrote to you have waited for {time} and are given up: {reason}.",
                portal.local
            );
            let notice = to_contact(portal, FROM_PERSON);
            self.tell_contact_of_batch(&portal.contact, notice, &text).await?;
        }
        let text = format!(
            "Messages of yours have waited for {time} and are given up: {why}. They are not \
             delivered any more; what you still want to say, send again."
        );
        let staged = self.stage_for_batch(portal, FROM_PERSON, &text).await?;
        let mut tx = self.parts.db.begin().await?;
        tx.matrix_inbox().mark_done(row.id).await?;
        self.insert_for_batch(&mut tx, portal, FROM_PERSON, staged).await?;
        tx.commit().await?;
        self.parts.outbox.ring(&portal.room_id);
        self.no_longer_waits(&row.event.event_id);
        let reason = format!("it has waited for {time}: {why}");
        self.set_fate(portal, &row.event.event_id, Fate::Failed(&reason)).await;
        Ok(true)
    }

    /// Gives a message of a contact up if it has waited too long. Returns whether it has.
    pub(super) async fn expire_from_contact(
        &self,
        row: &PendingRemoteEvent,
        portal: &Portal,
        vain: Vain<'_>,
    ) -> Result<bool, StepError> {
        match row.waits_since_ms {
            Some(since_ms) if self.is_over(since_ms) => {
                self.give_up_from_contact(row, portal, vain).await
            }
            _ => Ok(false),
        }
    }

    /// Ends an event of a contact's chat with which messages of the contact are given up. Returns
    /// whether it has: it stays until its author could be told.
    pub(super) async fn give_up_from_contact(
        &self,
        row: &PendingRemoteEvent,
        portal: &Portal,
        vain: Vain<'_>,
    ) -> Result<bool, StepError> {
        let (time, why) = (self.parts.policy.hold_hours, vain.for_person());
        if let Some(reason) = vain.for_contact() {
            let text = format!(
                "Messages that you wrote to {} have waited for {time} and were not delivered: \
                 {reason}. What you still want to say, send again.",
                portal.local
            );
            let notice = to_contact(portal, FROM_CONTACT);
            if !self.tell_contact_of_batch(&portal.contact, notice, &text).await? {
                return Ok(false);
            }
        }
        let text = format!(
            "Messages of your contact have waited for {time} and are given up: {why}. Your contact \
             is told."
        );
        let staged = self.stage_for_batch(portal, FROM_CONTACT, &text).await?;
        let mut tx = self.parts.db.begin().await?;
        tx.remote_inbox().mark_done(row.id).await?;
        self.insert_for_batch(&mut tx, portal, FROM_CONTACT, staged).await?;
        tx.commit().await?;
        self.parts.outbox.ring(&portal.room_id);
        Ok(true)
    }

    /// Whether what waits since this time (milliseconds since 1970) has waited too long, by a clock that was not set
    /// of late.
    pub(super) fn is_over(&self, since_ms: i64) -> bool {
        let hold = self.parts.policy.hold_hours.as_duration();
        let waited_ms = self.now_ms().saturating_sub(since_ms);
        let is_over = u128::try_from(waited_ms).unwrap_or_default() >= hold.as_millis();
        is_over && self.parts.clock.is_settled()
    }

    fn batch_began_ms(&self) -> i64 {
        let batch_ms = i64::try_from(BATCH.as_millis()).unwrap_or(i64::MAX);
        self.now_ms().saturating_sub(batch_ms)
    }

    async fn is_told_of_batch(&self, notice: Notice<'_>) -> Result<bool, StepError> {
        let (since_ms, now_ms) = (self.batch_began_ms(), self.now_ms());
        let mut tx = self.parts.db.read().await?;
        Ok(tx.notices().is_told_since(notice, since_ms, now_ms).await?)
    }

    /// The bot's notice of a batch; `None` when it was given already.
    async fn stage_for_batch(
        &self,
        portal: &Portal,
        kind: &str,
        text: &str,
    ) -> Result<Option<NewOutboxEvent>, StepError> {
        if self.is_told_of_batch(to_person(portal, kind)).await? {
            return Ok(None);
        }
        self.stage_for_person(portal, Wording::Public, text).await
    }

    async fn insert_for_batch(
        &self,
        tx: &mut Transaction,
        portal: &Portal,
        kind: &str,
        staged: Option<NewOutboxEvent>,
    ) -> Result<(), StepError> {
        let (notice, since_ms) = (to_person(portal, kind), self.batch_began_ms());
        if let Some(staged) = staged
            && tx.notices().first_time_since(notice, since_ms, self.now_ms()).await?
        {
            tx.matrix_outbox().insert(&staged).await?;
        }
        Ok(())
    }

    /// Tells a contact of a batch, once. Returns whether they are told.
    pub(super) async fn tell_contact_of_batch(
        &self,
        contact: &RemoteUserId,
        notice: Notice<'_>,
        text: &str,
    ) -> Result<bool, StepError> {
        // Looked at before the lock, which others may hold while they wait for a slow server.
        if self.is_told_of_batch(notice).await? {
            return Ok(true);
        }
        let tell = async {
            if self.is_told_of_batch(notice).await? {
                return Ok(true);
            }
            if !self.tell_contact(contact, notice.kind, text).await {
                return Ok(false);
            }
            let since_ms = self.batch_began_ms();
            let mut tx = self.parts.db.begin().await?;
            tx.notices().first_time_since(notice, since_ms, self.now_ms()).await?;
            tx.commit().await?;
            Ok(true)
        };
        self.telling_contacts.alone((notice.scope, notice.kind), tell).await
    }
}

fn to_contact<'a>(portal: &'a Portal, kind: &'a str) -> Notice<'a> {
    Notice { scope: portal.contact.as_str(), subject: portal.local.as_str(), kind }
}

fn to_person<'a>(portal: &'a Portal, kind: &'a str) -> Notice<'a> {
    Notice { scope: portal.room_id.as_str(), subject: "", kind }
}
