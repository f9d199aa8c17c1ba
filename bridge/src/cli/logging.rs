//! Log lines on standard error.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
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
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(own)).try_init()
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
