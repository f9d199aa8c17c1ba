//! Received room keys of one device.

use matrix_sdk_crypto::{
    olm::{InboundGroupSession, PickledInboundGroupSession, SenderDataType},
    store::types::RoomKeyCounts,
};
use ruma::RoomId;
use sqlx::AnyConnection;

use super::{SqlCryptoStoreError, records::Tenant};
use crate::store::{Cell, Sealer, StoreError, Transaction};

const TABLE: &str = "crypto_room_keys";

/// The longest room id, in bytes. The libraries take longer ones, PostgreSQL's indexes do not.
///
/// Spec: <https://spec.matrix.org/v1.17/appendices/#room-ids>
const MAX_ROOM_ID: usize = 255;

/// All received room keys of a device.
pub(super) struct RoomKeys<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
    tenant: Tenant,
}

/// Which keys of a device to load, and where to go on.
pub(super) struct DeviceBatch<'a> {
    pub sender_key: &'a str,
    pub sender_data_type: SenderDataType,
    /// Only sessions behind this one.
    pub after_session_id: &'a str,
    pub limit: usize,
}

#[derive(sqlx::FromRow)]
struct Row {
    room_id: String,
    session_id: String,
    backed_up: i64,
    pickle: Vec<u8>,
}

/// A pickle with what its row is looked up by.
pub(super) struct NewRoomKey {
    sender_key: String,
    pickle: PickledInboundGroupSession,
    session_id: String,
}

impl NewRoomKey {
    pub(super) async fn new(session: &InboundGroupSession) -> Self {
        Self {
            sender_key: session.sender_key().to_base64(),
            session_id: session.session_id().to_owned(),
            pickle: session.pickle().await,
        }
    }
}

impl<'t> RoomKeys<'t> {
    pub(super) fn new(tx: &'t mut Transaction, tenant: Tenant) -> Self {
        let (conn, sealer) = tx.parts();
        Self { conn, sealer, tenant }
    }

    /// Stores a key in place of the one there. One for a room that cannot exist is dropped: whoever sent it chose the
    /// room's id.
    pub(super) async fn put(&mut self, key: &NewRoomKey) -> Result<(), StoreError> {
        let room_id = key.pickle.room_id.as_str();
        if room_id.len() > MAX_ROOM_ID || room_id.contains('\0') {
            tracing::info!("store.crypto: a room key for no possible room was dropped");
            return Ok(());
        }
        let sealed = self.in_cell(room_id, &key.session_id, |cell, sealer| {
            sealer.seal_json(cell, &key.pickle)
        })?;
        sqlx::query(
            "INSERT INTO crypto_room_keys \
                 (tenant, room_id, session_id, sender_key, sender_data_type, backed_up, pickle) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (tenant, room_id, session_id) DO UPDATE SET \
                 sender_key = excluded.sender_key, \
                 sender_data_type = excluded.sender_data_type, \
                 backed_up = excluded.backed_up, pickle = excluded.pickle",
        )
        .bind(self.tenant.0)
        .bind(room_id)
        .bind(&key.session_id)
        .bind(&key.sender_key)
        .bind(key.pickle.sender_data.to_type() as i64)
        .bind(i64::from(key.pickle.backed_up))
        .bind(sealed)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// One key.
    pub(super) async fn find(
        &mut self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<InboundGroupSession>, SqlCryptoStoreError> {
        // An event may ask for anything; PostgreSQL does not take this character.
        if session_id.contains('\0') {
            return Ok(None);
        }
        let row: Option<Row> = sqlx::query_as(
            "SELECT room_id, session_id, backed_up, pickle FROM crypto_room_keys \
             WHERE tenant = $1 AND room_id = $2 AND session_id = $3",
        )
        .bind(self.tenant.0)
        .bind(room_id.as_str())
        .bind(session_id)
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(|row| self.restore(&row)).transpose()
    }

    /// All keys.
    pub(super) async fn load_all(
        &mut self,
    ) -> Result<Vec<InboundGroupSession>, SqlCryptoStoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT room_id, session_id, backed_up, pickle FROM crypto_room_keys \
             WHERE tenant = $1",
        )
        .bind(self.tenant.0)
        .fetch_all(&mut *self.conn)
        .await?;
        self.restore_all(&rows)
    }

    /// All keys of a room.
    pub(super) async fn load_room(
        &mut self,
        room_id: &RoomId,
    ) -> Result<Vec<InboundGroupSession>, SqlCryptoStoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT room_id, session_id, backed_up, pickle FROM crypto_room_keys \
             WHERE tenant = $1 AND room_id = $2",
        )
        .bind(self.tenant.0)
        .bind(room_id.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        self.restore_all(&rows)
    }

    /// Some keys of a device, ordered by session.
    pub(super) async fn load_device_batch(
        &mut self,
        batch: DeviceBatch<'_>,
    ) -> Result<Vec<InboundGroupSession>, SqlCryptoStoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT room_id, session_id, backed_up, pickle FROM crypto_room_keys \
             WHERE tenant = $1 AND sender_key = $2 AND sender_data_type = $3 \
                 AND session_id > $4 \
             ORDER BY session_id LIMIT $5",
        )
        .bind(self.tenant.0)
        .bind(batch.sender_key)
        .bind(batch.sender_data_type as i64)
        .bind(batch.after_session_id)
        .bind(sql_limit(batch.limit))
        .fetch_all(&mut *self.conn)
        .await?;
        self.restore_all(&rows)
    }

    /// Some keys that are in no backup.
    pub(super) async fn load_for_backup(
        &mut self,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>, SqlCryptoStoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT room_id, session_id, backed_up, pickle FROM crypto_room_keys \
             WHERE tenant = $1 AND backed_up = 0 LIMIT $2",
        )
        .bind(self.tenant.0)
        .bind(sql_limit(limit))
        .fetch_all(&mut *self.conn)
        .await?;
        self.restore_all(&rows)
    }

    /// How many keys there are, and how many of them in a backup.
    pub(super) async fn count(&mut self) -> Result<RoomKeyCounts, StoreError> {
        let (total, backed_up): (i64, i64) = sqlx::query_as(
            "SELECT COUNT(*), COUNT(CASE WHEN backed_up = 1 THEN 1 END) \
             FROM crypto_room_keys WHERE tenant = $1",
        )
        .bind(self.tenant.0)
        .fetch_one(&mut *self.conn)
        .await?;
        let count = |number| {
            usize::try_from(number)
                .map_err(|_| StoreError::Corrupt { table: TABLE, column: "backed_up" })
        };
        Ok(RoomKeyCounts { total: count(total)?, backed_up: count(backed_up)? })
    }

    /// Remembers that a key is in the backup.
    pub(super) async fn mark_backed_up(
        &mut self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE crypto_room_keys SET backed_up = 1 \
             WHERE tenant = $1 AND room_id = $2 AND session_id = $3",
        )
        .bind(self.tenant.0)
        .bind(room_id.as_str())
        .bind(session_id)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Forgets which keys are in a backup.
    pub(super) async fn reset_backed_up(&mut self) -> Result<(), StoreError> {
        sqlx::query("UPDATE crypto_room_keys SET backed_up = 0 WHERE tenant = $1")
            .bind(self.tenant.0)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    fn restore_all(&self, rows: &[Row]) -> Result<Vec<InboundGroupSession>, SqlCryptoStoreError> {
        rows.iter().map(|row| self.restore(row)).collect()
    }

    fn restore(&self, row: &Row) -> Result<InboundGroupSession, SqlCryptoStoreError> {
        let pickle: PickledInboundGroupSession =
            self.in_cell(&row.room_id, &row.session_id, |cell, sealer| {
                sealer.open_json(cell, &row.pickle)
            })?;
        let pickle = PickledInboundGroupSession { backed_up: row.backed_up != 0, ..pickle };
        InboundGroupSession::from_pickle(pickle)
            .map_err(|_| SqlCryptoStoreError::Unpickle("room key"))
    }

    fn in_cell<T>(
        &self,
        room_id: &str,
        session_id: &str,
        use_cell: impl FnOnce(Cell<'_>, &Sealer) -> T,
    ) -> T {
        let tenant = self.tenant.0.to_string();
        let row = [tenant.as_str(), room_id, session_id];
        use_cell(Cell { table: TABLE, column: "pickle", row: &row }, self.sealer)
    }
}

fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
