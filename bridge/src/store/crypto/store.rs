//! The `CryptoStore` of one device.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use matrix_sdk_common::cross_process_lock::{
    CrossProcessLockGeneration,
    memory_store_helper::{self, Lease},
};
use matrix_sdk_crypto::{
    Account, DeviceData, GossipRequest, SecretInfo, UserIdentityData,
    olm::{
        InboundGroupSession, OlmMessageHash, OutboundGroupSession, PickledAccount,
        PickledCrossSigningIdentity, PickledOutboundGroupSession, PickledSession,
        PrivateCrossSigningIdentity, SenderDataType, Session, StaticAccountData,
    },
    store::{
        CryptoStore,
        types::{
            BackupKeys, Changes, DehydratedDeviceKey, PendingChanges, RoomKeyCounts,
            RoomKeyWithheldEntry, RoomPendingKeyBundleDetails, RoomSettings,
            StoredRoomKeyBundleData, TrackedUser,
        },
    },
    vodozemac::Curve25519PublicKey,
};
use ruma::{
    DeviceId, OwnedDeviceId, RoomId, TransactionId, UserId, events::secret::request::SecretName,
};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{
    SqlCryptoStoreError,
    changes::PickledChanges,
    records::{Kind, RecordKey, Records, Tenant},
    room_keys::{DeviceBatch, NewRoomKey, RoomKeys},
};
use crate::store::{Database, StoreError, sequence};

/// Where the machine of one device keeps its state. At most one machine may use it at a time.
pub struct SqlCryptoStore {
    db: Database,
    tenant: Tenant,
    /// Set when the account is loaded or saved; sessions are restored with its keys.
    account: Mutex<Option<StaticAccountData>>,
    /// Held from pickling to commit, so that an older pickle never follows a newer one.
    saving: tokio::sync::Mutex<()>,
    /// In memory, because one process owns the database.
    leases: Mutex<HashMap<String, Lease>>,
}

type Result<T, E = SqlCryptoStoreError> = std::result::Result<T, E>;

impl SqlCryptoStore {
    /// Opens the store of a device, which is empty the first time.
    ///
    /// # Errors
    /// When the database failed.
    pub async fn open(
        db: &Database,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            db: db.clone(),
            tenant: ensure_tenant(db, user_id, device_id).await?,
            account: Mutex::default(),
            saving: tokio::sync::Mutex::default(),
            leases: Mutex::default(),
        })
    }

    /// The fixed part of the account, once it is loaded or saved.
    pub(super) fn static_account(&self) -> Option<StaticAccountData> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember_account(&self, account: &Account) {
        let mut slot = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(account.static_data().clone());
    }

    async fn find<T: DeserializeOwned>(&self, key: RecordKey<'_>) -> Result<Option<T>> {
        let mut tx = self.db.read().await?;
        Ok(Records::new(&mut tx, self.tenant).find(key).await?)
    }

    async fn contains(&self, key: RecordKey<'_>) -> Result<bool> {
        let mut tx = self.db.read().await?;
        Ok(Records::new(&mut tx, self.tenant).contains(key).await?)
    }

    async fn load_kind<T: DeserializeOwned>(&self, kind: Kind) -> Result<Vec<T>> {
        let mut tx = self.db.read().await?;
        Ok(Records::new(&mut tx, self.tenant).load_kind(kind).await?)
    }

    async fn load_key<T: DeserializeOwned>(&self, kind: Kind, key: &str) -> Result<Vec<T>> {
        let mut tx = self.db.read().await?;
        Ok(Records::new(&mut tx, self.tenant).load_key(kind, key).await?)
    }

    async fn put(&self, key: RecordKey<'_>, value: &(impl Serialize + Sync)) -> Result<()> {
        let mut tx = self.db.begin().await?;
        Records::new(&mut tx, self.tenant).put(key, value).await?;
        Ok(tx.commit().await?)
    }

    async fn delete(&self, key: RecordKey<'_>) -> Result<()> {
        let mut tx = self.db.begin().await?;
        Records::new(&mut tx, self.tenant).delete(key).await?;
        Ok(tx.commit().await?)
    }
}

/// The number of a device, given when it is first asked for.
async fn ensure_tenant(
    db: &Database,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<Tenant, StoreError> {
    let mut tx = db.begin().await?;
    let (conn, _) = tx.parts();
    let known: Option<(i64,)> =
        sqlx::query_as("SELECT tenant FROM crypto_tenants WHERE user_id = $1 AND device_id = $2")
            .bind(user_id.as_str())
            .bind(device_id.as_str())
            .fetch_optional(&mut *conn)
            .await?;
    if let Some((tenant,)) = known {
        return Ok(Tenant(tenant));
    }
    let tenant = sequence::take(&mut *conn, 1).await?;
    sqlx::query("INSERT INTO crypto_tenants (tenant, user_id, device_id) VALUES ($1, $2, $3)")
        .bind(tenant)
        .bind(user_id.as_str())
        .bind(device_id.as_str())
        .execute(&mut *conn)
        .await?;
    tx.commit().await?;
    Ok(Tenant(tenant))
}

#[async_trait]
impl CryptoStore for SqlCryptoStore {
    type Error = SqlCryptoStoreError;

    async fn load_account(&self) -> Result<Option<Account>> {
        let Some(pickle) = self.find::<PickledAccount>(RecordKey::only(Kind::Account)).await?
        else {
            return Ok(None);
        };
        let account =
            Account::from_pickle(pickle).map_err(|_| SqlCryptoStoreError::Unpickle("account"))?;
        self.remember_account(&account);
        Ok(Some(account))
    }

    async fn load_identity(&self) -> Result<Option<PrivateCrossSigningIdentity>> {
        self.find::<PickledCrossSigningIdentity>(RecordKey::only(Kind::PrivateIdentity))
            .await?
            .map(PrivateCrossSigningIdentity::from_pickle)
            .transpose()
            .map_err(|_| SqlCryptoStoreError::Unpickle("private identity"))
    }

    async fn save_changes(&self, changes: Changes) -> Result<()> {
        let _saving = self.saving.lock().await;
        let changes = PickledChanges::new(changes).await;
        let mut tx = self.db.begin().await?;
        changes.write(&mut tx, self.tenant).await?;
        failpoint!("w05_machine_changed");
        tx.commit().await?;
        failpoint!("w05_machine_committed");
        Ok(())
    }

    async fn save_pending_changes(&self, changes: PendingChanges) -> Result<()> {
        let _saving = self.saving.lock().await;
        let Some(account) = changes.account else { return Ok(()) };
        self.put(RecordKey::only(Kind::Account), &account.pickle()).await?;
        self.remember_account(&account);
        Ok(())
    }

    /// There is one backup at a time, so its version is not stored with the keys.
    async fn save_inbound_group_sessions(
        &self,
        sessions: Vec<InboundGroupSession>,
        _backed_up_to_version: Option<&str>,
    ) -> Result<()> {
        let _saving = self.saving.lock().await;
        let mut keys = Vec::with_capacity(sessions.len());
        for session in &sessions {
            keys.push(NewRoomKey::new(session).await);
        }
        let mut tx = self.db.begin().await?;
        for key in &keys {
            RoomKeys::new(&mut tx, self.tenant).put(key).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn get_sessions(&self, sender_key: &str) -> Result<Option<Vec<Session>>> {
        let pickles: Vec<PickledSession> = self.load_key(Kind::OlmSession, sender_key).await?;
        if pickles.is_empty() {
            return Ok(None);
        }
        let device_keys = self.get_own_device().await?.as_device_keys().clone();
        pickles
            .into_iter()
            .map(|pickle| Session::from_pickle(device_keys.clone(), pickle))
            .collect::<Result<_, _>>()
            .map(Some)
            .map_err(|_| SqlCryptoStoreError::Unpickle("Olm session"))
    }

    async fn get_inbound_group_session(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<InboundGroupSession>> {
        let mut tx = self.db.read().await?;
        RoomKeys::new(&mut tx, self.tenant).find(room_id, session_id).await
    }

    async fn get_withheld_info(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Result<Option<RoomKeyWithheldEntry>> {
        self.find(RecordKey::two(Kind::Withheld, room_id.as_str(), session_id)).await
    }

    async fn get_withheld_sessions_by_room_id(
        &self,
        room_id: &RoomId,
    ) -> Result<Vec<RoomKeyWithheldEntry>> {
        self.load_key(Kind::Withheld, room_id.as_str()).await
    }

    async fn get_inbound_group_sessions(&self) -> Result<Vec<InboundGroupSession>> {
        let mut tx = self.db.read().await?;
        RoomKeys::new(&mut tx, self.tenant).load_all().await
    }

    async fn inbound_group_session_counts(
        &self,
        _backup_version: Option<&str>,
    ) -> Result<RoomKeyCounts> {
        let mut tx = self.db.read().await?;
        Ok(RoomKeys::new(&mut tx, self.tenant).count().await?)
    }

    async fn get_inbound_group_sessions_by_room_id(
        &self,
        room_id: &RoomId,
    ) -> Result<Vec<InboundGroupSession>> {
        let mut tx = self.db.read().await?;
        RoomKeys::new(&mut tx, self.tenant).load_room(room_id).await
    }

    async fn get_inbound_group_sessions_for_device_batch(
        &self,
        curve_key: Curve25519PublicKey,
        sender_data_type: SenderDataType,
        after_session_id: Option<String>,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        let batch = DeviceBatch {
            sender_key: &curve_key.to_base64(),
            sender_data_type,
            after_session_id: after_session_id.as_deref().unwrap_or_default(),
            limit,
        };
        let mut tx = self.db.read().await?;
        RoomKeys::new(&mut tx, self.tenant).load_device_batch(batch).await
    }

    async fn inbound_group_sessions_for_backup(
        &self,
        _backup_version: &str,
        limit: usize,
    ) -> Result<Vec<InboundGroupSession>> {
        let mut tx = self.db.read().await?;
        RoomKeys::new(&mut tx, self.tenant).load_for_backup(limit).await
    }

    async fn mark_inbound_group_sessions_as_backed_up(
        &self,
        _backup_version: &str,
        room_and_session_ids: &[(&RoomId, &str)],
    ) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let mut keys = RoomKeys::new(&mut tx, self.tenant);
        for (room_id, session_id) in room_and_session_ids {
            keys.mark_backed_up(room_id, session_id).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn reset_backup_state(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        RoomKeys::new(&mut tx, self.tenant).reset_backed_up().await?;
        Ok(tx.commit().await?)
    }

    async fn load_backup_keys(&self) -> Result<BackupKeys> {
        Ok(BackupKeys {
            decryption_key: self.find(RecordKey::only(Kind::BackupKey)).await?,
            backup_version: self.find(RecordKey::only(Kind::BackupVersion)).await?,
        })
    }

    async fn load_dehydrated_device_pickle_key(&self) -> Result<Option<DehydratedDeviceKey>> {
        self.find(RecordKey::only(Kind::DehydratedDeviceKey)).await
    }

    async fn delete_dehydrated_device_pickle_key(&self) -> Result<()> {
        self.delete(RecordKey::only(Kind::DehydratedDeviceKey)).await
    }

    async fn get_outbound_group_session(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<OutboundGroupSession>> {
        let key = RecordKey::one(Kind::OutboundRoomKey, room_id.as_str());
        let Some(pickle) = self.find::<PickledOutboundGroupSession>(key).await? else {
            return Ok(None);
        };
        let account = self.static_account().ok_or(SqlCryptoStoreError::NoAccount)?;
        OutboundGroupSession::from_pickle(account.device_id, account.identity_keys, pickle)
            .map(Some)
            .map_err(|_| SqlCryptoStoreError::Unpickle("outbound room key"))
    }

    async fn load_tracked_users(&self) -> Result<Vec<TrackedUser>> {
        self.load_kind(Kind::TrackedUser).await
    }

    async fn save_tracked_users(&self, users: &[(&UserId, bool)]) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let mut records = Records::new(&mut tx, self.tenant);
        for (user_id, dirty) in users {
            let user = TrackedUser { user_id: (*user_id).to_owned(), dirty: *dirty };
            records.put(RecordKey::one(Kind::TrackedUser, user_id.as_str()), &user).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn get_device(
        &self,
        user_id: &UserId,
        device_id: &DeviceId,
    ) -> Result<Option<DeviceData>> {
        self.find(RecordKey::two(Kind::Device, user_id.as_str(), device_id.as_str())).await
    }

    async fn get_user_devices(
        &self,
        user_id: &UserId,
    ) -> Result<HashMap<OwnedDeviceId, DeviceData>> {
        let devices: Vec<DeviceData> = self.load_key(Kind::Device, user_id.as_str()).await?;
        Ok(devices.into_iter().map(|device| (device.device_id().to_owned(), device)).collect())
    }

    async fn get_own_device(&self) -> Result<DeviceData> {
        let account = self.static_account().ok_or(SqlCryptoStoreError::NoAccount)?;
        self.get_device(&account.user_id, &account.device_id)
            .await?
            .ok_or(SqlCryptoStoreError::NoOwnDevice)
    }

    async fn get_user_identity(&self, user_id: &UserId) -> Result<Option<UserIdentityData>> {
        self.find(RecordKey::one(Kind::Identity, user_id.as_str())).await
    }

    async fn is_message_known(&self, message_hash: &OlmMessageHash) -> Result<bool> {
        let key = RecordKey::two(Kind::OlmHash, &message_hash.sender_key, &message_hash.hash);
        self.contains(key).await
    }

    async fn get_outgoing_secret_requests(
        &self,
        request_id: &TransactionId,
    ) -> Result<Option<GossipRequest>> {
        self.find(RecordKey::one(Kind::KeyRequest, request_id.as_str())).await
    }

    async fn get_secret_request_by_info(
        &self,
        secret_info: &SecretInfo,
    ) -> Result<Option<GossipRequest>> {
        let requests: Vec<GossipRequest> = self.load_kind(Kind::KeyRequest).await?;
        Ok(requests.into_iter().find(|request| request.info == *secret_info))
    }

    async fn get_unsent_secret_requests(&self) -> Result<Vec<GossipRequest>> {
        let mut requests: Vec<GossipRequest> = self.load_kind(Kind::KeyRequest).await?;
        requests.retain(|request| !request.sent_out);
        Ok(requests)
    }

    async fn delete_outgoing_secret_requests(&self, request_id: &TransactionId) -> Result<()> {
        self.delete(RecordKey::one(Kind::KeyRequest, request_id.as_str())).await
    }

    async fn get_secrets_from_inbox(
        &self,
        secret_name: &SecretName,
    ) -> Result<Vec<Zeroizing<String>>> {
        let secrets: Vec<String> = self.load_key(Kind::Secret, secret_name.as_str()).await?;
        Ok(secrets.into_iter().map(Zeroizing::new).collect())
    }

    async fn delete_secrets_from_inbox(&self, secret_name: &SecretName) -> Result<()> {
        let mut tx = self.db.begin().await?;
        Records::new(&mut tx, self.tenant).delete_key(Kind::Secret, secret_name.as_str()).await?;
        Ok(tx.commit().await?)
    }

    async fn get_room_settings(&self, room_id: &RoomId) -> Result<Option<RoomSettings>> {
        self.find(RecordKey::one(Kind::RoomSettings, room_id.as_str())).await
    }

    async fn get_received_room_key_bundle_data(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Result<Option<StoredRoomKeyBundleData>> {
        self.find(RecordKey::two(Kind::RoomKeyBundle, room_id.as_str(), user_id.as_str())).await
    }

    async fn get_pending_key_bundle_details_for_room(
        &self,
        room_id: &RoomId,
    ) -> Result<Option<RoomPendingKeyBundleDetails>> {
        self.find(RecordKey::one(Kind::PendingKeyBundle, room_id.as_str())).await
    }

    async fn get_all_rooms_pending_key_bundles(&self) -> Result<Vec<RoomPendingKeyBundleDetails>> {
        self.load_kind(Kind::PendingKeyBundle).await
    }

    async fn has_downloaded_all_room_keys(&self, room_id: &RoomId) -> Result<bool> {
        self.contains(RecordKey::one(Kind::BackupDownloaded, room_id.as_str())).await
    }

    async fn get_custom_value(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.find(RecordKey::one(Kind::Custom, key)).await
    }

    async fn set_custom_value(&self, key: &str, value: Vec<u8>) -> Result<()> {
        self.put(RecordKey::one(Kind::Custom, key), &value).await
    }

    async fn remove_custom_value(&self, key: &str) -> Result<()> {
        self.delete(RecordKey::one(Kind::Custom, key)).await
    }

    async fn try_take_leased_lock(
        &self,
        lease_duration_ms: u32,
        key: &str,
        holder: &str,
    ) -> Result<Option<CrossProcessLockGeneration>> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(memory_store_helper::try_take_leased_lock(&mut leases, lease_duration_ms, key, holder))
    }

    async fn next_batch_token(&self) -> Result<Option<String>> {
        self.find(RecordKey::only(Kind::NextBatch)).await
    }

    /// The connections are the database's, and are closed with it.
    async fn close(&self) -> Result<()> {
        Ok(())
    }

    /// See [`Self::close`].
    async fn reopen(&self) -> Result<()> {
        Ok(())
    }

    /// The size of one device's share is not known.
    async fn get_size(&self) -> Result<Option<usize>> {
        Ok(None)
    }
}

/// Shows nothing of what is stored.
impl std::fmt::Debug for SqlCryptoStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SqlCryptoStore(…)")
    }
}
