//! Publishing the one-time and fallback keys of a device. A homeserver that does not take them stops
//! nothing else: people go on with the sessions that they have, and with the fallback key.

use ruma::{
    DeviceId, OneTimeKeyAlgorithm, UInt,
    api::client::keys::{claim_keys, upload_keys},
};

use super::device::Device;
use crate::matrix::{ClientError, Identity};

/// How long keys are not offered again after the homeserver did not take them.
const PAUSE_MS: i64 = 30 * 1000;

/// How long one-time keys that take the place of others are not given up in their turn.
const GIVING_UP_MS: i64 = 60 * 60 * 1000;

/// More one-time keys of a device than a homeserver holds.
const MOST_KEYS: u64 = 500;

/// How the uploads of one device go. Times are milliseconds since 1970.
#[derive(Default)]
pub(super) struct Uploads {
    paused_ms: Option<i64>,
    given_up_ms: Option<i64>,
}

impl Uploads {
    /// Begins to offer no keys.
    pub(super) fn pause(&mut self, now_ms: i64) {
        self.paused_ms = Some(now_ms);
    }

    /// Whether no keys are to be offered now.
    pub(super) fn are_paused(&self, now_ms: i64) -> bool {
        is_within(PAUSE_MS, self.paused_ms, now_ms)
    }
}

/// Whether something that happened `then_ms` is less than `length_ms` old. What is in the future
/// was noted before the clock was set back, and is over.
pub(super) fn is_within(length_ms: i64, then_ms: Option<i64>, now_ms: i64) -> bool {
    then_ms.is_some_and(|then| (0..length_ms).contains(&now_ms.saturating_sub(then)))
}

impl Device {
    /// Publishes keys. One-time keys that the homeserver refuses for good are given up, once an hour
    /// at most.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(super) async fn upload_keys(
        &mut self,
        device: &DeviceId,
        request: upload_keys::v3::Request,
    ) -> Result<upload_keys::v3::Response, ClientError> {
        let who = Identity::device(&self.user, device);
        let answer = self.shared.client.upload_keys(who, request.clone()).await;
        let Err(ClientError::Refused { status: 400, .. }) = &answer else { return answer };
        let now_ms = self.shared.now_ms();
        let is_early = is_within(GIVING_UP_MS, self.uploads.given_up_ms, now_ms);
        if request.one_time_keys.is_empty() || is_early || is_unknown_device(&answer) {
            return answer;
        }
        self.uploads.given_up_ms = Some(now_ms);
        self.give_up_one_time_keys(device, request).await
    }

    /// The homeserver has other one-time keys under the ids of these, of a time that the database
    /// knows nothing of, and whoever takes one of them cannot be understood. So they are all taken
    /// from it, and the answer is that it has none: the machine counts the refused ones as
    /// published, never offers them again, and makes new ones under new ids.
    async fn give_up_one_time_keys(
        &self,
        device: &DeviceId,
        mut request: upload_keys::v3::Request,
    ) -> Result<upload_keys::v3::Response, ClientError> {
        let who = Identity::device(&self.user, device);
        let refused = std::mem::take(&mut request.one_time_keys).len();
        let mut answer = self.shared.client.upload_keys(who, request).await?;
        let algorithm = OneTimeKeyAlgorithm::SignedCurve25519;
        let count = answer.one_time_key_counts.get(&algorithm).copied().unwrap_or_default();
        let mut left = u64::from(count).min(MOST_KEYS);
        let held = left;
        while left > 0 && self.takes_own_one_time_key(device).await? {
            left -= 1;
        }
        tracing::warn!(
            refused,
            taken_back = held - left,
            "matrix.keys.given_up: the homeserver held other one-time keys of a device; \
             new ones take their place"
        );
        answer.one_time_key_counts.insert(algorithm, UInt::new_saturating(left));
        Ok(answer)
    }

    /// Takes one of this device's one-time keys from the homeserver. Returns whether there was one.
    async fn takes_own_one_time_key(&self, device: &DeviceId) -> Result<bool, ClientError> {
        let who = Identity::device(&self.user, device);
        let algorithms = [(device.to_owned(), OneTimeKeyAlgorithm::SignedCurve25519)].into();
        let claim = claim_keys::v3::Request::new([(self.user.clone(), algorithms)].into());
        let answer = self.shared.client.claim_keys(who, claim).await?;
        let mut keys = answer.one_time_keys.values().flat_map(|devices| devices.values()).flatten();
        // A fallback key comes when there is no other.
        Ok(keys.any(|(_, key)| !matches!(key.get_field("fallback"), Ok(Some(true)))))
    }
}

fn is_unknown_device<T>(answer: &Result<T, ClientError>) -> bool {
    answer.as_ref().is_err_and(ClientError::is_unknown_device)
}
