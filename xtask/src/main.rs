//! What the README's commands call: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`, `cargo xtask safety`,
//! `cargo xtask crash`, `cargo xtask soak`, `cargo xtask mutants`.
#![expect(
    clippy::print_stdout,
    reason = "these commands tell the person at the terminal what they do"
)]

mod bench;
mod crash;
mod demo;
mod install;
mod mutants;
mod postgres;
mod safety;
mod shell;
mod soak;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Demonstrates, tests and measures Gephyra")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs the servers and clients that the demonstration and the tests need (Debian and Ubuntu)
    Install,
    /// Lets a Matrix client and an OMEMO client talk through a real Synapse, a real Prosody and the bridge
    Demo {
        /// Leave everything running and print how to log in with clients of your own
        #[arg(long)]
        keep: bool,
    },
    /// Installs what is missing and runs every check and test
    Test,
    /// Runs the benchmarks and prints one table
    Bench,
    /// Runs the tests of what must hold against adversaries and prints requirement, figure and test
    Safety,
    /// Kills the bridge while people write to each other, and prints what became of every message
    Crash {
        #[command(flatten)]
        deaths: crash::Deaths,
        #[command(flatten)]
        how: crash::How,
    },
    /// Lets messages flow over many chats, as fast as the servers take them, and prints what grows
    Soak {
        #[command(flatten)]
        load: soak::Load,
    },
    /// Changes the code of ratchet, trust, policy and dedupe bit by bit, and prints each change that no unit test notices
    Mutants {
        /// Only these files; all of them take hours
        #[arg(long)]
        file: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Install => install::install(&install::EVERYTHING),
        Task::Demo { keep: true } => demo::demo(&["--keep"]),
        Task::Demo { keep: false } => demo::demo(&[]),
        Task::Test => test::test(),
        Task::Bench => bench::bench(),
        Task::Safety => safety::safety(),
        Task::Crash { deaths, how } => crash::crash(&deaths, &how),
        Task::Soak { load } => soak::soak(&load),
        Task::Mutants { file } => mutants::mutants(&file),
    }
}
