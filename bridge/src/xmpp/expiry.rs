//! Stanzas of devices that nobody has decided about for too long are given up.

use std::time::Duration;

use super::core::Core;
use crate::{
    error_chain,
    network::{RemoteEvent, RemoteEventKind},
    store::StoreError,
};

/// How often what is held is looked at.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

impl Core {
    /// Gives up what is held too long, again and again.
    pub(super) async fn expire_now_and_then(&self) {
        loop {
            if let Err(error) = self.expire_held().await {
                tracing::error!(
                    error = error_chain(&error),
                    "xmpp.inbox: what is held too long could not be given up"
                );
            }
            tokio::time::sleep(EXPIRE_EVERY).await;
        }
    }

    /// Gives up what is held for longer than the configured time, by a clock that was not set of late. In each chat its end and the
    /// portal's order to tell of it are one commit.
    ///
    /// # Errors
    /// When the store failed; the chats that were dealt with stay so.
    pub(super) async fn expire_held(&self) -> Result<(), StoreError> {
        if !self.clock.is_settled() {
            return Ok(());
        }
        let hold_ms = i64::try_from(self.config.hold.as_millis()).unwrap_or(i64::MAX);
        let before_ms = self.now_ms().saturating_sub(hold_ms);
        let chats = self.db.read().await?.xmpp_inbox().chats_held_before(before_ms).await?;
        for chat in chats {
            let event = RemoteEvent { chat, sent_at_ms: None, kind: RemoteEventKind::Expired };
            let mut tx = self.db.begin().await?;
            if tx.xmpp_inbox().end_held_before(&event.chat, before_ms).await? > 0 {
                tx.remote_inbox().insert(&event).await?;
                tx.commit().await?;
                self.events.committed(&event.chat);
            }
        }
        Ok(())
    }
}
