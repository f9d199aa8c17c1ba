//! `pending`: what waits, and for what.

use async_trait::async_trait;

use super::{Call, Command, words};
use crate::portal::{DecideError, PendingChat};

pub(super) struct Pending;

#[async_trait]
impl Command for Pending {
    fn name(&self) -> &'static str {
        "pending"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "Tells what waits in this chat, why and since when; outside a chat, in all of yours."
    }

    async fn run(&self, call: &Call<'_>, _: &[&str]) -> String {
        match load(call).await {
            Ok(pending) if pending.iter().all(PendingChat::is_empty) => "Nothing waits.".to_owned(),
            Ok(pending) => pending.iter().map(describe).collect::<Vec<_>>().join("\n"),
            Err(error) => words::failed(&error),
        }
    }
}

async fn load(call: &Call<'_>) -> Result<Vec<PendingChat>, DecideError> {
    match call.portal {
        Some(portal) => Ok(vec![call.hub.pending_in(portal).await?]),
        None => call.hub.pending_of(call.sender).await,
    }
}

fn describe(pending: &PendingChat) -> String {
    let mut lines = vec![format!("{}:", pending.portal.contact.as_str())];
    for (held, which) in [
        (pending.from_person, "of yours"),
        (pending.from_contact, "of your contact, from devices that wait for you"),
        (pending.to_person, to_person(pending)),
    ] {
        if held.messages > 0 {
            lines.push(format!("{} {which}", words::held(held)));
        }
    }
    if pending.is_own_identity_changed {
        lines.push("Your own identity has changed: “!xmpp approve me” goes on with it.".to_owned());
    }
    if !pending.devices.is_empty() {
        lines.push("These devices wait for your “trust”, “approve” or “distrust”:".to_owned());
        lines.extend(pending.devices.iter().map(words::device));
    }
    if pending.is_person_distrusted {
        lines.push(
            "Your contact has distrusted your identity, and only they can end that.".to_owned(),
        );
    }
    let is_told = pending.is_own_identity_changed || pending.is_person_distrusted;
    if pending.devices.is_empty() && !is_told {
        lines.push("I have said here before what they wait for.".to_owned());
    }
    lines.join("\n")
}

/// What waits for the person.
fn to_person(pending: &PendingChat) -> &'static str {
    match pending.is_person_distrusted {
        true => "of your contact, until they trust you again",
        false => "of your contact, for which I have no device of yours that I may encrypt to",
    }
}
