//! XMPP to Matrix, step 6: what is committed leaves for the homeserver, in order per room.
//!
//! Every attempt of an event uses the same user, device, transaction id and bytes, so the
//! homeserver takes it once.

use std::sync::Arc;

use async_trait::async_trait;
use ruma::{DeviceId, OwnedDeviceId, OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ClientError, Identity, MatrixClient};
use crate::{
    network::{ChatKey, LegSecurity, RemoteEvent, RemoteEventKind, RemoteMessageId},
    queue::{Drain, Drained, Queues},
    store::{
        Database, DeliveryStatus, GhostStage, MappedMessage, MessageAuthor, NewOutboxEvent,
        OutboxEvent, StoreError,
    },
};

/// Events sent between two commits.
const BATCH: u32 = 50;

/// Which message of the other network an event is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentReference {
    /// The conversation.
    pub chat: ChatKey,
    /// The message's id there, where it has one.
    pub remote_id: Option<RemoteMessageId>,
    /// How the Matrix leg is protected.
    pub matrix_leg: LegSecurity,
    /// How the other leg was protected.
    pub remote_leg: LegSecurity,
}

impl SentReference {
    /// The stored form.
    pub fn to_text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    fn into_mapped(self, event_id: OwnedEventId, room_id: OwnedRoomId) -> MappedMessage {
        MappedMessage {
            event_id,
            room_id,
            chat: self.chat,
            author: MessageAuthor::Contact,
            remote_id: self.remote_id,
            matrix_leg: self.matrix_leg,
            remote_leg: self.remote_leg,
            status: DeliveryStatus::Sent,
        }
    }
}

/// Who is told what the homeserver will never take.
pub trait OutboxEvents: Send + Sync {
    /// Messages of this chat were refused for good: that their author is to be told is in the remote inbox.
    fn refused(&self, chat: &ChatKey);
}

/// Sends what is in the Matrix outbox.
pub struct Outbox {
    events: Arc<dyn OutboxEvents>,
    db: Database,
    client: MatrixClient,
    rooms: Arc<Queues<OwnedRoomId>>,
}

/// A row that the homeserver has taken, or will never take.
struct Finished {
    row: OutboxEvent,
    event_id: Option<OwnedEventId>,
}

impl Outbox {
    /// An outbox whose work begins with a ring.
    pub fn new(
        events: Arc<dyn OutboxEvents>,
        db: Database,
        client: MatrixClient,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new_cyclic(|outbox: &std::sync::Weak<Self>| Self {
            events,
            db,
            client,
            rooms: Queues::new(outbox.clone(), tracker, stop),
        })
    }

    /// Everything that waits is sent.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn ring_for_all(&self) -> Result<(), StoreError> {
        let mut tx = self.db.read().await?;
        let rooms = tx.matrix_outbox().pending_rooms().await?;
        drop(tx);
        rooms.into_iter().for_each(|room| self.rooms.ring(room));
        Ok(())
    }

    /// Says that there is something for this room.
    pub fn ring(&self, room: &RoomId) {
        self.rooms.ring(room.to_owned());
    }

    async fn drain_room(&self, room: &RoomId) -> Result<Drained, StoreError> {
        loop {
            let mut tx = self.db.read().await?;
            let rows = tx.matrix_outbox().load_pending(room, BATCH).await?;
            drop(tx);
            if rows.is_empty() {
                return Ok(Drained::Empty);
            }
            let mut finished = Vec::with_capacity(rows.len());
            let mut fault = None;
            for row in rows {
                let sent = self.send(&row).await;
                failpoint!("w07_event_sent");
                match sent {
                    Ok(event_id) => finished.push(Finished { row, event_id: Some(event_id) }),
                    Err(SendRowError::Client(error)) if !error.is_temporary() => {
                        tracing::error!(error = %error, "matrix.outbox.refused");
                        finished.push(Finished { row, event_id: None });
                    }
                    Err(error) => {
                        fault = Some(error);
                        break;
                    }
                }
            }
            self.finish(finished).await?;
            match fault {
                None => {}
                Some(SendRowError::Store(error)) => return Err(error),
                Some(SendRowError::Client(error)) => {
                    tracing::warn!(error = %error, "matrix.outbox.waits");
                    return Ok(Drained::Failed);
                }
            }
        }
    }

    async fn send(&self, row: &OutboxEvent) -> Result<OwnedEventId, SendRowError> {
        let event = &row.event;
        let device = self.device_of(row).await?;
        let content = RawValue::from_string(event.content.clone())
            .map_err(|_| SendRowError::Client(ClientError::Malformed))?;
        match self.send_as(device.as_deref(), event, &content).await {
            // What was encrypted by a device that is gone can be read all the same.
            Err(error) if error.is_unknown_device() => {
                Ok(self.send_as(None, event, &content).await?)
            }
            sent => Ok(sent?),
        }
    }

    async fn send_as(
        &self,
        device: Option<&DeviceId>,
        event: &NewOutboxEvent,
        content: &RawValue,
    ) -> Result<OwnedEventId, ClientError> {
        let who = Identity { user: &event.user_id, device };
        let (room, kind, id) = (&event.room_id, &event.event_type, &event.txn_id);
        self.client.send_message_event(who, room, kind, id, content).await
    }

    async fn device_of(&self, row: &OutboxEvent) -> Result<Option<OwnedDeviceId>, StoreError> {
        let mut tx = self.db.read().await?;
        let ghost = tx.ghosts().find(&row.event.user_id).await?;
        // The homeserver refuses the name of a device that it does not know yet.
        let known = ghost.filter(|ghost| ghost.stage > GhostStage::Replaced);
        Ok(known.map(|ghost| ghost.device_id))
    }

    /// One commit for a batch: a crash before it sends the same again, which changes nothing.
    async fn finish(&self, finished: Vec<Finished>) -> Result<(), StoreError> {
        if finished.is_empty() {
            return Ok(());
        }
        let mut refused = Vec::new();
        let mut tx = self.db.begin().await?;
        for Finished { row, event_id } in finished {
            tx.matrix_outbox().mark_sent(row.id).await?;
            let reference: Option<SentReference> =
                row.event.reference.as_deref().and_then(|text| serde_json::from_str(text).ok());
            let Some(reference) = reference else {
                if event_id.is_none() {
                    // The bot has not said it. It is brought back, and says it again when it is
                    // still true.
                    tx.portals().bot_is_gone(&row.event.room_id).await?;
                    tx.notices().forget_all(row.event.room_id.as_str()).await?;
                }
                continue;
            };
            match event_id {
                Some(event_id) => {
                    let message = reference.into_mapped(event_id, row.event.room_id);
                    tx.message_map().insert(&message).await?;
                }
                None => {
                    let (chat, kind) = (reference.chat, RemoteEventKind::NotTaken);
                    let event = RemoteEvent { chat, sent_at_ms: None, kind };
                    tx.remote_inbox().insert(&event).await?;
                    refused.push(event.chat);
                }
            }
        }
        let committed = tx.commit().await;
        refused.iter().for_each(|chat| self.events.refused(chat));
        committed
    }
}

#[derive(Debug, thiserror::Error)]
enum SendRowError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the homeserver did not take the event")]
    Client(#[from] ClientError),
}

#[async_trait]
impl Drain<OwnedRoomId> for Outbox {
    #[tracing::instrument(name = "matrix.outbox", skip_all)]
    async fn drain(&self, room: &OwnedRoomId) -> Drained {
        match self.drain_room(room).await {
            Ok(drained) => drained,
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "matrix.outbox.failed");
                Drained::Failed
            }
        }
    }
}
