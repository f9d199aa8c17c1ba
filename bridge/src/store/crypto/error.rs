//! What can go wrong in the crypto store.

use matrix_sdk_crypto::CryptoStoreError;

use crate::store::StoreError;

/// A call of a machine on its store failed. The machine must be thrown away and loaded anew: it
/// may be ahead of what is stored.
#[derive(Debug, thiserror::Error)]
pub enum SqlCryptoStoreError {
    /// The database or a sealed value failed.
    #[error("the store of a machine failed")]
    Store(#[from] StoreError),
    /// No account has been stored or loaded yet, and the call needs its keys.
    #[error("the machine has no account yet")]
    NoAccount,
    /// The account's own device is missing.
    #[error("the machine's own device is not stored")]
    NoOwnDevice,
    /// A stored value is no longer what the machine takes.
    #[error("a stored {0} cannot be restored")]
    Unpickle(&'static str),
}

impl From<sqlx::Error> for SqlCryptoStoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<SqlCryptoStoreError> for CryptoStoreError {
    fn from(error: SqlCryptoStoreError) -> Self {
        Self::backend(error)
    }
}
