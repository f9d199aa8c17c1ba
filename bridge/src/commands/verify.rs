//! `verify`: has the two people of a chat compare emoji.

use async_trait::async_trait;

use super::{Call, Command};

pub(super) struct Verify;

#[async_trait]
impl Command for Verify {
    fn name(&self) -> &'static str {
        "verify"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "In a chat: your client asks you to compare emoji with your contact, as its own “verify” button does. Have them on the phone."
    }

    async fn run(&self, call: &Call<'_>, _: &[&str]) -> String {
        let Some(portal) = call.portal else {
            return "Say this in the chat it is meant for.".to_owned();
        };
        match call.hub.verify_contact(portal).await {
            Ok(Ok(())) => "Your client asks you now. As soon as you accept, both of you see seven \
                emoji and have about a minute to compare them."
                .to_owned(),
            Ok(Err(why)) => <&str>::from(why).to_owned(),
            Err(_) => "That did not work. Please try again later.".to_owned(),
        }
    }
}
