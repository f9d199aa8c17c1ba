//! The command line of `gephyra`.
//!
//! Owns what an operator types and reads. Knows no Matrix and no XMPP.

mod backup;
mod init;
mod keylog;
mod logging;
mod next_steps;
mod run;

use std::{io::Write, path::PathBuf};

use clap::{Parser, Subcommand};

pub use self::{
    backup::{BackupArgs, CopyError, RestoreArgs},
    init::{InitArgs, InitError},
    keylog::{KeyLogCommand, KeyLogError},
    run::RunError,
};
use crate::config::{self, ExampleError};

/// Gephyra carries encrypted conversations between Matrix and XMPP.
#[derive(Debug, Parser)]
#[command(name = "gephyra", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a configuration, a registration with fresh tokens and a key; overwrite nothing
    Init(Box<InitArgs>),
    /// Run the bridge until it is told to stop (SIGTERM or Ctrl-C)
    Run {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check or print the log of keys, whether or not the bridge runs
    #[command(subcommand)]
    Keylog(KeyLogCommand),
    /// Copy the database to a new file, whether or not the bridge runs
    Backup(BackupArgs),
    /// Put a backup in place of the database, so that no key is used twice; the bridge must be stopped
    Restore(RestoreArgs),
    /// Print a configuration with every key and what it means
    ConfigExample,
    /// Print a registration as `init` writes it, without usable tokens
    RegistrationExample,
}

impl Cli {
    /// Does what was asked, and writes what is to be read to `out`.
    ///
    /// # Errors
    /// [`CliError`], for the operator.
    pub fn execute(self, out: &mut impl Write) -> Result<(), CliError> {
        match self.command {
            Command::Init(args) => {
                let next_steps = init::init(&args, &mut rand::rngs::OsRng)?;
                Ok(out.write_all(next_steps.as_bytes())?)
            }
            Command::Run { config } => Ok(run::run(&config)?),
            Command::Keylog(command) => Ok(out.write_all(command.execute()?.as_bytes())?),
            Command::Backup(args) => Ok(out.write_all(args.execute()?.as_bytes())?),
            Command::Restore(args) => Ok(out.write_all(args.execute()?.as_bytes())?),
            Command::ConfigExample => Ok(out.write_all(config::example_config()?.as_bytes())?),
            Command::RegistrationExample => {
                Ok(out.write_all(config::example_registration()?.as_bytes())?)
            }
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// `init` wrote nothing.
    #[error("nothing was written")]
    Init(#[from] InitError),
    /// The bridge did not start, or stopped by itself.
    #[error("the bridge does not run")]
    Run(#[from] RunError),
    /// The key log is broken, or was not read.
    #[error(transparent)]
    KeyLog(#[from] KeyLogError),
    /// The database was not copied or not put back.
    #[error("the backup or restore did not succeed")]
    Copy(#[from] CopyError),
    /// The examples are wrong.
    #[error("there is no example")]
    Example(#[from] ExampleError),
    /// Standard output was closed.
    #[error("cannot write to standard output")]
    Output(#[from] std::io::Error),
}
