//! `approve`: goes on with identities that have changed.

use async_trait::async_trait;

use super::{Call, Command};
use crate::network::LegSecurity;

pub(super) struct Approve;

#[async_trait]
impl Command for Approve {
    fn name(&self) -> &'static str {
        "approve"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "Trusts your own encryption identity after it has changed, and in a chat that of your contact; what was held is sent."
    }

    async fn run(&self, call: &Call<'_>, _: &[&str]) -> String {
        match call.hub.approve(call).await {
            Ok(0) if call.security == LegSecurity::Plaintext && call.portal.is_none() => {
                "Say this in an encrypted room, so that I can know that it is you.".to_owned()
            }
            Ok(0) => "Nothing waits for your approval here.".to_owned(),
            Ok(approved) => format!("Approved ({approved}). What was held is on its way."),
            Err(_) => "That did not work. Please try again later.".to_owned(),
        }
    }
}
