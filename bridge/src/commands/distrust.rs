//! `distrust <fingerprint>`: keeps a device of the contact out.

use async_trait::async_trait;

use super::{Call, Command, usage_of, words};
use crate::{
    network::DeviceTrust,
    portal::{Naming, find_named},
};

pub(super) struct Distrust;

#[async_trait]
impl Command for Distrust {
    fn name(&self) -> &'static str {
        "distrust"
    }

    fn usage(&self) -> &'static str {
        "<fingerprint>"
    }

    fn about(&self) -> &'static str {
        "In a chat: this device of your contact gets nothing any more, and nothing of it is delivered. The first 8 digits or more are enough."
    }

    fn example(&self) -> &'static str {
        "distrust 0123abcd"
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
        let device = match find_named(&devices, &arguments.concat(), Naming::Beginning) {
            Ok(device) => device,
            Err(unknown) => return format!("Nothing has changed: {unknown}."),
        };
        let by = call.decider();
        match call.hub.distrust_device(portal, &device.fingerprint, &by).await {
            Ok(0) => {
                let fingerprints = [device.fingerprint.clone()];
                let known = DeviceTrust::Distrusted;
                let before = format!("Device {} was distrusted before.", device.id);
                words::nothing_decided(call, portal, &fingerprints, known, before).await
            }
            Ok(_) if device.trust == DeviceTrust::Changed => format!(
                "The identity that device {} presents now is distrusted: it gets nothing, and \
                 nothing of it is delivered, under whatever number. Your messages go to your contact's \
                 other devices, and to this one when it presents the old one again.",
                device.id
            ),
            Ok(_) => format!(
                "Device {} is distrusted: it gets nothing, and nothing of it is delivered. The \
                 room's keys are new from the next message on.",
                device.id
            ),
            Err(error) => words::failed(&error),
        }
    }
}
