//! `plaintext allow|refuse`: whether a contact without encryption may be written to.

use async_trait::async_trait;

use super::{Call, Command, usage_of};
use crate::network::PlaintextPolicy;

pub(super) struct Plaintext;

#[async_trait]
impl Command for Plaintext {
    fn name(&self) -> &'static str {
        "plaintext"
    }

    fn usage(&self) -> &'static str {
        "allow|refuse"
    }

    fn about(&self) -> &'static str {
        "In a chat: whether your messages may go unencrypted to a contact who has no encryption."
    }

    fn example(&self) -> &'static str {
        "plaintext allow"
    }

    async fn run(&self, call: &Call<'_>, arguments: &[&str]) -> String {
        let Some(portal) = call.portal else {
            return "Say this in the chat it is meant for.".to_owned();
        };
        let (policy, answer) = match arguments {
            ["allow"] => (
                PlaintextPolicy::Allow,
                "Allowed. As long as this contact has no encryption, your messages leave the bridge unencrypted. Once they have it, this ends.",
            ),
            ["refuse"] => (
                PlaintextPolicy::Refuse,
                "Refused. Nothing leaves the bridge unencrypted in this chat.",
            ),
            _ => return usage_of(self),
        };
        if policy == PlaintextPolicy::Allow && call.is_of_changed_identity() {
            return "Approve your own identity first: write “!xmpp approve me”.".to_owned();
        }
        match call.hub.set_plaintext(portal, policy).await {
            Ok(()) => answer.to_owned(),
            Err(_) => "That did not work. Please try again later.".to_owned(),
        }
    }
}
