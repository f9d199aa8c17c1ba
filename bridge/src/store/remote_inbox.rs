//! Events of other networks, decrypted, until their Matrix events are in the outbox.

use sqlx::AnyConnection;

use crate::network::{ChatKey, Held, RemoteEvent, RemoteEventKind};

use super::{
    Backlog, Cell, Sealer, StoreError, Transaction,
    backlog::measure,
    chat_columns::{chat_key, local_user},
    error::expect_one_row,
    sequence,
};

const TABLE: &str = "remote_inbox";

/// A row of the remote inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteInboxId(pub i64);

/// Events of a chat that keep their order among themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Messages, which may be large, and which may have to wait.
    Messages,
    /// Everything else: small, and more of it may come than there are messages.
    Reports,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Messages, Self::Reports];

    fn of(kind: &RemoteEventKind) -> Self {
        match kind {
            RemoteEventKind::Message { .. } => Self::Messages,
            _ => Self::Reports,
        }
    }

    /// As it is stored.
    fn is_message(self) -> i64 {
        i64::from(self == Self::Messages)
    }
}

/// An event that is not done yet.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingRemoteEvent {
    /// Its row.
    pub id: RemoteInboxId,
    /// Since when it is known to wait, in milliseconds since 1970.
    pub waits_since_ms: Option<i64>,
    /// The event.
    pub event: RemoteEvent,
}

/// Measures what is open in a chat, up to a number of rows.
pub(super) const MEASURE_MESSAGES: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) \
     FROM (SELECT size_bytes FROM remote_inbox \
     WHERE local_user = $1 AND contact = $2 AND is_message = 1 LIMIT $3) AS waiting";

/// As [`MEASURE_MESSAGES`].
pub(super) const MEASURE_REPORTS: &str = "SELECT COUNT(*), CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) \
     FROM (SELECT size_bytes FROM remote_inbox \
     WHERE local_user = $1 AND contact = $2 AND is_message = 0 LIMIT $3) AS waiting";

/// The remote inbox.
pub struct RemoteInbox<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

fn event_cell<'a>(row: &'a [&'a str]) -> Cell<'a> {
    Cell { table: TABLE, column: "event", row }
}

impl<'t> RemoteInbox<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        let (conn, sealer) = tx.parts();
        Self { conn, sealer }
    }

    /// Stores an event behind all others of its chat and lane.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn insert(&mut self, event: &RemoteEvent) -> Result<RemoteInboxId, StoreError> {
        let id = sequence::take(&mut *self.conn, 1).await?;
        let sealed = self.sealer.seal_json(event_cell(&[&id.to_string()]), event)?;
        let size_bytes = i64::try_from(sealed.len()).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO remote_inbox (id, local_user, contact, event, is_message, size_bytes) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(local_user(&event.chat.local))
        .bind(event.chat.contact.as_str())
        .bind(sealed)
        .bind(Lane::of(&event.kind).is_message())
        .bind(size_bytes)
        .execute(&mut *self.conn)
        .await?;
        Ok(RemoteInboxId(id))
    }

    /// Open events of a chat and lane in the order they came: the oldest behind row `after`, or the
    /// oldest of all.
    ///
    /// # Errors
    /// When the database failed or a row cannot be opened.
    pub async fn load_pending(
        &mut self,
        (chat, lane): (&ChatKey, Lane),
        after: Option<RemoteInboxId>,
        limit: u32,
    ) -> Result<Vec<PendingRemoteEvent>, StoreError> {
        let rows: Vec<(i64, Option<i64>, Vec<u8>)> = sqlx::query_as(
            "SELECT id, waits_since_ms, event FROM remote_inbox \
             WHERE local_user = $1 AND contact = $2 AND is_message = $3 AND id > $4 \
             ORDER BY id LIMIT $5",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(lane.is_message())
        .bind(after.map_or(0, |row| row.0))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter()
            .map(|(id, waits_since_ms, sealed)| {
                let event = self.sealer.open_json(event_cell(&[&id.to_string()]), &sealed)?;
                Ok(PendingRemoteEvent { id: RemoteInboxId(id), waits_since_ms, event })
            })
            .collect()
    }

    /// Whether a message of a chat is open that came before this event.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn has_message_before(
        &mut self,
        chat: &ChatKey,
        event: RemoteInboxId,
    ) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT id FROM remote_inbox WHERE local_user = $1 AND contact = $2 \
             AND is_message = 1 AND id < $3 LIMIT 1",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(event.0)
        .fetch_optional(&mut *self.conn)
        .await?;
        Ok(row.is_some())
    }

    /// Whether something is open in a chat and lane that is not known to wait.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn has_undated(
        &mut self,
        (chat, lane): (&ChatKey, Lane),
    ) -> Result<bool, StoreError> {
        let row: Option<(i64,)> = sqlx::query_as(
            "SELECT id FROM remote_inbox WHERE local_user = $1 AND contact = $2 \
             AND is_message = $3 AND waits_since_ms IS NULL LIMIT 1",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(lane.is_message())
        .fetch_optional(&mut *self.conn)
        .await?;
        Ok(row.is_some())
    }

    /// Everything that is open in a chat and lane waits, now and from now on: events that were not
    /// known to wait do so since `now_ms` (milliseconds since 1970).
    ///
    /// # Errors
    /// When the database failed.
    pub async fn wait_from_now(
        &mut self,
        (chat, lane): (&ChatKey, Lane),
        now_ms: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE remote_inbox SET waits_since_ms = $4 WHERE local_user = $1 AND contact = $2 \
             AND is_message = $3 AND waits_since_ms IS NULL",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .bind(lane.is_message())
        .bind(now_ms)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// How many messages of a chat are open, and since when the first of them is known to wait.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn count_pending(&mut self, chat: &ChatKey) -> Result<Held, StoreError> {
        let (messages, since_ms): (i64, Option<i64>) = sqlx::query_as(
            "SELECT COUNT(*), MIN(waits_since_ms) FROM remote_inbox \
             WHERE local_user = $1 AND contact = $2 AND is_message = 1",
        )
        .bind(local_user(&chat.local))
        .bind(chat.contact.as_str())
        .fetch_one(&mut *self.conn)
        .await?;
        Ok(Held { messages: u64::try_from(messages).unwrap_or_default(), since_ms })
    }

    /// How much is open in a chat and lane, counted up to `limit` rows: cheap, however much waits.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn measure(
        &mut self,
        (chat, lane): (&ChatKey, Lane),
        limit: u32,
    ) -> Result<Backlog, StoreError> {
        let query = match lane {
            Lane::Messages => MEASURE_MESSAGES,
            Lane::Reports => MEASURE_REPORTS,
        };
        measure(self.conn, query, chat, limit).await
    }

    /// The chats that have open events, the one that waits longest first.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn pending_chats(&mut self) -> Result<Vec<ChatKey>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT local_user, contact FROM remote_inbox \
             GROUP BY local_user, contact ORDER BY MIN(id)",
        )
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(|(local, contact)| chat_key(&local, contact, TABLE)).collect()
    }

    /// Ends an event: nothing of it stays.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when it is done already: whoever did this too must not count.
    pub async fn mark_done(&mut self, id: RemoteInboxId) -> Result<(), StoreError> {
        let result = sqlx::query("DELETE FROM remote_inbox WHERE id = $1")
            .bind(id.0)
            .execute(&mut *self.conn)
            .await?;
        expect_one_row(&result, TABLE)
    }
}
