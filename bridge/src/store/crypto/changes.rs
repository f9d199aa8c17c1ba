//! Saving what a machine changed in one call.

use matrix_sdk_crypto::{
    olm::{PickledCrossSigningIdentity, PickledOutboundGroupSession, PickledSession},
    store::types::Changes,
};

use super::{
    records::{Kind, RecordKey, Records, Tenant},
    room_keys::{NewRoomKey, RoomKeys},
};
use crate::store::{StoreError, Transaction};

/// [`Changes`] with everything pickled, so that writing it waits for no session.
pub(super) struct PickledChanges {
    private_identity: Option<PickledCrossSigningIdentity>,
    sessions: Vec<PickledOlmSession>,
    room_keys: Vec<NewRoomKey>,
    outbound_room_keys: Vec<PickledOutboundGroupSession>,
    /// The rest; what is pickled above has been taken out.
    rest: Changes,
}

struct PickledOlmSession {
    sender_key: String,
    session_id: String,
    pickle: PickledSession,
}

impl PickledChanges {
    pub(super) async fn new(mut changes: Changes) -> Self {
        let private_identity = match changes.private_identity.take() {
            Some(identity) => Some(identity.pickle().await),
            None => None,
        };
        let mut sessions = Vec::new();
        for session in std::mem::take(&mut changes.sessions) {
            sessions.push(PickledOlmSession {
                sender_key: session.sender_key().to_base64(),
                session_id: session.session_id().to_owned(),
                pickle: session.pickle().await,
            });
        }
        let mut room_keys = Vec::new();
        for session in std::mem::take(&mut changes.inbound_group_sessions) {
            room_keys.push(NewRoomKey::new(&session).await);
        }
        let mut outbound_room_keys = Vec::new();
        for session in std::mem::take(&mut changes.outbound_group_sessions) {
            outbound_room_keys.push(session.pickle().await);
        }
        Self { private_identity, sessions, room_keys, outbound_room_keys, rest: changes }
    }

    /// Writes everything.
    pub(super) async fn write(
        &self,
        tx: &mut Transaction,
        tenant: Tenant,
    ) -> Result<(), StoreError> {
        let mut room_keys = RoomKeys::new(tx, tenant);
        for key in &self.room_keys {
            room_keys.put(key).await?;
        }
        let mut records = Records::new(tx, tenant);
        self.write_sessions(&mut records).await?;
        write_single_values(&self.rest, &mut records).await?;
        write_people(&self.rest, &mut records).await?;
        write_requests(&self.rest, &mut records).await?;
        write_rooms(&self.rest, &mut records).await
    }

    async fn write_sessions(&self, records: &mut Records<'_>) -> Result<(), StoreError> {
        if let Some(identity) = &self.private_identity {
            records.put(RecordKey::only(Kind::PrivateIdentity), identity).await?;
        }
        for session in &self.sessions {
            let key = RecordKey::two(Kind::OlmSession, &session.sender_key, &session.session_id);
            records.put(key, &session.pickle).await?;
        }
        for pickle in &self.outbound_room_keys {
            let key = RecordKey::one(Kind::OutboundRoomKey, pickle.room_id.as_str());
            records.put(key, pickle).await?;
        }
        Ok(())
    }
}

async fn write_single_values(
    changes: &Changes,
    records: &mut Records<'_>,
) -> Result<(), StoreError> {
    if let Some(token) = &changes.next_batch_token {
        records.put(RecordKey::only(Kind::NextBatch), token).await?;
    }
    if let Some(version) = &changes.backup_version {
        records.put(RecordKey::only(Kind::BackupVersion), version).await?;
    }
    if let Some(key) = &changes.backup_decryption_key {
        records.put(RecordKey::only(Kind::BackupKey), key).await?;
    }
    if let Some(key) = &changes.dehydrated_device_pickle_key {
        records.put(RecordKey::only(Kind::DehydratedDeviceKey), key).await?;
    }
    Ok(())
}

async fn write_people(changes: &Changes, records: &mut Records<'_>) -> Result<(), StoreError> {
    for device in changes.devices.new.iter().chain(&changes.devices.changed) {
        let key =
            RecordKey::two(Kind::Device, device.user_id().as_str(), device.device_id().as_str());
        records.put(key, device).await?;
    }
    for device in &changes.devices.deleted {
        let key =
            RecordKey::two(Kind::Device, device.user_id().as_str(), device.device_id().as_str());
        records.delete(key).await?;
    }
    for identity in changes.identities.new.iter().chain(&changes.identities.changed) {
        records.put(RecordKey::one(Kind::Identity, identity.user_id().as_str()), identity).await?;
    }
    Ok(())
}

async fn write_requests(changes: &Changes, records: &mut Records<'_>) -> Result<(), StoreError> {
    for hash in &changes.message_hashes {
        records.put_key(RecordKey::two(Kind::OlmHash, &hash.sender_key, &hash.hash)).await?;
    }
    for request in &changes.key_requests {
        let key = RecordKey::one(Kind::KeyRequest, request.request_id.as_str());
        records.put(key, request).await?;
    }
    for item in &changes.secrets {
        let number = records.next_number().await?;
        let key = RecordKey::two(Kind::Secret, item.secret_name.as_str(), &number);
        records.put(key, &item.secret.as_str()).await?;
    }
    Ok(())
}

async fn write_rooms(changes: &Changes, records: &mut Records<'_>) -> Result<(), StoreError> {
    for (room_id, sessions) in &changes.withheld_session_info {
        for (session_id, entry) in sessions {
            let key = RecordKey::two(Kind::Withheld, room_id.as_str(), session_id);
            records.put(key, entry).await?;
        }
    }
    for (room_id, settings) in &changes.room_settings {
        records.put(RecordKey::one(Kind::RoomSettings, room_id.as_str()), settings).await?;
    }
    for bundle in &changes.received_room_key_bundles {
        let room_id = bundle.bundle_data.room_id.as_str();
        let key = RecordKey::two(Kind::RoomKeyBundle, room_id, bundle.sender_user.as_str());
        records.put(key, bundle).await?;
    }
    for room_id in &changes.room_key_backups_fully_downloaded {
        records.put_key(RecordKey::one(Kind::BackupDownloaded, room_id.as_str())).await?;
    }
    for (room_id, details) in &changes.rooms_pending_key_bundle {
        let key = RecordKey::one(Kind::PendingKeyBundle, room_id.as_str());
        match details {
            Some(details) => records.put(key, details).await?,
            None => records.delete(key).await?,
        }
    }
    Ok(())
}
