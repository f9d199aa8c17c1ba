//! What the author of a Matrix message learns of its fate: `com.beeper.message_send_status`, and
//! words where a client may not know that.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
};

use ruma::{EventId, OwnedEventId, UserId};
use serde_json::{Map, Value, json};

use super::{Hub, StepError, legs::Legs, say::Wording};
use crate::{
    network::RemoteMessageId,
    store::{DeliveryStatus, InboxEvent, MessageAuthor, Portal},
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
    /// Tells the author of a message its fate.
    pub(super) async fn set_fate(&self, portal: &Portal, event: &EventId, fate: Fate<'_>) {
        let content = status_content(&portal.network, event, &portal.ghost, &fate);
        self.send_status(portal, content).await;
    }

    /// A status that is not sent is logged only: it is no part of the message's way.
    async fn send_status(&self, portal: &Portal, content: Map<String, Value>) {
        let content = serde_json::value::to_raw_value(&content).unwrap_or_default();
        let bot = self.parts.namespace.bot();
        // Clients and servers read it outside the encryption, and it holds no text.
        let result = self
            .parts
            .client
            .send_message_event(
                crate::matrix::Identity::user(bot),
                &portal.room_id,
                "com.beeper.message_send_status",
                &ruma::TransactionId::new(),
                &content,
            )
            .await;
        if let Err(error) = result {
            tracing::debug!(error = %error, "portal.status.not_sent");
        }
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

    /// The other network has said what became of a message of ours. Returns whether there is such
    /// a message: anybody can name one that there is not.
    pub(super) async fn report(
        &self,
        portal: &Portal,
        id: &RemoteMessageId,
        status: DeliveryStatus,
        fate: Fate<'_>,
    ) -> Result<bool, StepError> {
        let chat = super::from_remote::chat_of(portal);
        let mut tx = self.parts.db.begin().await?;
        let found = tx.message_map().find_by_remote(&chat, MessageAuthor::Local, id).await?;
        let Some(message) = found else { return Ok(false) };
        tx.message_map().set_status(&message.event_id, status).await?;
        tx.commit().await?;
        let mut content = status_content(&portal.network, &message.event_id, &portal.ghost, &fate);
        if matches!(fate, Fate::Sent | Fate::Delivered) {
            let legs = Legs { matrix: message.matrix_leg, remote: message.remote_leg };
            legs.write_into(&mut content, self.remote_encryption());
        }
        self.send_status(portal, content).await;
        Ok(true)
    }
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
