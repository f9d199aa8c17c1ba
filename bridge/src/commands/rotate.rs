//! `rotate`: new room keys.

use async_trait::async_trait;

use super::{Call, Command, words};

pub(super) struct Rotate;

#[async_trait]
impl Command for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "In a chat: what your contact and I say here is encrypted under new room keys from the next message on."
    }

    async fn run(&self, call: &Call<'_>, _: &[&str]) -> String {
        let portal = match call.deciding_portal() {
            Ok(portal) => portal,
            Err(refusal) => return refusal,
        };
        match call.hub.rotate(portal).await {
            Ok(()) => "The room's keys are new from the next message on.".to_owned(),
            Err(error) => words::failed(&error),
        }
    }
}
