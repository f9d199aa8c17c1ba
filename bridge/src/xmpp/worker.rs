//! The inbox's workers: a chat is decrypted in order, and no chat waits for another.

use std::{ops::ControlFlow, time::Duration};

use async_trait::async_trait;

use super::core::Core;
use crate::{
    error_chain,
    network::ChatKey,
    queue::{Drain, Drained},
    store::StoreError,
};

/// Pause before the store is tried again.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

#[async_trait]
impl Drain<ChatKey> for Core {
    async fn drain(&self, chat: &ChatKey) -> Drained {
        while !self.stop.is_cancelled() {
            match self.take_next(chat).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(
                        error = error_chain(&error),
                        "xmpp.inbox: a stanza could not be worked on"
                    );
                    return Drained::Blocked { retry_in: STORE_PAUSE };
                }
            }
        }
        Drained::Empty
    }
}

impl Core {
    /// Rings for everything that was left in the inbox.
    pub(super) async fn ring_for_all(&self) {
        loop {
            match self.load_pending_chats().await {
                Ok(chats) => {
                    chats.into_iter().for_each(|chat| self.inbox.ring(chat));
                    return;
                }
                Err(error) => {
                    tracing::error!(
                        error = error_chain(&error),
                        "xmpp.inbox: pending stanzas cannot be read"
                    );
                }
            }
            if self.pause().await.is_break() {
                return;
            }
        }
    }

    async fn load_pending_chats(&self) -> Result<Vec<ChatKey>, StoreError> {
        self.db.read().await?.xmpp_inbox().pending_chats().await
    }

    /// Waits before the store is tried again; breaks when the component stops.
    pub(super) async fn pause(&self) -> ControlFlow<()> {
        match self.stop.run_until_cancelled(tokio::time::sleep(STORE_PAUSE)).await {
            Some(()) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        }
    }
}
