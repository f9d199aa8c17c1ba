//! `cargo xtask crash`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::install;
use crate::shell::{announce, cargo, run};
use crate::test::Tested;

/// What is killed how often.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Deaths {
    /// Kill at each window of a crash, `--times` times
    #[arg(long)]
    windows: bool,
    /// Kill at random moments while this many messages flow, half of them each way
    #[arg(long, value_name = "N")]
    messages: Option<usize>,
}

/// How it is done.
#[derive(Args)]
pub struct How {
    /// Deaths at each window
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Only this window, such as W7
    #[arg(long, value_name = "WINDOW", requires = "windows")]
    only: Option<String>,
    /// How the homeserver fails meanwhile: a file such as `tests/rules/flaky.toml`, for `--messages`
    #[arg(long, value_name = "FILE", requires = "messages")]
    rules: Option<PathBuf>,
    /// How many seconds the bridge lives at most, for `--messages`
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    longest_life: u32,
    /// Chooses the moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Builds the bridge with and without failpoints, kills it and prints what became of the messages.
pub fn crash(deaths: &Deaths, how: &How) -> Result<()> {
    install::install(&install::FOR_DEMO)?;
    announce("Building the bridge");
    let tested = Tested::build()?;
    announce("Building the killer");
    run(cargo().args(["build", "-p", "tests", "--bin", "crash"]))?;
    let mut killer = cargo();
    killer.args(["run", "--quiet", "-p", "tests", "--bin", "crash", "--"]);
    killer.args(["--seed", &how.seed.to_string(), "--times", &how.times.to_string()]);
    killer.args(["--longest-life", &how.longest_life.to_string()]);
    if deaths.windows {
        killer.arg("--windows");
    }
    if let Some(messages) = deaths.messages {
        killer.args(["--messages", &messages.to_string()]);
    }
    if let Some(window) = &how.only {
        killer.args(["--only", window]);
    }
    if let Some(rules) = &how.rules {
        killer.arg("--rules").arg(std::path::absolute(rules)?);
    }
    run(tested.name_in(&mut killer))
}
