//! One device's own secrets: identity, device id and prekeys of both namespaces.

use std::time::SystemTime;

use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Namespace,
    bundle::Bundle,
    debug::hidden_debug,
    device_list::DeviceId,
    error::StateError,
    identity::{IdentityKey, IdentityKeyPair},
    prekeys::{KeptPrekeys, Prekeys},
    state,
};

hidden_debug!(Account);

const STATE_VERSION: u8 = 1;

/// The secrets of one of our devices.
///
/// One identity and device id serve both namespaces; the prekeys are separate, so that two people
/// who start sessions in different namespaces never take the same one.
#[derive(Clone, Serialize, Deserialize)]
pub struct Account {
    device_id: DeviceId,
    identity: IdentityKeyPair,
    legacy: Prekeys,
    v2: Prekeys,
}

impl Account {
    /// A new device with a random id, a fresh identity and full sets of prekeys.
    pub fn generate(now: SystemTime, rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let identity = IdentityKeyPair::random(rng);
        Self {
            device_id: DeviceId::random(rng),
            legacy: Prekeys::generate(Namespace::Legacy, &identity, now, rng),
            v2: Prekeys::generate(Namespace::V2, &identity, now, rng),
            identity,
        }
    }

    /// This device's number. It never changes.
    pub const fn device_id(&self) -> DeviceId {
        self.device_id
    }

    /// This device's public identity.
    pub fn identity_key(&self) -> IdentityKey {
        self.identity.public()
    }

    /// The bundle to publish in this namespace.
    pub fn bundle(&self, namespace: Namespace) -> Bundle {
        Bundle::of(namespace, &self.identity, self.prekeys(namespace))
    }

    /// Rotates signed prekeys older than [`super::limits::SIGNED_PREKEY_PERIOD`], keeping the one
    /// before for one more period, and refills one-time prekeys below
    /// [`super::limits::PREKEY_REFILL`].
    ///
    /// Returns whether anything has changed: save the account and publish both bundles. Call it
    /// once a day and on every account that comes out of [`super::OmemoChanges`] before it is
    /// saved.
    pub fn maintain(&mut self, now: SystemTime, rng: &mut (impl CryptoRng + RngCore)) -> bool {
        let legacy = self.legacy.maintain(Namespace::Legacy, &self.identity, now, rng);
        let v2 = self.v2.maintain(Namespace::V2, &self.identity, now, rng);
        legacy || v2
    }

    /// Throws all prekeys away and makes new ones, for an account that was restored from an older
    /// copy: others may have used them since. Save the account and publish both bundles.
    pub fn replace_prekeys(&mut self, now: SystemTime, rng: &mut (impl CryptoRng + RngCore)) {
        self.legacy = Prekeys::replaced(Namespace::Legacy, &self.identity, now, rng);
        self.v2 = Prekeys::replaced(Namespace::V2, &self.identity, now, rng);
    }

    /// This account with prekeys that were kept with a message: to read that message only. They are not stored with it.
    #[must_use]
    pub fn with_prekeys(&self, kept: KeptPrekeys) -> Self {
        let mut account = self.clone();
        account.prekeys_mut(kept.namespace()).lend(Some(kept));
        account
    }

    /// Everything, secrets included, in a versioned format. To be sealed before it is stored.
    ///
    /// # Errors
    /// [`StateError`] never in practice: the format can hold every account.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, StateError> {
        state::to_bytes(STATE_VERSION, self)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`StateError`] when the version is unknown or the bytes are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        state::from_bytes(STATE_VERSION, bytes)
    }

    pub(crate) const fn identity(&self) -> &IdentityKeyPair {
        &self.identity
    }

    pub(crate) const fn prekeys(&self, namespace: Namespace) -> &Prekeys {
        match namespace {
            Namespace::Legacy => &self.legacy,
            Namespace::V2 => &self.v2,
        }
    }

    /// This account without a one-time prekey that has been used.
    pub(crate) fn without_prekey(&self, namespace: Namespace, id: u32) -> Self {
        let mut account = self.clone();
        let prekeys = account.prekeys_mut(namespace);
        prekeys.lend(None);
        prekeys.remove_one_time(id);
        account
    }

    const fn prekeys_mut(&mut self, namespace: Namespace) -> &mut Prekeys {
        match namespace {
            Namespace::Legacy => &mut self.legacy,
            Namespace::V2 => &mut self.v2,
        }
    }
}
