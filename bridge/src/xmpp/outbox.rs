//! Sends what is in the outbox, in order, byte for byte; a stanza is done when the server has
//! confirmed it.

use std::collections::BTreeSet;

use super::{core::Core, stream::StreamError, worker::STORE_PAUSE};
use crate::{
    error_chain,
    network::{ChatKey, RemoteEvent, RemoteEventKind},
    store::{OutgoingStanza, StoreError, Transaction},
};

/// Stanzas that one ping confirms.
const BATCH: u32 = 100;

impl Core {
    /// Sends until the stream ends. A new stream starts at the oldest unconfirmed stanza.
    pub(super) async fn send_outbox(&self) -> Result<(), StreamError> {
        loop {
            match self.send_batch().await {
                Ok(true) => {}
                Ok(false) => self.outbox_bell.notified().await,
                Err(SendBatchError::Store(error)) => {
                    tracing::error!(error = error_chain(&error), "xmpp.outbox: the store failed");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
                Err(SendBatchError::Link) => return Err(StreamError::TimedOut),
            }
        }
    }

    /// Returns whether there was anything.
    async fn send_batch(&self) -> Result<bool, SendBatchError> {
        let batch = self.db.read().await?.xmpp_outbox().load_pending(BATCH).await?;
        if batch.is_empty() {
            return Ok(false);
        }
        for row in &batch {
            self.link.write_bytes(row.stanza.to_vec()).await.map_err(|_| SendBatchError::Link)?;
        }
        self.confirm().await.map_err(|_| SendBatchError::Link)?;
        failpoint!("w10_stanza_confirmed");
        // What the server has is not sent again on this stream, however long the store takes no writes.
        while let Err(error) = self.accept_all(&batch).await {
            tracing::error!(error = error_chain(&error), "xmpp.outbox: the store failed");
            tokio::time::sleep(STORE_PAUSE).await;
        }
        let of_messages = batch.iter().filter(|row| row.message.is_some());
        let chats: BTreeSet<&ChatKey> = of_messages.map(|row| &row.chat).collect();
        chats.into_iter().for_each(|chat| self.events.accepted(chat));
        Ok(true)
    }

    async fn accept_all(&self, batch: &[OutgoingStanza]) -> Result<(), StoreError> {
        let mut tx = self.db.begin().await?;
        for row in batch {
            accept(&mut tx, row).await?;
        }
        tx.commit().await
    }
}

/// Ends a stanza that the server has taken. Returns its chat when the portal is to hear of it.
pub(super) async fn accept(
    tx: &mut Transaction,
    row: &OutgoingStanza,
) -> Result<Option<ChatKey>, StoreError> {
    // An answer to the stanza may have come before the confirmation, and ended it.
    if !tx.xmpp_outbox().mark_sent(row.id).await? {
        return Ok(None);
    }
    let Some((id, security)) = row.message.clone() else { return Ok(None) };
    let kind = RemoteEventKind::Accepted { id, security };
    let event = RemoteEvent { chat: row.chat.clone(), sent_at_ms: None, kind };
    tx.remote_inbox().insert(&event).await?;
    Ok(Some(event.chat))
}

#[derive(Debug, thiserror::Error)]
enum SendBatchError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the stream is down")]
    Link,
}
