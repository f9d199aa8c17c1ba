//! `[logging]`: what is written to standard error.

use serde::{Deserialize, Serialize};

/// How much is logged, and how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoggingConfig {
    /// The least important lines to write.
    pub level: LogLevel,
    /// Their form.
    pub format: LogFormat,
}

pub(super) const COMMENTS: super::Comments = &[
    (
        "",
        "Log lines on standard error. No level shows message text, keys or tokens; only the bridge's\n\
         own lines are written, because the libraries beneath name users in theirs.",
    ),
    ("level", "error, warn, info, debug or trace."),
    ("format", "text or json."),
];

/// How important a line must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What the bridge could not do.
    Error,
    /// What an operator should look at.
    Warn,
    /// What changed.
    #[default]
    Info,
    /// Each step.
    Debug,
    /// Everything.
    Trace,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
