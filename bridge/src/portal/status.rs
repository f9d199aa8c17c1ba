//! What the author of a Matrix message learns of its fate: `com.beeper.message_send_status`, and
//! words where a client may not know that.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
};

use ruma::{EventId, OwnedEventId, OwnedTransactionId, TransactionId, UserId};
use serde_json::{Map, Value, json};

use super::{Hub, StepError, from_remote::chat_of, legs::Legs, say::Wording};
use crate::{
    matrix::{ClientError, Identity},
    network::{RemoteEventKind, RemoteMessageId},
    store::{
        DeliveryStatus, InboxEvent, MappedMessage, MessageAuthor, PendingRemoteEvent, Portal,
        RemoteInboxId,
    },
};

/// The fate of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate<'a> {
    /// The network has it.
    Sent,
    /// The contact's client has it.
    Delivered,
    /// It waits; the text says for what.
    Waiting(&'a str),
    /// It will not be delivered; the text says why.
    Failed(&'a str),
}

impl Hub {
    /// Tells the author of a message its fate. What the homeserver does not take is logged only: where it matters,
    /// words of the bot say the same.
    pub(super) async fn set_fate(&self, portal: &Portal, event: &EventId, fate: Fate<'_>) {
        let content = status_content(&portal.network, event, &portal.ghost, &fate);
        if let Err(error) = self.send_status(portal, &TransactionId::new(), content).await {
            tracing::debug!(error = %error, "portal.status.not_sent");
        }
    }

    async fn send_status(
        &self,
        portal: &Portal,
        txn: &TransactionId,
        content: Map<String, Value>,
    ) -> Result<(), ClientError> {
        let bot = Identity::user(self.parts.namespace.bot());
        let kind = "com.beeper.message_send_status";
        // Clients and servers read it outside the encryption, and it holds no text.
        let content = serde_json::value::to_raw_value(&content).unwrap_or_default();
        let client = &self.parts.client;
        client.send_message_event(bot, &portal.room_id, kind, txn, &content).await.map(drop)
    }

    /// Tells the author of a message that it waits, once for each run of the bridge.
    pub(super) async fn tell_waiting(&self, portal: &Portal, event: &EventId, reason: &str) {
        let is_news = self.waiting().insert(event.to_owned());
        if is_news {
            self.set_fate(portal, event, Fate::Waiting(reason)).await;
        }
    }

    /// Whether a message was found to wait since the bridge has started.
    pub(super) fn is_told_waiting(&self, event: &EventId) -> bool {
        self.waiting().contains(event)
    }

    /// The message does not wait any more, or not for the same.
    pub(super) fn no_longer_waits(&self, event: &EventId) {
        self.waiting().remove(event);
    }

    fn waiting(&self) -> MutexGuard<'_, HashSet<OwnedEventId>> {
        self.told_waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message was refused for good: its author is told, and it is done.
    pub(super) async fn fail(
        &self,
        portal: &Portal,
        row: &InboxEvent,
        reason: &str,
    ) -> Result<(), StepError> {
        let words = format!("A message of yours was not delivered: {reason}");
        let staged = self.stage_for_person(portal, Wording::Public, &words).await?;
        let mut tx = self.parts.db.begin().await?;
        tx.matrix_inbox().mark_done(row.id).await?;
        if let Some(staged) = &staged {
            tx.matrix_outbox().insert(staged).await?;
        }
        tx.commit().await?;
        self.parts.outbox.ring(&portal.room_id);
        self.no_longer_waits(&row.event.event_id);
        self.set_fate(portal, &row.event.event_id, Fate::Failed(reason)).await;
        Ok(())
    }

    /// The other network has refused a message of ours: its author is told, once however often it
    /// is said, and of none that there is not, which anybody can name. Nor of one that a client of the contact has
    /// received: another one of theirs may have been away for too long.
    pub(super) async fn tell_failed(
        &self,
        portal: &Portal,
        row: &PendingRemoteEvent,
        id: &RemoteMessageId,
        reason: &str,
    ) -> Result<(), StepError> {
        let chat = chat_of(portal);
        let mut tx = self.parts.db.read().await?;
        let found = tx.message_map().find_by_remote(&chat, MessageAuthor::Local, id).await?;
        drop(tx);
        let is_over = |status| matches!(status, DeliveryStatus::Failed | DeliveryStatus::Delivered);
        let news = found.filter(|message| !is_over(message.status));
        let Some(MappedMessage { event_id, .. }) = news else { return self.end_row(row).await };
        let words = format!("A message of yours was not delivered: {reason}");
        self.end_with_words(portal, row, &words, Some(&event_id)).await?;
        self.set_fate(portal, &event_id, Fate::Failed(reason)).await;
        Ok(())
    }

    /// The other network has said how far messages of ours have come, all of them of one chat: `rows` are progress, see
    /// [`is_progress`]. The author hears the newest of each message, and all rows end together. Without a portal
    /// nobody is told.
    ///
    /// Returns whether the rows have ended. While the homeserver does not take what is said they wait, as long as
    /// messages do.
    pub(super) async fn tell_progress(
        &self,
        portal: Option<&Portal>,
        rows: &[PendingRemoteEvent],
    ) -> Result<bool, StepError> {
        let mut news = Vec::new();
        if let Some(portal) = portal {
            news = self.news_in(rows).await?;
            for news in &news {
                if !self.send_progress(portal, news).await && !self.have_waited_too_long(rows) {
                    return Ok(false);
                }
            }
        }
        let mut tx = self.parts.db.begin().await?;
        for News { message, status, .. } in &news {
            tx.message_map().set_status(&message.event_id, *status).await?;
        }
        for row in rows {
            tx.remote_inbox().mark_done(row.id).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    fn have_waited_too_long(&self, rows: &[PendingRemoteEvent]) -> bool {
        rows.iter().filter_map(|row| row.waits_since_ms).any(|since_ms| self.is_over(since_ms))
    }

    /// Returns whether it was taken, or would never be.
    async fn send_progress(&self, portal: &Portal, news: &News) -> bool {
        let News { message, status, said_by } = news;
        let (fate, word) = match status {
            DeliveryStatus::Delivered => (Fate::Delivered, "delivered"),
            _ => (Fate::Sent, "sent"),
        };
        let mut content = status_content(&portal.network, &message.event_id, &portal.ghost, &fate);
        let legs = Legs { matrix: message.matrix_leg, remote: message.remote_leg };
        legs.write_into(&mut content, self.remote_encryption());
        // When it is tried again the homeserver knows it by this, for half an hour at least.
        let txn = OwnedTransactionId::from(format!("gephyra-{word}-{}", said_by.0));
        let sent = self.send_status(portal, &txn, content).await;
        if let Err(error) = &sent {
            tracing::debug!(error = %error, "portal.status.not_sent");
        }
        sent.err().is_none_or(|error| !error.is_temporary())
    }

    /// The messages that have come further, each with how far.
    async fn news_in(&self, rows: &[PendingRemoteEvent]) -> Result<Vec<News>, StepError> {
        let mut said = Vec::new();
        let mut tx = self.parts.db.read().await?;
        for row in rows {
            let Some((id, status)) = progress(&row.event.kind) else { continue };
            let local = MessageAuthor::Local;
            // Anybody can name a message that there is not.
            let found = tx.message_map().find_by_remote(&row.event.chat, local, id).await?;
            said.extend(found.map(|message| News { message, status, said_by: row.id }));
        }
        Ok(newest(said))
    }
}

/// How far a message of ours has come.
struct News {
    message: MappedMessage,
    status: DeliveryStatus,
    said_by: RemoteInboxId,
}

/// What is news of what was said, once for each message.
fn newest(said: Vec<News>) -> Vec<News> {
    let mut news: Vec<News> = Vec::new();
    for said in said {
        match news.iter_mut().find(|known| known.message.event_id == said.message.event_id) {
            Some(known) if is_further(known.status, said.status) => *known = said,
            None if is_further(said.message.status, said.status) => news.push(said),
            _ => {}
        }
    }
    news
}

/// Which message of ours has come how far.
fn progress(kind: &RemoteEventKind) -> Option<(&RemoteMessageId, DeliveryStatus)> {
    match kind {
        RemoteEventKind::Accepted { id, .. } => Some((id, DeliveryStatus::Sent)),
        RemoteEventKind::Delivered { id } => Some((id, DeliveryStatus::Delivered)),
        _ => None,
    }
}

/// Whether an event says how far a message of ours has come.
pub(super) fn is_progress(row: &PendingRemoteEvent) -> bool {
    progress(&row.event.kind).is_some()
}

/// Whether what is said of a message is news: a receipt may come twice, and that the server has the message may be told
/// late, behind what became of it.
fn is_further(known: DeliveryStatus, said: DeliveryStatus) -> bool {
    use DeliveryStatus::{Delivered, Failed, Sent};
    known != said && !matches!((known, said), (Delivered | Failed, Sent))
}

fn status_content(
    network: &str,
    event: &EventId,
    ghost: &UserId,
    fate: &Fate<'_>,
) -> Map<String, Value> {
    let (status, message) = match fate {
        Fate::Sent | Fate::Delivered => ("SUCCESS", None),
        Fate::Waiting(reason) => ("PENDING", Some(reason)),
        Fate::Failed(reason) => ("FAIL_PERMANENT", Some(reason)),
    };
    let mut content = Map::new();
    content.insert("m.relates_to".into(), json!({ "rel_type": "m.reference", "event_id": event }));
    content.insert("network".into(), json!(network));
    content.insert("status".into(), json!(status));
    if let Some(message) = message {
        content.insert("message".into(), json!(message));
        content.insert("reason".into(), json!("com.beeper.undefined"));
    }
    if *fate == Fate::Delivered {
        content.insert("delivered_to_users".into(), json!([ghost]));
    }
    content
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, user_id};

    use super::*;

    #[test]
    fn of_a_message_the_newest_is_told_once() {
        use DeliveryStatus::{Delivered, Failed, Pending, Sent};
        let message = |event_id: &str, status| MappedMessage {
            event_id: event_id.try_into().unwrap(),
            room_id: ruma::owned_room_id!("!room:example.org"),
            chat: crate::network::ChatKey {
                local: crate::network::Author::Bridge,
                contact: crate::network::RemoteUserId::new("bob@example.net"),
            },
            author: MessageAuthor::Local,
            remote_id: None,
            matrix_leg: crate::network::LegSecurity::Plaintext,
            remote_leg: crate::network::LegSecurity::Plaintext,
            status,
        };
        let said = [
            ("$new", Pending, Sent),
            ("$late", Delivered, Sent),
            ("$again", Delivered, Delivered),
            ("$new", Pending, Delivered),
            ("$new", Pending, Sent),
            ("$other", Failed, Delivered),
            ("$failed", Failed, Sent),
        ];
        let said = said.into_iter().zip(1..).map(|((id, known, status), row)| News {
            message: message(id, known),
            status,
            said_by: RemoteInboxId(row),
        });
        let news = newest(said.collect());
        let news: Vec<_> =
            news.iter().map(|it| (it.message.event_id.as_str(), it.status, it.said_by.0)).collect();
        assert_eq!(news, [("$new", Delivered, 4), ("$other", Delivered, 6)]);
    }

    #[test]
    fn each_fate_has_its_status() {
        let ghost = user_id!("@xmpp_bob=40example.net:example.org");
        let contents: Vec<Map<String, Value>> =
            [Fate::Sent, Fate::Delivered, Fate::Waiting("why"), Fate::Failed("why")]
                .iter()
                .map(|fate| status_content("xmpp", event_id!("$e"), ghost, fate))
                .collect();
        insta::assert_json_snapshot!(contents);
    }
}
