//! Messages of contacts that nobody gets: their authors are told, and until they are the messages stay.

use ruma::UserId;

use super::{
    Hub, StepError,
    create_room::NoRoom,
    from_remote::{REPORTS, Step},
};
use crate::{
    network::{RemoteEvent, RemoteEventKind},
    store::{Lane, Notice, PendingRemoteEvent},
};

impl Hub {
    /// A message to somebody who may not use the bridge.
    pub(super) async fn not_permitted(
        &self,
        row: &PendingRemoteEvent,
        user: &UserId,
    ) -> Result<Step, StepError> {
        tracing::info!("portal.from_remote.not_permitted");
        let text = "Your message was not delivered: the person you wrote to does not use this \
            bridge.";
        self.end_undelivered(row, user, "not_permitted", text).await
    }

    /// A message for which there will be no room. Its author has seen it as delivered, because the
    /// bridge has it.
    pub(super) async fn no_room(
        &self,
        row: &PendingRemoteEvent,
        user: &UserId,
        none: &NoRoom,
    ) -> Result<Step, StepError> {
        tracing::warn!(error = %crate::error_chain(none), "portal.from_remote.no_room");
        let text = match none {
            NoRoom::AddressTooLong(_) => {
                "Your message was not delivered: your address is too long for Matrix."
            }
            NoRoom::NoSuchUser => {
                "Your message was not delivered: there is nobody with this address."
            }
            NoRoom::Refused(_) => {
                "Your message was not delivered: the Matrix server of the person you wrote to \
                 does not take it."
            }
        };
        let step = self.end_undelivered(row, user, "no_room", text).await?;
        if matches!((&step, none), (Step::Waits, NoRoom::Refused(_))) {
            // Looked at again and again it would make a room each time.
            return self.end_with_report(row).await;
        }
        Ok(step)
    }

    /// Tells a contact that a message was not delivered, once an hour for each person they write to, and ends it. Where
    /// one who has a chat cannot be told it waits until they can, as long as messages do. Of strangers there may be any
    /// number: for them nothing is kept.
    async fn end_undelivered(
        &self,
        row: &PendingRemoteEvent,
        user: &UserId,
        kind: &str,
        text: &str,
    ) -> Result<Step, StepError> {
        let contact = &row.event.chat.contact;
        let notice = Notice { scope: contact.as_str(), subject: user.as_str(), kind };
        if !self.tell_contact_of_batch(contact, notice, text).await?
            && !self.has_waited_too_long(row)
            && self.find_portal(user, contact).await?.is_some()
        {
            return Ok(Step::Waits);
        }
        self.end(row).await
    }

    pub(super) fn has_waited_too_long(&self, row: &PendingRemoteEvent) -> bool {
        row.waits_since_ms.is_some_and(|since_ms| self.is_over(since_ms))
    }

    /// Ends an event, and leaves in its place that its author is to be told: once for all that come to this meanwhile.
    async fn end_with_report(&self, row: &PendingRemoteEvent) -> Result<Step, StepError> {
        let (chat, kind) = (row.event.chat.clone(), RemoteEventKind::NotTaken);
        let mut tx = self.parts.db.begin().await?;
        let open = tx.remote_inbox().load_pending((&chat, Lane::Reports), None, REPORTS).await?;
        if open.iter().all(|report| report.event.kind != kind) {
            let event = RemoteEvent { chat: chat.clone(), sent_at_ms: None, kind };
            tx.remote_inbox().insert(&event).await?;
        }
        tx.remote_inbox().mark_done(row.id).await?;
        tx.commit().await?;
        self.chats.ring((chat, Lane::Reports));
        Ok(Step::Done)
    }
}
