//! `chat <address>`: opens the encrypted room with a contact.

use async_trait::async_trait;

use super::{Call, Command, usage_of};
use crate::portal::OpenChatError;

pub(super) struct Chat;

#[async_trait]
impl Command for Chat {
    fn name(&self) -> &'static str {
        "chat"
    }

    fn usage(&self) -> &'static str {
        "<address>"
    }

    fn about(&self) -> &'static str {
        "Opens an encrypted room with a contact and invites you."
    }

    fn example(&self) -> &'static str {
        "chat bob@example.org"
    }

    async fn run(&self, call: &Call<'_>, arguments: &[&str]) -> String {
        let [address] = arguments else {
            return usage_of(self);
        };
        match call.hub.open_chat(call.sender, address).await {
            Ok(room) => format!("Here is your chat: https://matrix.to/#/{room}"),
            Err(OpenChatError::InvalidContact(invalid)) => {
                format!(
                    "I cannot open this chat: {invalid}. An address looks like name@example.org."
                )
            }
            Err(OpenChatError::AddressTooLong(too_long)) => {
                format!("I cannot open this chat: {too_long}.")
            }
            Err(OpenChatError::Temporary) => {
                "The homeserver did not let me make the room. Please try again later.".to_owned()
            }
        }
    }
}
