//! What the README's commands call: `cargo xtask demo`, `cargo xtask test`, `cargo xtask bench`.
#![expect(
    clippy::print_stdout,
    reason = "these commands tell the person at the terminal what they do"
)]

mod bench;
mod demo;
mod install;
mod postgres;
mod shell;
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
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Install => install::install(&install::EVERYTHING),
        Task::Demo { keep: true } => demo::demo(&["--keep"]),
        Task::Demo { keep: false } => demo::demo(&[]),
        Task::Test => test::test(),
        Task::Bench => bench::bench(),
    }
}
