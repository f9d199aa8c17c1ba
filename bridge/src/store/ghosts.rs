//! Ghosts and the bridge bot: the users of ours that have a device.

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use sqlx::AnyConnection;

use crate::network::RemoteUserId;

use super::{
    StoreError, Transaction,
    error::{expect_one_row, parse_column},
};

const TABLE: &str = "ghosts";

/// How far a ghost has come into being. Steps only go forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GhostStage {
    /// Its device id is chosen; the homeserver may or may not know it.
    Planned,
    /// The same, for a device that takes the place of others: the homeserver still has those.
    Replaced,
    /// The homeserver knows the user and the device.
    Registered,
    /// Its identity and keys are published: it can be written to.
    Published,
}

/// A user of ours with a device.
#[derive(Clone, PartialEq, Eq)]
pub struct Ghost {
    /// Its Matrix id.
    pub user_id: OwnedUserId,
    /// Whom it stands for; `None` for the bridge bot.
    pub remote_id: Option<RemoteUserId>,
    /// Its only device.
    pub device_id: OwnedDeviceId,
    /// How far it has come.
    pub stage: GhostStage,
}

/// All ghosts.
pub struct Ghosts<'t> {
    conn: &'t mut AnyConnection,
}

#[derive(sqlx::FromRow)]
struct Row {
    user_id: String,
    remote_id: Option<String>,
    device_id: String,
    stage: String,
}

impl GhostStage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Replaced => "replaced",
            Self::Registered => "registered",
            Self::Published => "published",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "planned" => Ok(Self::Planned),
            "replaced" => Ok(Self::Replaced),
            "registered" => Ok(Self::Registered),
            "published" => Ok(Self::Published),
            _ => Err(StoreError::Corrupt { table: TABLE, column: "stage" }),
        }
    }
}

impl TryFrom<Row> for Ghost {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            user_id: parse_column(row.user_id, TABLE, "user_id")?,
            remote_id: row.remote_id.map(RemoteUserId::new),
            device_id: row.device_id.into(),
            stage: GhostStage::parse(&row.stage)?,
        })
    }
}

impl<'t> Ghosts<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        Self { conn: tx.parts().0 }
    }

    /// Adds a ghost.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when there is one of this user or for this contact.
    pub async fn insert(&mut self, ghost: &Ghost) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO ghosts (user_id, remote_id, device_id, stage) VALUES ($1, $2, $3, $4)",
        )
        .bind(ghost.user_id.as_str())
        .bind(ghost.remote_id.as_ref().map(RemoteUserId::as_str))
        .bind(ghost.device_id.as_str())
        .bind(ghost.stage.as_str())
        .execute(&mut *self.conn)
        .await
        .map_err(StoreError::on_insert(TABLE))?;
        Ok(())
    }

    /// The ghost with this Matrix id.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find(&mut self, user_id: &UserId) -> Result<Option<Ghost>, StoreError> {
        let row: Option<Row> = sqlx::query_as(
            "SELECT user_id, remote_id, device_id, stage FROM ghosts WHERE user_id = $1",
        )
        .bind(user_id.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(Ghost::try_from).transpose()
    }

    /// All ghosts in this stage.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_by_stage(&mut self, stage: GhostStage) -> Result<Vec<Ghost>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT user_id, remote_id, device_id, stage FROM ghosts WHERE stage = $1 \
             ORDER BY user_id",
        )
        .bind(stage.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(Ghost::try_from).collect()
    }

    /// Remembers that a ghost has come to this stage.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRow`] when there is no such ghost.
    pub async fn set_stage(
        &mut self,
        user_id: &UserId,
        stage: GhostStage,
    ) -> Result<(), StoreError> {
        let result = sqlx::query("UPDATE ghosts SET stage = $2 WHERE user_id = $1")
            .bind(user_id.as_str())
            .bind(stage.as_str())
            .execute(&mut *self.conn)
            .await?;
        expect_one_row(&result, TABLE)
    }
}
