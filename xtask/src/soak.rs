//! `cargo xtask soak`.

use anyhow::{Context, Result};
use clap::Args;

use crate::install;
use crate::shell::{announce, built, cargo, run};

/// How much flows.
#[derive(Args)]
pub struct Load {
    /// Messages, half of them each way
    #[arg(long, value_name = "N", default_value_t = 2000)]
    messages: usize,
    /// Contacts with a chat of their own, and a ghost each
    #[arg(long, value_name = "G", default_value_t = 50)]
    ghosts: usize,
    /// Nothing more is written after so many minutes, however much is left
    #[arg(long, value_name = "M", default_value_t = 120)]
    minutes: u64,
}

/// Builds the bridge as an operator does, lets messages flow and prints what grows.
pub fn soak(load: &Load) -> Result<()> {
    install::install(&install::FOR_DEMO)?;
    announce("Building the bridge");
    run(cargo().args(["build", "--release", "-p", "bridge"]))?;
    announce("Building the rest");
    run(cargo().args(["build", "-p", "tests", "--bin", "soak"]))?;
    let built = built()?;
    let target = built.parent().context("no target folder")?;
    let mut soak = cargo();
    soak.args(["run", "--quiet", "-p", "tests", "--bin", "soak", "--"]);
    soak.args(["--messages", &load.messages.to_string()]);
    soak.args(["--ghosts", &load.ghosts.to_string()]);
    soak.args(["--minutes", &load.minutes.to_string()]);
    run(soak.env("GEPHYRA_BIN", target.join("release/gephyra")))
}
