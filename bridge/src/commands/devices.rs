//! `devices`: a contact's devices, and the person's own identity, as the bridge knows them.

use async_trait::async_trait;

use super::{Call, Command, usage_of, words};
use crate::{
    portal::{DecideError, decision_for_person},
    store::{Pin, PinState, Portal},
};

pub(super) struct Devices;

#[async_trait]
impl Command for Devices {
    fn name(&self) -> &'static str {
        "devices"
    }

    fn usage(&self) -> &'static str {
        "[<address>]"
    }

    fn about(&self) -> &'static str {
        "Lists the devices of your contact with their fingerprints and what I make of them, and your own identity. The address is needed outside a chat."
    }

    fn example(&self) -> &'static str {
        "devices bob@example.org"
    }

    async fn run(&self, call: &Call<'_>, arguments: &[&str]) -> String {
        match (arguments, call.portal) {
            ([], Some(portal)) => list(call, portal).await,
            ([], None) => usage_of(self),
            ([address], _) => match call.hub.find_chat(call.sender, address).await {
                Ok(Some(portal)) => list(call, &portal).await,
                Ok(None) => "You have no chat with this address.".to_owned(),
                Err(error) => words::failed(&error),
            },
            _ => usage_of(self),
        }
    }
}

async fn list(call: &Call<'_>, portal: &Portal) -> String {
    match try_list(call, portal).await {
        Ok(list) => list,
        Err(error) => words::failed(&error),
    }
}

async fn try_list(call: &Call<'_>, portal: &Portal) -> Result<String, DecideError> {
    let devices = call.hub.devices_of_contact(portal).await?;
    let mut lines = vec![format!("Devices of {}:", portal.contact.as_str())];
    if devices.is_empty() {
        lines.push("none, as far as I know".to_owned());
    }
    lines.extend(devices.iter().map(words::device));
    let own = call.hub.find_own_pin(call.sender).await?;
    let decision = call.hub.find_contact_decision(portal).await?;
    let decided = decision.and_then(|it| decision_for_person(&it, own.as_ref()));
    lines.push(own.map_or_else(|| "I know no identity of yours yet.".to_owned(), own_identity));
    lines.extend(decided);
    Ok(lines.join("\n"))
}

fn own_identity(pin: Pin) -> String {
    let pinned = format!(
        "Your own identity, as I have pinned it on {}:\n{}",
        words::time(pin.pinned_ms),
        pin.master_key
    );
    match pin.state {
        PinState::Pinned => pinned,
        PinState::Changed { new_master_key } => format!(
            "{pinned}\nYou present another one now, which waits for your “approve me”:\n\
             {new_master_key}"
        ),
    }
}
