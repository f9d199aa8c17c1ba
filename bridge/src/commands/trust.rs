//! `trust <fingerprint>`: marks a device of the contact as compared.

use async_trait::async_trait;

use super::{Call, Command, usage_of, words};
use crate::{
    network::{DeviceTrust, RemoteDevice},
    portal::{DecideError, Naming, find_named},
    store::Portal,
};

pub(super) struct Trust;

#[async_trait]
impl Command for Trust {
    fn name(&self) -> &'static str {
        "trust"
    }

    fn usage(&self) -> &'static str {
        "<fingerprint>"
    }

    fn about(&self) -> &'static str {
        "In a chat: you have compared this whole fingerprint with your contact. The device is verified, and from then on their new devices wait for you."
    }

    fn example(&self) -> &'static str {
        "trust 0123abcd 4567ef01 89ab2345 cdef6789 0123abcd 4567ef01 89ab2345 cdef6789"
    }

    async fn run(&self, call: &Call<'_>, arguments: &[&str]) -> String {
        let portal = match call.deciding_portal() {
            Ok(portal) => portal,
            Err(refusal) => return refusal,
        };
        if arguments.is_empty() {
            return usage_of(self);
        }
        let devices = match call.hub.devices_of_contact(portal).await {
            Ok(devices) => devices,
            Err(error) => return words::failed(&error),
        };
        match find_named(&devices, &arguments.concat(), Naming::Whole) {
            Ok(device) => match verify(call, portal, device).await {
                Ok(0) => {
                    let fingerprints = [device.fingerprint.clone()];
                    let known = DeviceTrust::Verified;
                    let before = format!("Device {} was verified before.", device.id);
                    words::nothing_decided(call, portal, &fingerprints, known, before).await
                }
                Ok(_) => format!(
                    "Device {} is verified. What waited because of it is on its way.",
                    device.id
                ),
                Err(error) => words::failed(&error),
            },
            Err(unknown) => format!("Nothing has changed: {unknown}."),
        }
    }
}

async fn verify(
    call: &Call<'_>,
    portal: &Portal,
    device: &RemoteDevice,
) -> Result<usize, DecideError> {
    let fingerprints = [device.fingerprint.clone()];
    call.hub.verify_devices(portal, &fingerprints, &call.decider()).await
}
