//! Events the homeserver has pushed, until they are dealt with.

use std::{borrow::Cow, collections::HashSet};

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

use crate::network::Held;

use super::{
    Cell, MessageAuthor, Sealer, StoreError, Transaction,
    error::{expect_one_row, parse_column},
    sequence,
};

const TABLE: &str = "matrix_inbox";

/// A row of the Matrix inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InboxId(pub i64);

/// An event as the homeserver pushed it.
#[derive(Clone, PartialEq, Eq)]
pub struct NewInboxEvent {
    /// Its id: the same event pushed again is ignored.
    pub event_id: OwnedEventId,
    /// Its room.
    pub room_id: OwnedRoomId,
    /// Its sender.
    pub sender: OwnedUserId,
    /// Its type.
    pub event_type: String,
    /// Present for state events.
    pub state_key: Option<String>,
    /// What its sender's homeserver gave as its time, in milliseconds since 1970.
    pub origin_ts: i64,
    /// All of it, as received.
    pub json: String,
}

/// An event that is not done yet.
#[derive(Clone, PartialEq, Eq)]
pub struct InboxEvent {
    /// Its row.
    pub id: InboxId,
    /// When it came to us, in milliseconds since 1970.
    pub received_ms: i64,
    /// The event.
    pub event: NewInboxEvent,
}

/// Shows no id and no content.
impl std::fmt::Debug for InboxEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboxEvent").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The Matrix inbox.
pub struct MatrixInbox<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    event_id: String,
    room_id: String,
    sender: String,
    origin_ts: i64,
    received_ms: i64,
    content: Vec<u8>,
}

/// What the event's author chose freely. All of it is sealed: a text column would not take every
/// character.
#[derive(Serialize, Deserialize)]
struct Content<'a> {
    event_type: Cow<'a, str>,
    state_key: Option<Cow<'a, str>>,
    json: Cow<'a, str>,
}

impl Row {
    fn into_domain(self, sealer: &Sealer) -> Result<InboxEvent, StoreError> {
        let content: Content<'static> =
            sealer.open_json(content_cell(&[&self.event_id]), &self.content)?;
        let event = NewInboxEvent {
            room_id: parse_column(&self.room_id, TABLE, "room_id")?,
            sender: parse_column(&self.sender, TABLE, "sender")?,
            event_id: parse_column(&self.event_id, TABLE, "event_id")?,
            event_type: content.event_type.into_owned(),
            state_key: content.state_key.map(Cow::into_owned),
            json: content.json.into_owned(),
            origin_ts: self.origin_ts,
        };
        Ok(InboxEvent { id: InboxId(self.id), received_ms: self.received_ms, event })
    }
}

fn content_cell<'a>(row: &'a [&'a str]) -> Cell<'a> {
    Cell { table: TABLE, column: "content", row }
}

impl<'t> MatrixInbox<'t> {
    /// How much of what a user has sent into a room is not done, and since when.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn count_pending(
        &mut self,
        room_id: &RoomId,
        sender: &UserId,
    ) -> Result<Held, StoreError> {
        let (messages, since_ms): (i64, Option<i64>) = sqlx::query_as(
            "SELECT COUNT(*), MIN(received_ms) FROM matrix_inbox \
             WHERE room_id = $1 AND sender = $2 AND content IS NOT NULL",
        )
        .bind(room_id.as_str())
        .bind(sender.as_str())
        .fetch_one(&mut *self.conn)
        .await?;
        Ok(Held { messages: u64::try_from(messages).unwrap_or_default(), since_ms })
    }

    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        let (conn, sealer) = tx.parts();
        Self { conn, sealer }
    }

    /// Stores the events of one push in their order, received at `now_ms` (milliseconds since
    /// 1970). `None` stands for an event that was there already, done or not, or whose message
    /// is in the message map, which is kept longer.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn insert(
        &mut self,
        events: &[NewInboxEvent],
        now_ms: i64,
    ) -> Result<Vec<Option<InboxId>>, StoreError> {
        let mut id = sequence::take(&mut *self.conn, events.len()).await?;
        let mut inserted = Vec::with_capacity(events.len());
        for event in events {
            let is_new = self.insert_one(id, event, now_ms).await?;
            inserted.push(is_new.then_some(InboxId(id)));
            id += 1;
        }
        Ok(inserted)
    }

    async fn insert_one(
        &mut self,
        id: i64,
        event: &NewInboxEvent,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let row = [event.event_id.as_str()];
        let content = Content {
            event_type: (&event.event_type).into(),
            state_key: event.state_key.as_deref().map(Into::into),
            json: (&event.json).into(),
        };
        let content = self.sealer.seal_json(content_cell(&row), &content)?;
        let result = sqlx::query(
            "INSERT INTO matrix_inbox \
                 (id, event_id, room_id, sender, origin_ts, received_ms, content) \
             SELECT $1, $2, $3, $4, $5, $6, $7 \
             WHERE NOT EXISTS (SELECT 1 FROM message_map WHERE event_id = $2 AND author = $8) \
             ON CONFLICT (event_id) DO NOTHING",
        )
        .bind(id)
        .bind(event.event_id.as_str())
        .bind(event.room_id.as_str())
        .bind(event.sender.as_str())
        .bind(event.origin_ts)
        .bind(now_ms)
        .bind(content)
        .bind(MessageAuthor::Local.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected() == 1)
    }

    /// Puts the history of a room in its place: behind row `after` come these events, then the
    /// open events of the room that are not among them. Open rows get new numbers; events that
    /// are done stay done.
    ///
    /// # Errors
    /// When nothing was changed.
    pub async fn insert_history(
        &mut self,
        after: InboxId,
        events: &[NewInboxEvent],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let Some(room) = events.first().map(|event| &event.room_id) else { return Ok(()) };
        let pending: Vec<(String,)> = sqlx::query_as(
            "SELECT event_id FROM matrix_inbox \
             WHERE room_id = $1 AND id > $2 AND content IS NOT NULL ORDER BY id",
        )
        .bind(room.as_str())
        .bind(after.0)
        .fetch_all(&mut *self.conn)
        .await?;
        self.insert(events, now_ms).await?;
        let history = events.iter().map(|event| event.event_id.as_str());
        let known: HashSet<_> = history.clone().collect();
        let newer = pending.iter().map(|(id,)| id.as_str()).filter(|id| !known.contains(id));
        let order: Vec<_> = history.chain(newer).collect();
        let mut id = sequence::take(&mut *self.conn, order.len()).await?;
        for event_id in order {
            sqlx::query(
                "UPDATE matrix_inbox SET id = $1 WHERE event_id = $2 AND content IS NOT NULL",
            )
            .bind(id)
            .bind(event_id)
            .execute(&mut *self.conn)
            .await?;
            id += 1;
        }
        Ok(())
    }

    /// Notes the number of the transaction that brought events, in their commit. A lower one than
    /// the highest so far changes nothing.
    ///
    /// # Errors
    /// When nothing was stored.
    pub async fn note_transaction(&mut self, number: u64) -> Result<(), StoreError> {
        let Ok(number) = i64::try_from(number) else { return Ok(()) };
        sqlx::query(
            "UPDATE store_owner SET last_transaction = $1 \
             WHERE last_transaction IS NULL OR last_transaction < $1",
        )
        .bind(number)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// The highest number of a transaction whose events were committed.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn last_transaction(&mut self) -> Result<Option<u64>, StoreError> {
        let (number,): (Option<i64>,) = sqlx::query_as("SELECT last_transaction FROM store_owner")
            .fetch_one(&mut *self.conn)
            .await?;
        Ok(number.and_then(|number| u64::try_from(number).ok()))
    }

    /// Open events of a room in the order they came: the oldest behind row `after`, or the oldest
    /// of all.
    ///
    /// # Errors
    /// When the database failed or a row cannot be opened.
    pub async fn load_pending(
        &mut self,
        room_id: &RoomId,
        after: Option<InboxId>,
        limit: u32,
    ) -> Result<Vec<InboxEvent>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, event_id, room_id, sender, origin_ts, received_ms, content \
             FROM matrix_inbox WHERE room_id = $1 AND id > $2 AND content IS NOT NULL \
             ORDER BY id LIMIT $3",
        )
        .bind(room_id.as_str())
        .bind(after.map_or(0, |row| row.0))
        .bind(i64::from(limit))
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(|row| row.into_domain(self.sealer)).collect()
    }

    /// The rooms that have open events, the one that waits longest first.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn pending_rooms(&mut self) -> Result<Vec<OwnedRoomId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT room_id FROM matrix_inbox WHERE content IS NOT NULL \
             GROUP BY room_id ORDER BY MIN(id)",
        )
        .fetch_all(&mut *self.conn)
        .await?;
        rows.iter().map(|(room,)| parse_column(room, TABLE, "room_id")).collect()
    }

    /// Ends an event: its content goes, its id stays to recognise it.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when it is done already: whoever did this too must not count.
    pub async fn mark_done(&mut self, id: InboxId) -> Result<(), StoreError> {
        let result = sqlx::query(
            "UPDATE matrix_inbox SET content = NULL WHERE id = $1 AND content IS NOT NULL",
        )
        .bind(id.0)
        .execute(&mut *self.conn)
        .await?;
        expect_one_row(&result, TABLE)
    }

    /// Forgets events that are done and were received before `before_ms` (milliseconds since
    /// 1970), and returns how many. One that was encrypted stays as long as its place in the room
    /// key's session: pushed again it could be decrypted, and would count as new.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn purge_done(&mut self, before_ms: i64) -> Result<u64, StoreError> {
        let result =
            sqlx::query(
                "DELETE FROM matrix_inbox WHERE content IS NULL AND received_ms < $1 AND NOT EXISTS (\
                     SELECT 1 FROM megolm_index AS used WHERE used.event_id = matrix_inbox.event_id)",
            )
            .bind(before_ms)
            .execute(&mut *self.conn)
            .await?;
        Ok(result.rows_affected())
    }
}
