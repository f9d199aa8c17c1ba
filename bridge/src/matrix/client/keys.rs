//! Devices, keys and to-device messages.
//!
//! Spec: <https://spec.matrix.org/v1.17/client-server-api/#end-to-end-encryption>

use std::time::Duration;

use ruma::{
    DeviceId, OwnedDeviceId, UserId,
    api::client::{
        device::{delete_devices, get_devices, update_device},
        keys::{claim_keys, get_keys, upload_keys, upload_signatures, upload_signing_keys},
        sync::sync_events,
        to_device::send_event_to_device,
    },
    presence::PresenceState,
};

use super::{ATTEMPT, ClientError, Identity, MatrixClient, Repeat};

/// Lets no room, presence or account data into a sync: what is left are to-device messages,
/// device lists, key counts and invitations.
pub const SMALL_SYNC_FILTER: &str =
    r#"{"room":{"rooms":[]},"presence":{"not_types":["*"]},"account_data":{"not_types":["*"]}}"#;

impl MatrixClient {
    /// Makes a device, or names it anew. Needs a homeserver of spec v1.17 or MSC4190.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put_device(
        &self,
        who: Identity<'_>,
        device: OwnedDeviceId,
        name: &str,
    ) -> Result<(), ClientError> {
        let mut request = update_device::v3::Request::new(device);
        request.display_name = Some(name.to_owned());
        self.send(Some(who), Repeat::Safe, request).await.map(drop)
    }

    /// Whether a user has this device.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn has_device(&self, user: &UserId, device: &DeviceId) -> Result<bool, ClientError> {
        let who = Some(Identity::user(user));
        let known = self.send(who, Repeat::Safe, get_devices::v3::Request::new()).await?.devices;
        Ok(known.iter().any(|found| found.device_id == device))
    }

    /// Ends all devices of a user but one. Needs what [`Self::put_device`] needs.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_other_devices(
        &self,
        user: &UserId,
        keep: &DeviceId,
    ) -> Result<(), ClientError> {
        let who = Some(Identity::user(user));
        let known = self.send(who, Repeat::Safe, get_devices::v3::Request::new()).await?.devices;
        let ids = known.into_iter().map(|device| device.device_id);
        let others: Vec<_> = ids.filter(|id| id != keep).collect();
        if others.is_empty() {
            return Ok(());
        }
        let request = delete_devices::v3::Request::new(others);
        self.send(who, Repeat::Safe, request).await.map(drop)
    }

    /// Publishes a cross-signing identity.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload_signing_keys(
        &self,
        who: Identity<'_>,
        request: upload_signing_keys::v3::Request,
    ) -> Result<upload_signing_keys::v3::Response, ClientError> {
        self.send(Some(who), Repeat::Safe, request).await
    }

    /// Publishes device, one-time and fallback keys. The same body twice is like once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload_keys(
        &self,
        who: Identity<'_>,
        request: upload_keys::v3::Request,
    ) -> Result<upload_keys::v3::Response, ClientError> {
        self.send(Some(who), Repeat::Safe, request).await
    }

    /// Publishes signatures over other keys.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload_signatures(
        &self,
        who: Identity<'_>,
        request: upload_signatures::v3::Request,
    ) -> Result<upload_signatures::v3::Response, ClientError> {
        self.send(Some(who), Repeat::Safe, request).await
    }

    /// Fetches device and cross-signing keys, as this user sees them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fetch_keys(
        &self,
        who: Identity<'_>,
        request: get_keys::v3::Request,
    ) -> Result<get_keys::v3::Response, ClientError> {
        self.send(Some(who), Repeat::Safe, request).await
    }

    /// Takes one-time keys of other devices. A lost answer costs those keys and nothing else.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn claim_keys(
        &self,
        who: Identity<'_>,
        request: claim_keys::v3::Request,
    ) -> Result<claim_keys::v3::Response, ClientError> {
        self.send(Some(who), Repeat::Safe, request).await
    }

    /// Sends messages to devices; the request carries its transaction id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn send_to_device(
        &self,
        who: Identity<'_>,
        request: send_event_to_device::v3::Request,
    ) -> Result<send_event_to_device::v3::Response, ClientError> {
        self.send(Some(who), Repeat::Safe, request).await
    }

    /// The small sync of one device; waits up to `wait` for something to come.
    ///
    /// One attempt only: the caller comes back anyway.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn small_sync(
        &self,
        who: Identity<'_>,
        since: Option<String>,
        wait: Duration,
    ) -> Result<sync_events::v3::Response, ClientError> {
        let mut request = sync_events::v3::Request::new();
        request.filter = Some(SMALL_SYNC_FILTER.to_owned().into());
        request.set_presence = PresenceState::Offline;
        request.since = since;
        request.timeout = Some(wait);
        self.attempt(Some(who), request, ATTEMPT.saturating_add(wait)).await
    }
}
