//! Why a machine failed.

use matrix_sdk_crypto::{CryptoStoreError, OlmError};

/// A machine failed, or its store did. It may hold what the store does not: throw it away and
/// load it anew. Names no user and no device.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The crypto store did not do what it was asked.
    #[error("the crypto store failed")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The crypto store holds what cannot be read.
    #[error("the crypto store holds what cannot be read: {0}")]
    Corrupt(&'static str),
    /// The store belongs to another device.
    #[error("the crypto store belongs to another device")]
    WrongAccount,
    /// The library gave up on a step.
    #[error("the encryption library refused a step: {0}")]
    Refused(&'static str),
}

/// The library's own texts name users and devices, so only their kind is kept.
impl From<CryptoStoreError> for MachineError {
    fn from(error: CryptoStoreError) -> Self {
        match error {
            CryptoStoreError::Backend(source) => Self::Store(source),
            CryptoStoreError::Io(source) => Self::Store(Box::new(source)),
            CryptoStoreError::MismatchedAccount { .. } => Self::WrongAccount,
            CryptoStoreError::AccountUnset => Self::Corrupt("no account"),
            CryptoStoreError::UnpicklingError | CryptoStoreError::Pickle(_) => {
                Self::Corrupt("a pickle")
            }
            CryptoStoreError::Serialization(_) => Self::Corrupt("a JSON value"),
            _ => Self::Corrupt("another value"),
        }
    }
}

impl From<OlmError> for MachineError {
    fn from(error: OlmError) -> Self {
        match error {
            OlmError::Store(error) => error.into(),
            OlmError::MissingSession => Self::Refused("no Olm session"),
            OlmError::SessionRecipientCollectionError(_) => Self::Refused("recipients"),
            OlmError::SessionCreation(_) => Self::Refused("session creation"),
            _ => Self::Refused("an Olm message"),
        }
    }
}
