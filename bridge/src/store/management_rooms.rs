//! Rooms in which a person talks to the bridge bot.

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use sqlx::AnyConnection;

use super::{StoreError, Transaction, error::parse_column};

const TABLE: &str = "management_rooms";

/// A room of a person and the bridge bot.
#[derive(Clone, PartialEq, Eq)]
pub struct ManagementRoom {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The person.
    pub user_id: OwnedUserId,
}

/// All management rooms.
pub struct ManagementRooms<'t> {
    conn: &'t mut AnyConnection,
}

impl<'t> ManagementRooms<'t> {
    pub(super) fn new(tx: &'t mut Transaction) -> Self {
        Self { conn: tx.parts().0 }
    }

    /// Remembers a room, or that it belongs to another person by now.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn insert(&mut self, room: &ManagementRoom) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO management_rooms (room_id, user_id) VALUES ($1, $2) \
             ON CONFLICT (room_id) DO UPDATE SET user_id = excluded.user_id",
        )
        .bind(room.room_id.as_str())
        .bind(room.user_id.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// The management room with this id, if it is one.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn find_by_room(
        &mut self,
        room_id: &RoomId,
    ) -> Result<Option<ManagementRoom>, StoreError> {
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT room_id, user_id FROM management_rooms WHERE room_id = $1")
                .bind(room_id.as_str())
                .fetch_optional(&mut *self.conn)
                .await?;
        row.map(into_domain).transpose()
    }

    /// The person's management rooms.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn load_by_user(
        &mut self,
        user_id: &UserId,
    ) -> Result<Vec<ManagementRoom>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT room_id, user_id FROM management_rooms WHERE user_id = $1 ORDER BY room_id",
        )
        .bind(user_id.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        rows.into_iter().map(into_domain).collect()
    }

    /// Forgets a room, if it is known.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn delete(&mut self, room_id: &RoomId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM management_rooms WHERE room_id = $1")
            .bind(room_id.as_str())
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }
}

fn into_domain((room_id, user_id): (String, String)) -> Result<ManagementRoom, StoreError> {
    Ok(ManagementRoom {
        room_id: parse_column(room_id, TABLE, "room_id")?,
        user_id: parse_column(user_id, TABLE, "user_id")?,
    })
}
