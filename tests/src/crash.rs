//! Kills the bridge while Alice (matrix-sdk) and Bob (slixmpp-omemo) write to each other, and counts what became of
//! every message at both clients.
//!
//! [`windows`] kills at every place where a crash could do harm, [`random`] at any moment. A recording proxy stands on
//! either side of the bridge: from what went over the wire [`wire`] tells whether a key was used twice, and
//! [`figures`] whether a stanza was lost by the bridge or left in a socket that nobody reads any more.

pub mod figures;
pub mod people;
pub mod random;
pub mod scene;
pub mod windows;
mod wire;

pub use figures::Figures;
