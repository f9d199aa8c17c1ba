//! Which Matrix event is which message of the other network.

use ruma::{EventId, OwnedEventId, OwnedRoomId};
use sqlx::AnyConnection;

use crate::network::{ChatKey, LegSecurity, RemoteMessageId};

use super::{
    Cell, InboxId, Sealer, StoreError, Transaction,
    chat_columns::{chat_key, local_user},
    error::{expect_one_row, parse_column},
    sequence,
};

const TABLE: &str = "message_map";

/// Which side of a chat a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageAuthor {
    /// The Matrix side.
    Local,
    /// The contact.
    Contact,
}

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// It is in an outbox.
    Pending,
    /// The network or the homeserver has it.
    Sent,
    /// The receiver's client has it.
    Delivered,
    /// It was refused for good.
    Failed,
}

/// A message on both legs.
#[derive(Clone, PartialEq, Eq)]
pub struct MappedMessage {
    /// The Matrix event.
    pub event_id: OwnedEventId,
    /// Its room.
    pub room_id: OwnedRoomId,
    /// The conversation.
    pub chat: ChatKey,
    /// Whose message it is.
    pub author: MessageAuthor,
    /// The id on the other network, where it has one.
    pub remote_id: Option<RemoteMessageId>,
    /// How the Matrix leg was protected.
    pub matrix_leg: LegSecurity,
    /// How the other leg was protected.
    pub remote_leg: LegSecurity,
    /// How far it has come.
    pub status: DeliveryStatus,
}

/// A message of the Matrix side, as the other network will know it.
#[derive(Clone, Copy)]
pub struct SentMessage<'a> {
    /// The conversation.
    pub chat: &'a ChatKey,
    /// The id on the other network.
    pub remote_id: &'a RemoteMessageId,
    /// How the Matrix leg was protected.
    pub matrix_leg: LegSecurity,
    /// How the other leg is protected.
    pub remote_leg: LegSecurity,
}

/// All known messages.
pub struct MessageMap<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
}

#[derive(sqlx::FromRow)]
struct Row {
    event_id: String,
    room_id: String,
    local_user: String,
    contact: String,
    author: String,
    remote_id: Option<String>,
    matrix_leg: String,
    remote_leg: String,
    status: String,
}

impl TryFrom<Row> for MappedMessage {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            event_id: parse_column(row.event_id, TABLE, "event_id")?,
            room_id: parse_column(row.room_id, TABLE, "room_id")?,
            chat: chat_key(&row.local_user, row.contact, TABLE)?,
            author: MessageAuthor::parse(&row.author)?,
            remote_id: row.remote_id.map(RemoteMessageId::new),
            matrix_leg: parse_leg(&row.matrix_leg, "matrix_leg")?,
            remote_leg: parse_leg(&row.remote_leg, "remote_leg")?,
            status: DeliveryStatus::parse(&row.status)?,
        })
    }
}

impl MessageAuthor {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Contact => "contact",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "local" => Ok(Self::Local),
            "contact" => Ok(Self::Contact),
            _ => Err(StoreError::Corrupt { table: TABLE, column: "author" }),
        }
    }
}

impl DeliveryStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "pending" => Ok(Self::Pending),
            "sent" => Ok(Self::Sent),
            "delivered" => Ok(Self::Delivered),
            "failed" => Ok(Self::Failed),
            _ => Err(StoreError::Corrupt { table: TABLE, column: "status" }),
        }
    }
}

fn leg_text(leg: LegSecurity, column: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(&leg).map_err(|_| StoreError::Encode { table: TABLE, column })
}

fn parse_leg(text: &str, column: &'static str) -> Result<LegSecurity, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { table: TABLE, column })
}

impl<'t> MessageMap<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        let (conn, sealer) = tx.parts();
        Self { conn, sealer }
    }

    /// Adds a message.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the event is mapped.
    pub async fn insert(&mut self, message: &MappedMessage) -> Result<(), StoreError> {
        let id = sequence::take(&mut *self.conn, 1).await?;
        let blind = message
            .remote_id
            .as_ref()
            .map(|remote_id| self.blind(&message.chat, message.author, remote_id))
            .transpose()?;
        sqlx::query(
            "INSERT INTO message_map (id, event_id, room_id, local_user, contact, author, \
                 remote_id, remote_id_blind, matrix_leg, remote_leg, status) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(id)
        .bind(message.event_id.as_str())
        .bind(message.room_id.as_str())
        .bind(local_user(&message.chat.local))
        .bind(message.chat.contact.as_str())
        .bind(message.author.as_str())
        .bind(message.remote_id.as_ref().map(RemoteMessageId::as_str))
        .bind(blind)
        .bind(leg_text(message.matrix_leg, "matrix_leg")?)
        .bind(leg_text(message.remote_leg, "remote_leg")?)
        .bind(message.status.as_str())
        .execute(&mut *self.conn)
        .await
        .map_err(StoreError::on_insert(TABLE))?;
        Ok(())
    }

    /// Adds a message from the Matrix side that is on its way out. `inbox` is its event, done or
    /// about to be done in the same transaction.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when the inbox does not know the event,
    /// [`StoreError::AlreadyExists`] when the event is mapped.
    pub async fn insert_sent(
        &mut self,
        inbox: InboxId,
        sent: SentMessage<'_>,
    ) -> Result<(), StoreError> {
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT event_id, room_id FROM matrix_inbox WHERE id = $1")
                .bind(inbox.0)
                .fetch_optional(&mut *self.conn)
                .await?;
        let Some((event_id, room_id)) = row else {
            return Err(StoreError::NoSuchRow { table: "matrix_inbox" });
        };
        let message = MappedMessage {
            event_id: parse_column(event_id, TABLE, "event_id")?,
            room_id: parse_column(room_id, TABLE, "room_id")?,
            chat: sent.chat.clone(),
            author: MessageAuthor::Local,
            remote_id: Some(sent.remote_id.clone()),
            matrix_leg: sent.matrix_leg,
            remote_leg: sent.remote_leg,
            status: DeliveryStatus::Pending,
        };
        self.insert(&message).await
    }

    /// The message that is this event.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find_by_event(
        &mut self,
        event_id: &EventId,
    ) -> Result<Option<MappedMessage>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT event_id, room_id, local_user, contact, author, remote_id, matrix_leg, \
                 remote_leg, status \
             FROM message_map WHERE event_id = $1",
        )
        .bind(event_id.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(MappedMessage::try_from).transpose()
    }

    /// The message with this id of this author in this chat; the newest, should the author's
    /// client have used the id twice.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find_by_remote(
        &mut self,
        chat: &ChatKey,
        author: MessageAuthor,
        remote_id: &RemoteMessageId,
    ) -> Result<Option<MappedMessage>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT event_id, room_id, local_user, contact, author, remote_id, matrix_leg, \
                 remote_leg, status \
             FROM message_map WHERE remote_id_blind = $1 ORDER BY id DESC LIMIT 1",
        )
        .bind(self.blind(chat, author, remote_id)?)
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(MappedMessage::try_from).transpose()
    }

    /// Changes how far a message has come.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when the event is not mapped.
    pub async fn set_status(
        &mut self,
        event_id: &EventId,
        status: DeliveryStatus,
    ) -> Result<(), StoreError> {
        let result = sqlx::query("UPDATE message_map SET status = $2 WHERE event_id = $1")
            .bind(event_id.as_str())
            .bind(status.as_str())
            .execute(&mut *self.conn)
            .await?;
        expect_one_row(&result, TABLE)
    }

    fn blind(
        &self,
        chat: &ChatKey,
        author: MessageAuthor,
        remote_id: &RemoteMessageId,
    ) -> Result<Vec<u8>, StoreError> {
        self.sealer.blind(Cell {
            table: TABLE,
            column: "remote_id_blind",
            row: &[
                local_user(&chat.local),
                chat.contact.as_str(),
                author.as_str(),
                remote_id.as_str(),
            ],
        })
    }
}
