//! Verifications under way between a Matrix user and a contact.

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, UserId};
use sqlx::AnyConnection;

use crate::network::RemoteUserId;

use super::{
    StoreError, Transaction,
    error::{expect_one_row, parse_column},
};

const TABLE: &str = "verifications";

/// A verification under way.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredVerification {
    /// The ghost whose identity is compared.
    pub ghost: OwnedUserId,
    /// The Matrix user.
    pub user_id: OwnedUserId,
    /// What names it between the two.
    pub flow: String,
    /// The contact behind the ghost.
    pub contact: RemoteUserId,
    /// The portal of the two.
    pub portal_room: OwnedRoomId,
    /// The room it goes through; `None` when it goes from device to device.
    pub flow_room: Option<OwnedRoomId>,
    /// The user's device, where it goes to one.
    pub device_id: Option<OwnedDeviceId>,
    /// How far it is.
    pub stage: VerificationStage,
    /// The three numbers that the contact was shown.
    pub shown: Option<[u16; 3]>,
}

/// How far a verification is, as both people know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerificationStage {
    /// The Matrix user has asked for it.
    AskedByUser,
    /// The contact has asked for it.
    AskedByContact,
    /// The contact sees what is to be compared.
    Shown,
    /// The contact has said that it is the same.
    Confirmed,
}

impl VerificationStage {
    fn as_str(self) -> &'static str {
        match self {
            Self::AskedByUser => "asked_by_user",
            Self::AskedByContact => "asked_by_contact",
            Self::Shown => "shown",
            Self::Confirmed => "confirmed",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "asked_by_user" => Ok(Self::AskedByUser),
            "asked_by_contact" => Ok(Self::AskedByContact),
            "shown" => Ok(Self::Shown),
            "confirmed" => Ok(Self::Confirmed),
            _ => Err(StoreError::Corrupt { table: TABLE, column: "stage" }),
        }
    }
}

fn parse_numbers(text: &str) -> Result<[u16; 3], StoreError> {
    let numbers: Option<Vec<u16>> = text.split(' ').map(|number| number.parse().ok()).collect();
    let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or(StoreError::Corrupt { table: TABLE, column: "shown" })
}

/// All verifications under way.
pub struct Verifications<'t> {
    conn: &'t mut AnyConnection,
}

#[derive(sqlx::FromRow)]
struct Row {
    ghost: String,
    user_id: String,
    flow: String,
    contact: String,
    portal_room: String,
    flow_room: Option<String>,
    device_id: Option<String>,
    stage: String,
    shown: Option<String>,
}

impl TryFrom<Row> for StoredVerification {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let room = |text| parse_column(text, TABLE, "flow_room");
        Ok(Self {
            ghost: parse_column(row.ghost, TABLE, "ghost")?,
            user_id: parse_column(row.user_id, TABLE, "user_id")?,
            flow: row.flow,
            contact: RemoteUserId::new(row.contact),
            portal_room: parse_column(row.portal_room, TABLE, "portal_room")?,
            flow_room: row.flow_room.map(room).transpose()?,
            device_id: row.device_id.map(OwnedDeviceId::from),
            stage: VerificationStage::parse(&row.stage)?,
            shown: row.shown.as_deref().map(parse_numbers).transpose()?,
        })
    }
}

impl<'t> Verifications<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        Self { conn: tx.parts().0 }
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when it is known.
    pub async fn insert(&mut self, new: &StoredVerification) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO verifications (ghost, user_id, flow, contact, portal_room, flow_room, \
                 device_id, stage) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(new.ghost.as_str())
        .bind(new.user_id.as_str())
        .bind(&new.flow)
        .bind(new.contact.as_str())
        .bind(new.portal_room.as_str())
        .bind(new.flow_room.as_ref().map(|room| room.as_str()))
        .bind(new.device_id.as_ref().map(|device| device.as_str()))
        .bind(new.stage.as_str())
        .execute(&mut *self.conn)
        .await
        .map_err(StoreError::on_insert(TABLE))?;
        Ok(())
    }

    /// Notes how far one is.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when it is not known.
    pub async fn set_stage(
        &mut self,
        of: &StoredVerification,
        stage: VerificationStage,
    ) -> Result<(), StoreError> {
        let result = sqlx::query(
            "UPDATE verifications SET stage = $4 WHERE ghost = $1 AND user_id = $2 AND flow = $3",
        )
        .bind(of.ghost.as_str())
        .bind(of.user_id.as_str())
        .bind(&of.flow)
        .bind(stage.as_str())
        .execute(&mut *self.conn)
        .await?;
        expect_one_row(&result, TABLE)
    }

    /// Notes what the contact is shown.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when it is not known.
    pub async fn set_shown(
        &mut self,
        of: &StoredVerification,
        numbers: [u16; 3],
    ) -> Result<(), StoreError> {
        let result = sqlx::query(
            "UPDATE verifications SET stage = $4, shown = $5 \
             WHERE ghost = $1 AND user_id = $2 AND flow = $3",
        )
        .bind(of.ghost.as_str())
        .bind(of.user_id.as_str())
        .bind(&of.flow)
        .bind(VerificationStage::Shown.as_str())
        .bind(numbers.map(|number| number.to_string()).join(" "))
        .execute(&mut *self.conn)
        .await?;
        expect_one_row(&result, TABLE)
    }

    /// All of a ghost.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_by_ghost(
        &mut self,
        ghost: &UserId,
    ) -> Result<Vec<StoredVerification>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT ghost, user_id, flow, contact, portal_room, flow_room, device_id, stage, \
                 shown \
             FROM verifications WHERE ghost = $1 ORDER BY user_id, flow",
        )
        .bind(ghost.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// All of a contact.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_by_contact(
        &mut self,
        contact: &RemoteUserId,
    ) -> Result<Vec<StoredVerification>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT ghost, user_id, flow, contact, portal_room, flow_room, device_id, stage, \
                 shown \
             FROM verifications WHERE contact = $1 ORDER BY user_id, flow",
        )
        .bind(contact.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The ghosts that have any.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_ghosts(&mut self) -> Result<Vec<OwnedUserId>, StoreError> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT DISTINCT ghost FROM verifications ORDER BY ghost")
                .fetch_all(&mut *self.conn)
                .await?;
        rows.into_iter().map(|(ghost,)| parse_column(ghost, TABLE, "ghost")).collect()
    }

    /// Forgets all between a Matrix user and a contact.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn delete_between(
        &mut self,
        (user, contact): (&UserId, &RemoteUserId),
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM verifications WHERE user_id = $1 AND contact = $2")
            .bind(user.as_str())
            .bind(contact.as_str())
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Forgets one. Returns whether it was known: what somebody else has ended, nothing follows from.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn delete(&mut self, of: &StoredVerification) -> Result<bool, StoreError> {
        let result = sqlx::query(
            "DELETE FROM verifications WHERE ghost = $1 AND user_id = $2 AND flow = $3",
        )
        .bind(of.ghost.as_str())
        .bind(of.user_id.as_str())
        .bind(&of.flow)
        .execute(&mut *self.conn)
        .await?;
        Ok(result.rows_affected() == 1)
    }
}
