//! Events on their way to the homeserver, exactly as they will be sent.

use ruma::{OwnedRoomId, OwnedTransactionId, OwnedUserId, RoomId};
use sqlx::AnyConnection;

use super::{
    Cell, Sealer, StoreError, Transaction,
    error::{expect_one_row, parse_column},
    sequence,
};

const TABLE: &str = "matrix_outbox";

/// A row of the Matrix outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatrixOutboxId(pub i64);

/// An event to send.
#[derive(Clone, PartialEq, Eq)]
pub struct NewOutboxEvent {
    /// Where to. Events of one room leave in the order they were inserted.
    pub room_id: OwnedRoomId,
    /// As whom.
    pub user_id: OwnedUserId,
    /// Its type.
    pub event_type: String,
    /// Unique over the whole application service; every attempt uses it.
    pub txn_id: OwnedTransactionId,
    /// JSON of the content, the same at every attempt.
    pub content: String,
    /// What the sender will need once the event is sent. Opaque here, and sealed.
    pub reference: Option<String>,
}

/// An event that is not sent yet.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its row.
    pub id: MatrixOutboxId,
    /// The event.
    pub event: NewOutboxEvent,
}

/// Shows no id and no content.
impl std::fmt::Debug for OutboxEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxEvent").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The Matrix outbox.
pub struct MatrixOutbox<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    txn_id: String,
    room_id: String,
    user_id: String,
    event_type: String,
    content: Vec<u8>,
    reference: Option<Vec<u8>>,
}

impl Row {
    fn into_domain(self, sealer: &Sealer) -> Result<OutboxEvent, StoreError> {
        let row = [self.txn_id.as_str()];
        let reference = self
            .reference
            .map(|sealed| sealer.open_text(cell("reference", &row), &sealed))
            .transpose()?;
        let event = NewOutboxEvent {
            content: sealer.open_text(cell("content", &row), &self.content)?,
            reference,
            room_id: parse_column(&self.room_id, TABLE, "room_id")?,
            user_id: parse_column(&self.user_id, TABLE, "user_id")?,
            txn_id: OwnedTransactionId::from(self.txn_id.as_str()),
            event_type: self.event_type,
        };
        Ok(OutboxEvent { id: MatrixOutboxId(self.id), event })
    }
}

fn cell<'a>(column: &'static str, row: &'a [&'a str]) -> Cell<'a> {
    Cell { table: TABLE, column, row }
}

impl<'t> MatrixOutbox<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        let (conn, sealer) = tx.parts();
        Self { conn, sealer }
    }

    /// Stores an event behind all others of its room.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the transaction id is in use.
    pub async fn insert(&mut self, event: &NewOutboxEvent) -> Result<MatrixOutboxId, StoreError> {
        let id = sequence::take(&mut *self.conn, 1).await?;
        let row = [event.txn_id.as_str()];
        let content = self.sealer.seal(cell("content", &row), event.content.as_bytes())?;
        let reference = event
            .reference
            .as_ref()
            .map(|text| self.sealer.seal(cell("reference", &row), text.as_bytes()))
            .transpose()?;
        sqlx::query(
            "INSERT INTO matrix_outbox \
                 (id, txn_id, room_id, user_id, event_type, content, reference) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id)
        .bind(event.txn_id.as_str())
        .bind(event.room_id.as_str())
        .bind(event.user_id.as_str())
        .bind(&event.event_type)
        .bind(content)
        .bind(reference)
        .execute(&mut *self.conn)
        .await
        .map_err(StoreError::on_insert(TABLE))?;
        Ok(MatrixOutboxId(id))
    }

    /// The oldest unsent events of a room, in order.
    ///
    /// # Errors
    /// When the database failed or a row cannot be opened.
    pub async fn load_pending(
        &mut self,
        room_id: &RoomId,
        limit: u32,
    ) -> Result<Vec<OutboxEvent>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, txn_id, room_id, user_id, event_type, content, reference \
             FROM matrix_outbox WHERE room_id = $1 ORDER BY id LIMIT $2",
        )
        .bind(room_id.as_str())
        .bind(i64::from(limit))
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(|row| row.into_domain(self.sealer)).collect()
    }

    /// The rooms that have unsent events, the one that waits longest first.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn pending_rooms(&mut self) -> Result<Vec<OwnedRoomId>, StoreError> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT room_id FROM matrix_outbox GROUP BY room_id ORDER BY MIN(id)")
                .fetch_all(&mut *self.conn)
                .await?;
        rows.iter().map(|(room,)| parse_column(room, TABLE, "room_id")).collect()
    }

    /// Ends an event that was sent or refused for good: nothing of it stays.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when it is done already.
    pub async fn mark_sent(&mut self, id: MatrixOutboxId) -> Result<(), StoreError> {
        let result = sqlx::query("DELETE FROM matrix_outbox WHERE id = $1")
            .bind(id.0)
            .execute(&mut *self.conn)
            .await?;
        expect_one_row(&result, TABLE)
    }
}
