//! The store of the Matrix machines: `matrix-sdk-crypto`'s [`CryptoStore`] for many devices in
//! one set of tables.
//!
//! Everything a machine hands over in one call is one fenced transaction. Keys and sessions are
//! sealed; what they are looked up by (room, session and user ids, public keys) is not.
//!
//! [`CryptoStore`]: matrix_sdk_crypto::store::CryptoStore

mod changes;
mod error;
mod records;
mod room_keys;
mod store;

#[cfg(test)]
mod tests;

pub use self::{error::SqlCryptoStoreError, store::SqlCryptoStore};
