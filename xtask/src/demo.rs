//! `cargo xtask demo`.

use anyhow::Result;

use crate::install;
use crate::shell::{announce, cargo, run};

/// Installs what is missing, builds, and runs the demonstration.
pub fn demo(arguments: &[&str]) -> Result<()> {
    install::install(&install::FOR_DEMO)?;
    announce("Building the bridge (the first time takes some minutes)");
    run(cargo().args(["build", "-p", "bridge"]))?;
    announce("Building the demonstration");
    run(cargo().args(["build", "-p", "tests", "--bin", "demo"]))?;
    run(cargo().args(["run", "--quiet", "-p", "tests", "--bin", "demo", "--"]).args(arguments))
}
