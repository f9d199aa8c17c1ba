//! Telling other devices of the Olm sessions that take the place of wedged ones.
//!
//! The library claims a key when a device's messages can no longer be opened, once an hour at most,
//! and begins a session with it. It also writes the `m.dummy` by which the other side learns of it,
//! and never hands that out: so it is written here.
//!
//! Spec: <https://spec.matrix.org/v1.17/client-server-api/#recovering-from-undecryptable-messages>

use std::sync::{Mutex, PoisonError};

use matrix_sdk_crypto::{CollectStrategy, Device, OlmError, types::requests::ToDeviceRequest};
use ruma::{TransactionId, api::client::keys::claim_keys};
use serde_json::json;

use super::{Machine, MachineError, Request};

/// What has to be said of new sessions, until the homeserver has taken it.
#[derive(Default)]
pub(super) struct Healing(Mutex<Vec<Request>>);

impl Healing {
    pub(super) fn unsent(&self) -> Vec<Request> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a request that was answered is one of these. It is forgotten.
    pub(super) fn was_sent(&self, id: &TransactionId) -> bool {
        let mut unsent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = unsent.len();
        unsent.retain(|request| request.id != id);
        unsent.len() < before
    }
}

impl Machine {
    /// The devices in the answer to a claim with which there is a session already.
    pub(super) async fn wedged_devices(
        &self,
        answer: &claim_keys::v3::Response,
    ) -> Result<Vec<Device>, MachineError> {
        let mut wedged = Vec::new();
        for (user, devices) in &answer.one_time_keys {
            for device in devices.keys() {
                if let Some(device) = self.olm.get_device(user, device, None).await?
                    && self.has_olm_session(&device).await?
                {
                    wedged.push(device);
                }
            }
        }
        Ok(wedged)
    }

    /// Writes to devices under their newest sessions.
    pub(super) async fn tell_of_new_sessions(
        &self,
        devices: Vec<Device>,
    ) -> Result<(), MachineError> {
        for device in devices {
            let strategy = CollectStrategy::IdentityBasedStrategy;
            let content = match device.encrypt_event_raw("m.dummy", &json!({}), strategy).await {
                Ok(content) => content.cast_unchecked(),
                // Its owner has not signed it: it gets no room key, so it misses nothing.
                Err(OlmError::Withheld(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let (user, id) = (device.user_id(), device.device_id().to_owned());
            let request = ToDeviceRequest::new(user, id, "m.room.encrypted", content);
            let mut unsent = self.healing.0.lock().unwrap_or_else(PoisonError::into_inner);
            unsent.push(Request::to_device(&request.into()));
        }
        Ok(())
    }
}
