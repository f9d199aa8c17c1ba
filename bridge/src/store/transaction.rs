//! One unit of work, and the repositories that are reached through it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sqlx::{Any, AnyConnection};

use super::{
    Ghosts, ManagementRooms, MatrixInbox, MatrixOutbox, MegolmIndex, MessageMap, Notices, Pins,
    Portals, RemoteInbox, Sealer, StoreError, Verifications, witness::Witness,
};

/// A transaction. Dropped without [`Self::commit`] it changes nothing.
pub struct Transaction {
    inner: sqlx::Transaction<'static, Any>,
    sealer: Arc<Sealer>,
    /// Of one that may write.
    outcome: Option<Outcome>,
}

/// Who learns what became of a commit.
pub(super) struct Outcome {
    /// Who notes a commit.
    pub witness: Arc<Witness>,
    /// The commit's number.
    pub commits: i64,
    /// Whether the database took it.
    pub takes_writes: Arc<AtomicBool>,
}

impl Transaction {
    pub(super) fn new(inner: sqlx::Transaction<'static, Any>, sealer: Arc<Sealer>) -> Self {
        Self { inner, sealer, outcome: None }
    }

    pub(super) fn with_outcome(self, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }

    /// Makes everything of this transaction durable.
    ///
    /// # Errors
    /// When the database did not confirm it: then it may have happened or not, and whoever
    /// cached anything must load it anew.
    pub async fn commit(self) -> Result<(), StoreError> {
        let committed = self.inner.commit().await;
        if let Some(outcome) = self.outcome {
            outcome.takes_writes.store(committed.is_ok(), Ordering::Relaxed);
            if committed.is_ok() {
                outcome.witness.advance(outcome.commits);
            }
        }
        Ok(committed?)
    }

    /// For repositories: the connection and the sealer.
    pub(super) fn parts(&mut self) -> (&mut AnyConnection, &Sealer) {
        (&mut self.inner, &self.sealer)
    }

    /// Events the homeserver has pushed.
    pub fn matrix_inbox(&mut self) -> MatrixInbox<'_> {
        MatrixInbox::new(self)
    }

    /// Events of other networks, decrypted, on their way to Matrix.
    pub fn remote_inbox(&mut self) -> RemoteInbox<'_> {
        RemoteInbox::new(self)
    }

    /// Events on their way to the homeserver.
    pub fn matrix_outbox(&mut self) -> MatrixOutbox<'_> {
        MatrixOutbox::new(self)
    }

    /// Portals.
    pub fn portals(&mut self) -> Portals<'_> {
        Portals::new(self)
    }

    /// Management rooms.
    pub fn management_rooms(&mut self) -> ManagementRooms<'_> {
        ManagementRooms::new(self)
    }

    /// Ghosts and the bridge bot.
    pub fn ghosts(&mut self) -> Ghosts<'_> {
        Ghosts::new(self)
    }

    /// Which event is which message.
    pub fn message_map(&mut self) -> MessageMap<'_> {
        MessageMap::new(self)
    }

    /// Pinned identities of Matrix users.
    pub fn pins(&mut self) -> Pins<'_> {
        Pins::new(self)
    }

    /// What has been told once.
    pub fn notices(&mut self) -> Notices<'_> {
        Notices::new(self)
    }

    /// Verifications under way.
    pub fn verifications(&mut self) -> Verifications<'_> {
        Verifications::new(self)
    }

    /// The guard against replayed Megolm messages.
    pub fn megolm_index(&mut self) -> MegolmIndex<'_> {
        MegolmIndex::new(self)
    }
}
