//! Records of one device: sealed values by kind and key. All but the received room keys.

use serde::{Serialize, de::DeserializeOwned};
use sqlx::AnyConnection;

use crate::store::{Cell, Sealer, StoreError, Transaction, sequence};

const TABLE: &str = "crypto_records";

/// A device in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tenant(pub i64);

/// What a record is, and what its keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One.
    Account,
    /// One.
    PrivateIdentity,
    /// One.
    NextBatch,
    /// One.
    BackupVersion,
    /// One.
    BackupKey,
    /// One.
    DehydratedDeviceKey,
    /// Sender key, session id.
    OlmSession,
    /// Room.
    OutboundRoomKey,
    /// User, device.
    Device,
    /// User.
    Identity,
    /// User.
    TrackedUser,
    /// Sender key, hash. No value.
    OlmHash,
    /// Request id.
    KeyRequest,
    /// Room, session.
    Withheld,
    /// Room.
    RoomSettings,
    /// Name, number.
    Secret,
    /// Room, user.
    RoomKeyBundle,
    /// Room. No value.
    BackupDownloaded,
    /// Room.
    PendingKeyBundle,
    /// The caller's key.
    Custom,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::PrivateIdentity => "private_identity",
            Self::NextBatch => "next_batch",
            Self::BackupVersion => "backup_version",
            Self::BackupKey => "backup_key",
            Self::DehydratedDeviceKey => "dehydrated_device_key",
            Self::OlmSession => "olm_session",
            Self::OutboundRoomKey => "outbound_room_key",
            Self::Device => "device",
            Self::Identity => "identity",
            Self::TrackedUser => "tracked_user",
            Self::OlmHash => "olm_hash",
            Self::KeyRequest => "key_request",
            Self::Withheld => "withheld",
            Self::RoomSettings => "room_settings",
            Self::Secret => "secret",
            Self::RoomKeyBundle => "room_key_bundle",
            Self::BackupDownloaded => "backup_downloaded",
            Self::PendingKeyBundle => "pending_key_bundle",
            Self::Custom => "custom",
        }
    }
}

/// The place of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordKey<'a> {
    kind: Kind,
    key: &'a str,
    sub_key: &'a str,
}

impl<'a> RecordKey<'a> {
    /// The only record of its kind.
    pub(super) fn only(kind: Kind) -> Self {
        Self { kind, key: "", sub_key: "" }
    }

    /// A record with one key.
    pub(super) fn one(kind: Kind, key: &'a str) -> Self {
        Self { kind, key, sub_key: "" }
    }

    /// A record with two keys.
    pub(super) fn two(kind: Kind, key: &'a str, sub_key: &'a str) -> Self {
        Self { kind, key, sub_key }
    }
}

/// All records of a device.
pub(super) struct Records<'t> {
    conn: &'t mut AnyConnection,
    sealer: &'t Sealer,
    tenant: Tenant,
}

/// A [`RecordKey`] as it stands in the table.
struct BlindKey {
    kind: Kind,
    key: Vec<u8>,
    sub_key: Vec<u8>,
}

type Row = (Vec<u8>, Vec<u8>, Vec<u8>);

impl<'t> Records<'t> {
    pub(super) fn new(tx: &'t mut Transaction, tenant: Tenant) -> Self {
        let (conn, sealer) = tx.parts();
        Self { conn, sealer, tenant }
    }

    /// Stores a value in place of the one there.
    pub(super) async fn put(
        &mut self,
        key: RecordKey<'_>,
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        let key = self.blind(key)?;
        let sealed = self.in_cell(&key, |cell, sealer| sealer.seal_json(cell, value))?;
        self.upsert(&key, Some(sealed)).await
    }

    /// Stores that there is such a key.
    pub(super) async fn put_key(&mut self, key: RecordKey<'_>) -> Result<(), StoreError> {
        let key = self.blind(key)?;
        self.upsert(&key, None).await
    }

    async fn upsert(&mut self, key: &BlindKey, value: Option<Vec<u8>>) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO crypto_records (tenant, kind, key_blind, sub_key_blind, value) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (tenant, kind, key_blind, sub_key_blind) \
                 DO UPDATE SET value = excluded.value",
        )
        .bind(self.tenant.0)
        .bind(key.kind.as_str())
        .bind(key.key.as_slice())
        .bind(key.sub_key.as_slice())
        .bind(value)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// The value of a record.
    pub(super) async fn find<T: DeserializeOwned>(
        &mut self,
        key: RecordKey<'_>,
    ) -> Result<Option<T>, StoreError> {
        let key = self.blind(key)?;
        let row: Option<(Vec<u8>,)> = sqlx::query_as(
            "SELECT value FROM crypto_records \
             WHERE tenant = $1 AND kind = $2 AND key_blind = $3 AND sub_key_blind = $4",
        )
        .bind(self.tenant.0)
        .bind(key.kind.as_str())
        .bind(key.key.as_slice())
        .bind(key.sub_key.as_slice())
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(|(sealed,)| self.in_cell(&key, |cell, sealer| sealer.open_json(cell, &sealed)))
            .transpose()
    }

    /// Whether there is such a key.
    pub(super) async fn contains(&mut self, key: RecordKey<'_>) -> Result<bool, StoreError> {
        let key = self.blind(key)?;
        let (count,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM crypto_records \
             WHERE tenant = $1 AND kind = $2 AND key_blind = $3 AND sub_key_blind = $4",
        )
        .bind(self.tenant.0)
        .bind(key.kind.as_str())
        .bind(key.key.as_slice())
        .bind(key.sub_key.as_slice())
        .fetch_one(&mut *self.conn)
        .await?;
        Ok(count != 0)
    }

    /// All values of a kind.
    pub(super) async fn load_kind<T: DeserializeOwned>(
        &mut self,
        kind: Kind,
    ) -> Result<Vec<T>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT key_blind, sub_key_blind, value FROM crypto_records \
             WHERE tenant = $1 AND kind = $2",
        )
        .bind(self.tenant.0)
        .bind(kind.as_str())
        .fetch_all(&mut *self.conn)
        .await?;
        self.open_rows(kind, rows)
    }

    /// All values of a kind with this first key.
    pub(super) async fn load_key<T: DeserializeOwned>(
        &mut self,
        kind: Kind,
        key: &str,
    ) -> Result<Vec<T>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT key_blind, sub_key_blind, value FROM crypto_records \
             WHERE tenant = $1 AND kind = $2 AND key_blind = $3",
        )
        .bind(self.tenant.0)
        .bind(kind.as_str())
        .bind(self.blind_part("key_blind", &[kind.as_str(), key])?)
        .fetch_all(&mut *self.conn)
        .await?;
        self.open_rows(kind, rows)
    }

    /// Deletes a record, if there is one.
    pub(super) async fn delete(&mut self, key: RecordKey<'_>) -> Result<(), StoreError> {
        let key = self.blind(key)?;
        sqlx::query(
            "DELETE FROM crypto_records \
             WHERE tenant = $1 AND kind = $2 AND key_blind = $3 AND sub_key_blind = $4",
        )
        .bind(self.tenant.0)
        .bind(key.kind.as_str())
        .bind(key.key.as_slice())
        .bind(key.sub_key.as_slice())
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Deletes all records of a kind with this first key.
    pub(super) async fn delete_key(&mut self, kind: Kind, key: &str) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM crypto_records WHERE tenant = $1 AND kind = $2 AND key_blind = $3",
        )
        .bind(self.tenant.0)
        .bind(kind.as_str())
        .bind(self.blind_part("key_blind", &[kind.as_str(), key])?)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// A second key that no other record has.
    pub(super) async fn next_number(&mut self) -> Result<String, StoreError> {
        Ok(sequence::take(&mut *self.conn, 1).await?.to_string())
    }

    fn open_rows<T: DeserializeOwned>(
        &self,
        kind: Kind,
        rows: Vec<Row>,
    ) -> Result<Vec<T>, StoreError> {
        rows.into_iter()
            .map(|(key, sub_key, sealed)| {
                let key = BlindKey { kind, key, sub_key };
                self.in_cell(&key, |cell, sealer| sealer.open_json(cell, &sealed))
            })
            .collect()
    }

    fn blind(&self, key: RecordKey<'_>) -> Result<BlindKey, StoreError> {
        let kind = key.kind.as_str();
        Ok(BlindKey {
            kind: key.kind,
            key: self.blind_part("key_blind", &[kind, key.key])?,
            sub_key: self.blind_part("sub_key_blind", &[kind, key.key, key.sub_key])?,
        })
    }

    fn blind_part(&self, column: &'static str, parts: &[&str]) -> Result<Vec<u8>, StoreError> {
        self.sealer.blind(Cell { table: TABLE, column, row: parts })
    }

    /// A value is bound to the device and to what stands in its row.
    fn in_cell<T>(&self, key: &BlindKey, use_cell: impl FnOnce(Cell<'_>, &Sealer) -> T) -> T {
        let row = [
            self.tenant.0.to_string(),
            key.kind.as_str().to_owned(),
            hex::encode(&key.key),
            hex::encode(&key.sub_key),
        ];
        let row = row.each_ref().map(String::as_str);
        use_cell(Cell { table: TABLE, column: "value", row: &row }, self.sealer)
    }
}
