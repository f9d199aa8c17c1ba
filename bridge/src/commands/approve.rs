//! `approve`: goes on with identities that have changed, and with new devices.

use async_trait::async_trait;

use super::{Call, Command, usage_of, words::failed};

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
        match call.deciding_portal() {
            Ok(portal) => answer(call.hub.approve_contact(portal, &call.decider()).await),
            Err(refusal) => refusal,
        }
    }

    async fn own(&self, call: &Call<'_>) -> String {
        match call.identity {
            Some(identity) => {
                let approved = call.hub.approve_person(call.sender, identity).await;
                answer(approved.map(usize::from))
            }
            None => "Say this in an encrypted room, so that I can know that it is you.".to_owned(),
        }
    }
}

fn answer<E: std::error::Error>(approved: Result<usize, E>) -> String {
    match approved {
        Ok(0) => "Nothing waits for your approval here.".to_owned(),
        Ok(approved) => format!("Approved ({approved}). What was held is on its way."),
        Err(error) => failed(&error),
    }
}
