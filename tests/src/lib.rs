//! Gephyra among real servers and real clients.
//!
//! A test reads like a story: a [`World`] holds a homeserver, an XMPP server and the bridge between them; Alice is on
//! Element ([`ElementUser`]), Bob on an OMEMO client ([`OmemoUser`]). Every wait is for an event and has a deadline, and
//! every process ends with the value that started it.

// The futures of matrix-sdk nest deeper than the default allows the compiler to look.
#![recursion_limit = "256"]

pub mod bridge;
pub mod certificate;
pub mod comparison;
pub mod crash;
pub mod ejabberd;
pub mod element;
pub mod evil_hs;
pub mod faults;
pub mod ghost_account;
pub mod journal;
pub mod names;
pub mod omemo;
pub mod paths;
pub mod peer;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod prosody;
pub mod rust_user;
pub mod soak;
pub mod synapse;
pub mod world;
pub mod xmpp_server;

pub use bridge::Bridge;
pub use element::{ElementUser, Shield};
pub use evil_hs::EvilHomeserver;
pub use ghost_account::GhostAccount;
pub use omemo::{Namespace, OmemoUser};
pub use rust_user::RustUser;
pub use synapse::Synapse;
pub use world::World;
pub use xmpp_server::XmppServer;
