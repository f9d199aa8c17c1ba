//! Portals: which room is which chat.

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use sqlx::AnyConnection;

use crate::network::{Author, ChatKey, PlaintextPolicy, RemoteUserId};

use super::{
    StoreError, Transaction,
    error::{expect_one_row, parse_column},
};

const TABLE: &str = "portals";

/// Whether a room is encrypted. A room never becomes plain again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomEncryption {
    /// It has never been.
    Plain,
    /// It is.
    Encrypted,
}

/// Whether a chat has ever been encrypted on the other network's leg. That is never forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteHistory {
    /// Nothing encrypted has been sent or received.
    NeverEncrypted,
    /// Something has.
    Encrypted,
}

/// Whether the bridge bot is in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BotPresence {
    /// It is not, as far as the bridge knows.
    Absent,
    /// It is.
    Joined,
}

/// How a portal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortalState {
    /// The bridge has made the room, and has not invited the person yet.
    Made,
    /// The person is invited.
    Pending,
    /// The person and the ghost are in it.
    Active,
    /// The person has left it.
    Closed,
}

/// What a portal is made from.
#[derive(Clone, PartialEq, Eq)]
pub struct NewPortal {
    /// Its room.
    pub room_id: OwnedRoomId,
    /// The network's name.
    pub network: String,
    /// The person on the Matrix side.
    pub local: OwnedUserId,
    /// The contact on the other side.
    pub contact: RemoteUserId,
    /// The contact's ghost.
    pub ghost: OwnedUserId,
    /// Whether the room is encrypted.
    pub encryption: RoomEncryption,
    /// How it stands.
    pub state: PortalState,
}

/// A room that is a chat with one contact.
#[derive(Clone, PartialEq, Eq)]
pub struct Portal {
    /// Its room.
    pub room_id: OwnedRoomId,
    /// The network's name.
    pub network: String,
    /// The person on the Matrix side.
    pub local: OwnedUserId,
    /// The contact on the other side.
    pub contact: RemoteUserId,
    /// The contact's ghost.
    pub ghost: OwnedUserId,
    /// Whether the room is encrypted.
    pub encryption: RoomEncryption,
    /// Whether the other leg may be unencrypted.
    pub plaintext: PlaintextPolicy,
    /// Whether the other leg has ever been encrypted.
    pub history: RemoteHistory,
    /// Whether the bridge bot is in the room.
    pub bot: BotPresence,
    /// How it stands.
    pub state: PortalState,
}

/// All portals.
pub struct Portals<'t> {
    conn: &'t mut AnyConnection,
}

#[derive(sqlx::FromRow)]
struct Row {
    room_id: String,
    network: String,
    local_user: String,
    contact: String,
    ghost: String,
    encrypted: i64,
    plaintext: String,
    remote_encrypted: i64,
    bot: String,
    state: String,
}

impl TryFrom<Row> for Portal {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            room_id: parse_column(row.room_id, TABLE, "room_id")?,
            network: row.network,
            local: parse_column(row.local_user, TABLE, "local_user")?,
            contact: RemoteUserId::new(row.contact),
            ghost: parse_column(row.ghost, TABLE, "ghost")?,
            encryption: if row.encrypted == 0 {
                RoomEncryption::Plain
            } else {
                RoomEncryption::Encrypted
            },
            plaintext: parse_plaintext(&row.plaintext)?,
            history: if row.remote_encrypted == 0 {
                RemoteHistory::NeverEncrypted
            } else {
                RemoteHistory::Encrypted
            },
            bot: BotPresence::parse(&row.bot)?,
            state: PortalState::parse(&row.state)?,
        })
    }
}

impl RoomEncryption {
    fn as_flag(self) -> i64 {
        match self {
            Self::Plain => 0,
            Self::Encrypted => 1,
        }
    }
}

impl BotPresence {
    fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Joined => "joined",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "absent" => Ok(Self::Absent),
            "joined" => Ok(Self::Joined),
            _ => Err(StoreError::Corrupt { table: TABLE, column: "bot" }),
        }
    }
}

impl PortalState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Closed => "closed",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "made" => Ok(Self::Made),
            "pending" => Ok(Self::Pending),
            "active" => Ok(Self::Active),
            "closed" => Ok(Self::Closed),
            _ => Err(StoreError::Corrupt { table: TABLE, column: "state" }),
        }
    }
}

fn plaintext_str(policy: PlaintextPolicy) -> &'static str {
    match policy {
        PlaintextPolicy::Refuse => "refuse",
        PlaintextPolicy::Allow => "allow",
    }
}

fn parse_plaintext(text: &str) -> Result<PlaintextPolicy, StoreError> {
    match text {
        "refuse" => Ok(PlaintextPolicy::Refuse),
        "allow" => Ok(PlaintextPolicy::Allow),
        _ => Err(StoreError::Corrupt { table: TABLE, column: "plaintext" }),
    }
}

impl<'t> Portals<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        Self { conn: tx.parts().0 }
    }

    /// Adds a portal, without the bridge bot and with plaintext refused.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when the room or the chat has a portal.
    pub async fn insert(&mut self, portal: &NewPortal) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO portals (room_id, network, local_user, contact, ghost, encrypted, \
                 plaintext, bot, state) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(portal.room_id.as_str())
        .bind(&portal.network)
        .bind(portal.local.as_str())
        .bind(portal.contact.as_str())
        .bind(portal.ghost.as_str())
        .bind(portal.encryption.as_flag())
        .bind(plaintext_str(PlaintextPolicy::Refuse))
        .bind(BotPresence::Absent.as_str())
        .bind(portal.state.as_str())
        .execute(&mut *self.conn)
        .await
        .map_err(StoreError::on_insert(TABLE))?;
        Ok(())
    }

    /// The portal of a room.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find_by_room(&mut self, room_id: &RoomId) -> Result<Option<Portal>, StoreError> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM portals WHERE room_id = $1")
            .bind(room_id.as_str())
            .fetch_optional(&mut *self.conn)
            .await?;
        row.map(Portal::try_from).transpose()
    }

    /// The portal of a chat.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find_by_chat(
        &mut self,
        network: &str,
        local: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Option<Portal>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT * FROM portals WHERE network = $1 AND local_user = $2 AND contact = $3",
        )
        .bind(network)
        .bind(local.as_str())
        .bind(contact.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(Portal::try_from).transpose()
    }

    /// All portals of a person.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_by_local(&mut self, local: &UserId) -> Result<Vec<Portal>, StoreError> {
        let rows: Vec<Row> =
            sqlx::query_as("SELECT * FROM portals WHERE local_user = $1 ORDER BY room_id")
                .bind(local.as_str())
                .fetch_all(&mut *self.conn)
                .await?;
        rows.into_iter().map(Portal::try_from).collect()
    }

    /// The portals of a person in which something waits, on either side.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_waiting(
        &mut self,
        network: &str,
        local: &UserId,
    ) -> Result<Vec<Portal>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM portals WHERE network = $1 AND local_user = $2 AND ( \
             EXISTS (SELECT 1 FROM matrix_inbox WHERE matrix_inbox.room_id = portals.room_id \
             AND matrix_inbox.content IS NOT NULL) \
             OR EXISTS (SELECT 1 FROM remote_inbox WHERE remote_inbox.contact = portals.contact \
             AND remote_inbox.local_user = portals.local_user)) ORDER BY room_id",
        )
        .bind(network)
        .bind(local.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(Portal::try_from).collect()
    }

    /// All portals of a contact.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_by_contact(
        &mut self,
        network: &str,
        contact: &RemoteUserId,
    ) -> Result<Vec<Portal>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM portals WHERE network = $1 AND contact = $2 ORDER BY local_user",
        )
        .bind(network)
        .bind(contact.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(Portal::try_from).collect()
    }

    /// Remembers that the room is encrypted, for ever.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when the room is no portal.
    pub async fn set_encrypted(&mut self, room_id: &RoomId) -> Result<(), StoreError> {
        let result = sqlx::query("UPDATE portals SET encrypted = 1 WHERE room_id = $1")
            .bind(room_id.as_str())
            .execute(&mut *self.conn)
            .await?;
        expect_one_row(&result, TABLE)
    }

    /// Changes whether the other leg may be unencrypted.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when the room is no portal.
    pub async fn set_plaintext(
        &mut self,
        room_id: &RoomId,
        policy: PlaintextPolicy,
    ) -> Result<(), StoreError> {
        let result = sqlx::query("UPDATE portals SET plaintext = $2 WHERE room_id = $1")
            .bind(room_id.as_str())
            .bind(plaintext_str(policy))
            .execute(&mut *self.conn)
            .await?;
        expect_one_row(&result, TABLE)
    }

    /// A message of this chat is encrypted on the other leg: that is remembered, and consent to
    /// plaintext ends with it. Should the contact's encryption be gone one day, or be hidden by
    /// somebody on the way, the person is asked again. A chat without a portal has no consent.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn encryption_was_used(
        &mut self,
        network: &str,
        chat: &ChatKey,
    ) -> Result<(), StoreError> {
        let Author::Person(local) = &chat.local else { return Ok(()) };
        sqlx::query(
            "UPDATE portals SET remote_encrypted = 1, plaintext = $4 \
             WHERE network = $1 AND local_user = $2 AND contact = $3 \
             AND (remote_encrypted = 0 OR plaintext <> $4)",
        )
        .bind(network)
        .bind(local.as_str())
        .bind(chat.contact.as_str())
        .bind(plaintext_str(PlaintextPolicy::Refuse))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Remembers whether the bridge bot is in the room.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when the room is no portal.
    pub async fn set_bot(&mut self, room_id: &RoomId, bot: BotPresence) -> Result<(), StoreError> {
        let result = sqlx::query("UPDATE portals SET bot = $2 WHERE room_id = $1")
            .bind(room_id.as_str())
            .bind(bot.as_str())
            .execute(&mut *self.conn)
            .await?;
        expect_one_row(&result, TABLE)
    }

    /// The bridge bot was found not to be in the room, which need not be a portal.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn bot_is_gone(&mut self, room_id: &RoomId) -> Result<(), StoreError> {
        sqlx::query("UPDATE portals SET bot = $2 WHERE room_id = $1")
            .bind(room_id.as_str())
            .bind(BotPresence::Absent.as_str())
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Changes how it stands.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when the room is no portal.
    pub async fn set_state(
        &mut self,
        room_id: &RoomId,
        state: PortalState,
    ) -> Result<(), StoreError> {
        let result = sqlx::query("UPDATE portals SET state = $2 WHERE room_id = $1")
            .bind(room_id.as_str())
            .bind(state.as_str())
            .execute(&mut *self.conn)
            .await?;
        expect_one_row(&result, TABLE)
    }

    /// Moves the chat of a portal into a new room, in which the bridge bot is not yet and which
    /// is [`PortalState::Pending`]. What was decided about plaintext, and what is known of
    /// the other leg, stays.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when the old room is no portal, [`StoreError::AlreadyExists`]
    /// when the new one is.
    pub async fn replace_room(
        &mut self,
        old: &RoomId,
        new: &RoomId,
        encryption: RoomEncryption,
    ) -> Result<(), StoreError> {
        let result = sqlx::query(
            "UPDATE portals SET room_id = $2, encrypted = $3, bot = $4, state = $5 \
             WHERE room_id = $1",
        )
        .bind(old.as_str())
        .bind(new.as_str())
        .bind(encryption.as_flag())
        .bind(BotPresence::Absent.as_str())
        .bind(PortalState::Pending.as_str())
        .execute(&mut *self.conn)
        .await
        .map_err(StoreError::on_insert(TABLE))?;
        expect_one_row(&result, TABLE)
    }
}
