//! The store on both databases.

mod at_rest;
mod backlog;
mod contact_decisions;
mod housekeeping;
mod key_log;
mod names;
mod opening;
mod policy;
mod repositories;
mod rollback;
mod sealing;
mod verifications;
mod xmpp;
