//! Claims of one-time keys that the machine wants by itself: for devices whose messages it cannot open any more.
//!
//! The library wants them again and again until there is a key, whatever was answered, and a server that is away makes
//! the answer late. So no device is asked twice in a while. What a message needs is claimed on its way, and is none of
//! this.

use std::collections::BTreeMap;

use e2ee::matrix::{Request, RequestBody};
use ruma::{OwnedDeviceId, OwnedUserId, api::client::keys::claim_keys};

use super::uploads::is_within;

/// How long a device is not asked again; well below the hour after which the library replaces a session again.
const PAUSE_MS: i64 = 10 * 60 * 1000;

/// When devices were asked, in milliseconds since 1970.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<(OwnedUserId, OwnedDeviceId), i64>);

impl Claims {
    /// Takes those claims out that ask no device but such as were asked of late.
    pub(super) fn hold_back(&mut self, requests: &mut Vec<Request>, now_ms: i64) {
        self.0.retain(|_, asked_ms| is_within(PAUSE_MS, Some(*asked_ms), now_ms));
        requests.retain(|request| match &request.body {
            RequestBody::KeysClaim(claim) => self.asks_somebody_new(claim, now_ms),
            _ => true,
        });
    }

    fn asks_somebody_new(&mut self, claim: &claim_keys::v3::Request, now_ms: i64) -> bool {
        let devices = claim.one_time_keys.iter().flat_map(|(user, devices)| {
            devices.keys().map(|device| (user.clone(), device.clone()))
        });
        let devices: Vec<_> = devices.collect();
        let is_new = devices.iter().any(|device| !self.0.contains_key(device));
        if is_new {
            self.0.extend(devices.into_iter().map(|device| (device, now_ms)));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use ruma::{OneTimeKeyAlgorithm, TransactionId};

    use super::*;

    const MINUTE_MS: i64 = 60 * 1000;

    /// What the machine wants at a time, for as long as there is no key: returns whether it goes.
    fn goes(claims: &mut Claims, wanted: &[&str], now_ms: i64) -> bool {
        let user = OwnedUserId::try_from("@alice:example.org").unwrap();
        let devices = wanted
            .iter()
            .map(|device| (OwnedDeviceId::from(*device), OneTimeKeyAlgorithm::SignedCurve25519));
        let claim = claim_keys::v3::Request::new([(user, devices.collect())].into());
        let body = RequestBody::KeysClaim(claim);
        let mut requests = vec![Request { id: TransactionId::new(), body }];
        claims.hold_back(&mut requests, now_ms);
        !requests.is_empty()
    }

    #[test]
    fn a_device_that_yields_no_key_is_asked_again_after_a_pause() {
        let mut claims = Claims::default();
        let asked = (0..60 * 60).filter(|second| goes(&mut claims, &["WEDGED"], second * 1000));
        assert_eq!(asked.count(), 6, "in an hour in which it is wanted every second");
    }

    #[test]
    fn a_device_that_yields_no_key_keeps_none_from_another() {
        let mut claims = Claims::default();
        assert!(goes(&mut claims, &["MUTE"], 0));
        assert!(goes(&mut claims, &["MUTE", "NEW"], MINUTE_MS));
        assert!(!goes(&mut claims, &["MUTE"], MINUTE_MS), "the other has yielded one");
        assert!(!goes(&mut claims, &["MUTE"], 10 * MINUTE_MS), "it was asked with the other");
        assert!(goes(&mut claims, &["MUTE"], 11 * MINUTE_MS));
        assert!(goes(&mut claims, &["MUTE"], 10 * MINUTE_MS), "the clock was set back");
    }
}
