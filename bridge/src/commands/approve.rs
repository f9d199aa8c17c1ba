//! `approve`: goes on with identities that have changed, and with new devices.

use async_trait::async_trait;

use super::{Call, Command, usage_of, words::failed};
use crate::network::RemoteUserId;

pub(super) struct Approve;

#[async_trait]
impl Command for Approve {
    fn name(&self) -> &'static str {
        "approve"
    }

    fn usage(&self) -> &'static str {
        "[me]"
    }

    fn about(&self) -> &'static str {
        "In a chat: goes on with the new devices and changed identities of your contact that I have shown there, without a comparison. With “me”: trusts your own changed identity. What was held is sent."
    }

    fn example(&self) -> &'static str {
        "approve me"
    }

    async fn run(&self, call: &Call<'_>, arguments: &[&str]) -> String {
        match arguments {
            [] => self.contact(call).await,
            ["me"] => self.own(call).await,
            _ => usage_of(self),
        }
    }
}

impl Approve {
    async fn contact(&self, call: &Call<'_>) -> String {
        let portal = match call.deciding_portal() {
            Ok(portal) => portal,
            Err(refusal) => return refusal,
        };
        let answer = match call.hub.approve_contact(portal, &call.decider()).await {
            Ok(0) => format!(
                "{NOTHING_WAITS} A key that you have distrusted comes back only by “!xmpp trust” with \
                 its fingerprint."
            ),
            approved => answer(approved),
        };
        with_distrust(call, answer, |contact| *contact == portal.contact).await
    }

    async fn own(&self, call: &Call<'_>) -> String {
        match call.identity {
            Some(identity) => {
                let approved = call.hub.approve_person(call.sender, identity).await;
                with_distrust(call, answer(approved.map(usize::from)), |_| true).await
            }
            None => "Say this in an encrypted room, so that I can know that it is you.".to_owned(),
        }
    }
}

const NOTHING_WAITS: &str = "Nothing waits for your approval here.";

fn answer<E: std::error::Error>(approved: Result<usize, E>) -> String {
    match approved {
        Ok(0) => NOTHING_WAITS.to_owned(),
        Ok(approved) => format!("Approved ({approved}). What was held is on its way."),
        Err(error) => failed(&error),
    }
}

/// Adds what no approval ends: that contacts have distrusted the person.
async fn with_distrust(
    call: &Call<'_>,
    answer: String,
    is_meant: impl Fn(&RemoteUserId) -> bool,
) -> String {
    let contacts = match call.hub.distrusting_contacts(call.sender).await {
        Ok(contacts) => contacts,
        Err(error) => return failed(&error),
    };
    let meant: Vec<&str> =
        contacts.iter().filter(|it| is_meant(it)).map(RemoteUserId::as_str).collect();
    if meant.is_empty() {
        return answer;
    }
    let meant = meant.join(", ");
    format!(
        "{answer}\nBut nothing crosses between you and {meant}: your identity was distrusted there, and \
         no approval of yours ends that. See “!xmpp devices”."
    )
}
