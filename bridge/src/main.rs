//! The `gephyra` program.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use bridge::cli::Cli;
use clap::Parser as _;

fn main() -> ExitCode {
    match Cli::parse().execute(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error closed there is nobody left to tell.
            let _ = writeln!(io::stderr(), "gephyra: {:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}
