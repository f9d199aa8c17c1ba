//! `gephyra run`: from a configuration file to a running bridge, and to its end.

use std::{io, path::Path};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::util::TryInitError;

use super::logging;
use crate::{
    app::{self, AppError},
    config::{Config, ConfigError},
};

/// Runs the bridge until SIGTERM or SIGINT, then lets it end what is under way. A second signal
/// ends it at once, which loses nothing that was acknowledged.
pub(super) fn run(config: &Path) -> Result<(), RunError> {
    let config = Config::load(config, utf8_environment())?;
    logging::start(config.logging)?;
    #[cfg(feature = "failpoints")]
    crate::failpoints::arm();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(RunError::Runtime)?.block_on(run_until_signal(config))
}

/// The environment without what is not UTF-8: none of our variables is.
pub(super) fn utf8_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

async fn run_until_signal(config: Config) -> Result<(), RunError> {
    let mut signals = Signals::listen().map_err(RunError::Runtime)?;
    let stop = CancellationToken::new();
    let running = app::run(config, stop.clone());
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => return Ok(result?),
        () = signals.next() => {
            tracing::info!("stop.asked: finishing what is under way");
            stop.cancel();
        }
    }
    tokio::select! {
        result = running => Ok(result?),
        () = signals.next() => {
            tracing::warn!("stop.asked_again: ending at once");
            Ok(())
        }
    }
}

/// The signals that ask a service to stop.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Why the bridge does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// Logging was started before.
    #[error("logging cannot be started")]
    Logging(#[from] TryInitError),
    /// The system refused what every service needs.
    #[error("the system refused threads or signals")]
    Runtime(#[source] io::Error),
    /// A part of the bridge failed.
    #[error("a part of the bridge failed")]
    App(#[from] AppError),
}
