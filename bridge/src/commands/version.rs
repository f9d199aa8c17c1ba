//! `version`: which program this is.

use async_trait::async_trait;

use super::{Call, Command};

pub(super) struct Version;

#[async_trait]
impl Command for Version {
    fn name(&self) -> &'static str {
        "version"
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn about(&self) -> &'static str {
        "Tells the version of the bridge."
    }

    async fn run(&self, _: &Call<'_>, _: &[&str]) -> String {
        format!("Gephyra {}", env!("CARGO_PKG_VERSION"))
    }
}
