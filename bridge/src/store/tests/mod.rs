//! The store on both databases.

mod at_rest;
mod opening;
mod repositories;
mod sealing;
mod verifications;
mod xmpp;
