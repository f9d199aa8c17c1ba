//! The Gephyra service.

#[macro_use]
mod failpoints;

pub mod app;
pub mod appservice;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod escape;
pub mod housekeeping;
pub mod matrix;
pub mod namespace;
pub mod network;
pub mod portal;
pub mod queue;
pub mod recovery;
pub mod store;
pub mod xmpp;

/// An error and its causes in one line, for a log.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        chain.push_str(": ");
        chain.push_str(&source.to_string());
        cause = source.source();
    }
    chain
}
