//! One device: its keys, its inbox and its requests.

use std::collections::BTreeSet;

use matrix_sdk_common::deserialized_responses::ProcessedToDeviceEvent;
use matrix_sdk_crypto::{
    DecryptionSettings, EncryptionSyncChanges, OlmMachine, TrustRequirement, store::IntoCryptoStore,
};
use ruma::{
    DeviceId, OneTimeKeyAlgorithm, OwnedRoomId, OwnedUserId, TransactionId, UserId,
    api::client::sync::sync_events, events::AnyToDeviceEvent, serde::Raw,
};
use serde::Deserialize;

use super::{MachineError, Request, RequestBody, Response, encrypt::ids, healing::Healing};

/// What a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceRole {
    /// It receives room keys: it has one-time and fallback keys.
    Full,
    /// It only sends: others find a device without Olm, signed by its owner.
    SendOnly,
}

/// The keys of one device of one user. There must be no second machine for it anywhere.
pub struct Machine {
    pub(super) olm: OlmMachine,
    pub(super) healing: Healing,
    role: DeviceRole,
}

/// What a sync brought.
#[derive(Default)]
pub struct SyncOutcome {
    /// Rooms for which a room key came, or the word that none will.
    pub rooms: BTreeSet<OwnedRoomId>,
    /// Users who share a room with this one and whose devices changed.
    pub changed_users: BTreeSet<OwnedUserId>,
    /// Users who sent something of a verification.
    pub verifying: BTreeSet<OwnedUserId>,
}

/// Shows no id and no key.
impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("role", &self.role).finish_non_exhaustive()
    }
}

/// What is read of an `m.room_key.withheld`.
#[derive(Deserialize)]
struct WithheldNotice {
    #[serde(rename = "type")]
    event_type: String,
    content: WithheldContent,
}

/// What is read of any message from a device.
#[derive(Deserialize)]
struct ToDeviceHead {
    #[serde(rename = "type")]
    event_type: String,
    sender: OwnedUserId,
}

#[derive(Deserialize)]
struct WithheldContent {
    room_id: OwnedRoomId,
}

/// Who must stand behind what devices send to this one. Room keys come from everybody: what
/// stands behind their maker is looked at with every event.
fn decryption_settings() -> DecryptionSettings {
    DecryptionSettings { sender_device_trust_requirement: TrustRequirement::CrossSigned }
}

impl Machine {
    /// Loads the device from its store; an empty store gets a new one.
    ///
    /// # Errors
    /// See [`MachineError`]. [`DeviceRole::SendOnly`] is refused: nobody needs it yet.
    pub async fn load(
        user: &UserId,
        device: &DeviceId,
        store: impl IntoCryptoStore,
        role: DeviceRole,
    ) -> Result<Self, MachineError> {
        if role == DeviceRole::SendOnly {
            return Err(MachineError::Refused("send-only devices belong to group rooms"));
        }
        let olm = OlmMachine::with_store(user, device, store, None).await?;
        Ok(Self { olm, healing: Healing::default(), role })
    }

    /// Whose device it is.
    pub fn user_id(&self) -> &UserId {
        self.olm.user_id()
    }

    /// Which device it is.
    pub fn device_id(&self) -> &DeviceId {
        self.olm.device_id()
    }

    /// What has to be sent so that others find this device, signed by its owner: first the
    /// identity, then the keys. The identity is made once and stored before it is returned;
    /// whoever lost an answer asks again and sends the same. Empty when all is published.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn publication(&self) -> Result<Vec<Request>, MachineError> {
        let bootstrap = self.olm.bootstrap_cross_signing(false).await?;
        let mut requests = vec![Request::signing_keys_upload(
            TransactionId::new(),
            &bootstrap.upload_signing_keys_req,
        )];
        if let Some(request) = bootstrap.upload_keys_req {
            requests.extend(Request::outgoing(&request));
        }
        let (id, query) = self.olm.query_keys_for_users([self.user_id()]);
        requests.push(Request::keys_query(id, &query));
        Ok(requests)
    }

    /// Whether the homeserver has told this device of its own signed keys. Without that its room
    /// keys do not carry the signature.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn is_published(&self) -> Result<bool, MachineError> {
        let own = self.olm.get_device(self.user_id(), self.device_id(), None).await?;
        Ok(own.is_some_and(|device| device.is_cross_signed_by_owner()))
    }

    /// The public master key of this device's user, in unpadded base64, once it is made.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn own_master_key(&self) -> Result<Option<String>, MachineError> {
        let own = self.olm.get_identity(self.user_id(), None).await?;
        Ok(own
            .and_then(|own| own.own())
            .and_then(|own| own.master_key().get_first_key().map(|key| key.to_base64())))
    }

    /// What the device wants to send by itself: one-time keys, key queries, answers to other
    /// devices. Send all of it, in order, before asking again.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn requests(&self) -> Result<Vec<Request>, MachineError> {
        let mut requests = Vec::new();
        if let Some((id, claim)) = self.olm.get_missing_sessions(std::iter::empty()).await? {
            requests.push(Request { id, body: RequestBody::KeysClaim(claim) });
        }
        for request in &self.olm.outgoing_requests().await? {
            let request = Request::outgoing(request);
            // What the library claims of its own accord is in the claim above too.
            requests.extend(request.filter(|it| !matches!(it.body, RequestBody::KeysClaim(_))));
        }
        requests.extend(self.healing.unsent());
        Ok(requests)
    }

    /// A query for the keys of these users, whether or not they are known.
    pub fn query(&self, users: &BTreeSet<OwnedUserId>) -> Request {
        let (id, query) = self.olm.query_keys_for_users(ids(users));
        Request::keys_query(id, &query)
    }

    /// Takes the answer to a request.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn receive_response(
        &self,
        id: &TransactionId,
        response: &Response,
    ) -> Result<(), MachineError> {
        if self.healing.was_sent(id) {
            return Ok(());
        }
        let wedged = match response {
            Response::KeysClaim(answer) => self.wedged_devices(answer).await?,
            _ => Vec::new(),
        };
        self.olm.mark_request_as_sent(id, response.as_any()).await?;
        self.tell_of_new_sessions(wedged).await
    }

    /// Where the last sync ended, for the next one to begin.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn sync_token(&self) -> Result<Option<String>, MachineError> {
        Ok(self.olm.store().next_batch_token().await?)
    }

    /// Takes what a sync brought. Room keys, sessions and the place where the next sync begins
    /// are stored together.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn receive_sync(
        &self,
        sync: sync_events::v3::Response,
    ) -> Result<SyncOutcome, MachineError> {
        let mut counts = sync.device_one_time_keys_count;
        counts.entry(OneTimeKeyAlgorithm::SignedCurve25519).or_default();
        let changes = EncryptionSyncChanges {
            to_device_events: sync.to_device.events,
            changed_devices: &sync.device_lists,
            one_time_keys_counts: &counts,
            unused_fallback_keys: sync.device_unused_fallback_key_types.as_deref(),
            next_batch_token: Some(sync.next_batch),
        };
        let (events, keys) = self.olm.receive_sync_changes(changes, &decryption_settings()).await?;
        let withheld = events.iter().filter_map(withheld_room);
        let rooms = keys.into_iter().map(|key| key.room_id).chain(withheld).collect();
        let verifying = events.iter().filter_map(verifying_user).collect();
        let changed_users = sync.device_lists.changed.into_iter().collect();
        Ok(SyncOutcome { rooms, changed_users, verifying })
    }
}

fn verifying_user(event: &ProcessedToDeviceEvent) -> Option<OwnedUserId> {
    let ProcessedToDeviceEvent::PlainText(raw) = event else { return None };
    let event: ToDeviceHead = serde_json::from_str(raw.json().get()).ok()?;
    event.event_type.starts_with("m.key.verification.").then_some(event.sender)
}

fn withheld_room(event: &ProcessedToDeviceEvent) -> Option<OwnedRoomId> {
    let ProcessedToDeviceEvent::PlainText(raw) = event else { return None };
    let notice = parse_withheld(raw)?;
    (notice.event_type == "m.room_key.withheld").then_some(notice.content.room_id)
}

fn parse_withheld(raw: &Raw<AnyToDeviceEvent>) -> Option<WithheldNotice> {
    serde_json::from_str(raw.json().get()).ok()
}
