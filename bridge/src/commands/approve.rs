//! `approve`: goes on with identities that have changed.

use async_trait::async_trait;

use super::{Call, Command, usage_of};
use crate::portal::ApproveError;

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
        "In a chat: trusts your contact's encryption identity after it has changed. With “me”: trusts your own. What was held is sent."
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
        let Some(portal) = call.portal else {
            return "Say this in the chat it is meant for. For your own identity say “approve me”."
                .to_owned();
        };
        if call.is_of_changed_identity() {
            return "Approve your own identity first: write “!xmpp approve me”.".to_owned();
        }
        answer(call.hub.approve_contact(portal).await)
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

fn answer(approved: Result<usize, ApproveError>) -> String {
    match approved {
        Ok(0) => "Nothing waits for your approval here.".to_owned(),
        Ok(approved) => format!("Approved ({approved}). What was held is on its way."),
        Err(ApproveError) => "That did not work. Please try again later.".to_owned(),
    }
}
