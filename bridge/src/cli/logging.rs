//! Log lines on standard error.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
    util::TryInitError,
};

use crate::config::{LogFormat, LogLevel, LoggingConfig};

/// The crates whose lines are written. Those beneath name users, rooms and keys in theirs.
const OWN_CRATES: [&str; 3] = ["gephyra", "bridge", "e2ee"];

/// Starts logging for the whole process.
///
/// # Errors
/// When it was started before.
pub(super) fn start(config: LoggingConfig) -> Result<(), TryInitError> {
    let own = Targets::new().with_targets(OWN_CRATES.map(|name| (name, level(config.level))));
    let lines =
        fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // The filter is for all: as one layer's own it loses the line after a question of another
    // crate whether it should log.
    let filtered = tracing_subscriber::registry().with(own);
    match config.format {
        LogFormat::Text => filtered.with(lines).try_init(),
        LogFormat::Json => filtered.with(lines.json()).try_init(),
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
