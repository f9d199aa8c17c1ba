//! Public keys as people compare them.

use matrix_sdk_crypto::Device;
use ruma::{OwnedDeviceId, UserId};

use super::{KnownIdentity, Machine, MachineError, encrypt::known_identity};

/// The public keys of a person or a ghost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicKeys {
    /// Their identity, if they have one.
    pub identity: Option<KnownIdentity>,
    /// The devices that this identity has signed.
    pub devices: Vec<SignedDevice>,
}

/// A device that its owner has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDevice {
    /// Its id.
    pub id: OwnedDeviceId,
    /// Its public Ed25519 key, in unpadded base64: what clients show as its fingerprint.
    pub fingerprint: String,
}

impl Machine {
    /// What is known of somebody's public keys, this device's own user among them. Nobody is asked.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn public_keys(&self, user: &UserId) -> Result<PublicKeys, MachineError> {
        let identity = self.olm.get_identity(user, None).await?.and_then(known_identity);
        let devices = self.olm.get_user_devices(user, None).await?;
        let signed = devices.devices().filter(Device::is_cross_signed_by_owner);
        let mut devices: Vec<SignedDevice> = signed.filter_map(signed_device).collect();
        devices.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(PublicKeys { identity, devices })
    }
}

fn signed_device(device: Device) -> Option<SignedDevice> {
    let fingerprint = device.ed25519_key()?.to_base64();
    Some(SignedDevice { id: device.device_id().to_owned(), fingerprint })
}
