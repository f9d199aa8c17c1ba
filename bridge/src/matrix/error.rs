//! Why a device could not do what it was asked.

use e2ee::matrix::{DecryptError as MachineDecryptError, MachineError};

use super::ClientError;
use crate::store::{SqlCryptoStoreError, StoreError};

/// A device could not do what it was asked now. Asking again may help; nothing is half done.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The homeserver did not do what it was asked.
    #[error("the homeserver did not do what a device asked")]
    Client(#[from] ClientError),
    /// The store failed.
    #[error("the store of a device failed")]
    Store(#[from] StoreError),
    /// The machine failed, and was thrown away.
    #[error("a machine failed and is loaded anew")]
    Machine(#[from] MachineError),
    /// The bridge stops, or the device's task has died and is begun anew.
    #[error("the device was put away")]
    PutAway,
    /// The user is neither a ghost nor the bot.
    #[error("this user is not one of the bridge's")]
    NotOurs,
    /// The homeserver knows this device, but the database holds no keys for it: it is not the
    /// database this device was made with.
    #[error("the keys of a published device are not in the database; restore the right one")]
    KeysLost,
    /// The room is not encrypted, or no longer with what it began with.
    #[error("the room is not encrypted with a known algorithm")]
    NotEncrypted,
    /// The user of ours who is to write has left the room, or was put out of it.
    #[error("the bridge's user is not in the room")]
    NotThere,
    /// Nobody but the bridge's own users would get the room key.
    #[error("there is nobody in the room to write to")]
    NobodyThere,
    /// People in the room have devices, but not one could be written to now.
    #[error("no device of the people in the room can be reached")]
    NobodyReachable,
}

/// Why an event was not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum DecryptError {
    /// Its room key has not come.
    #[error("the room key is missing")]
    MissingRoomKey {
        /// The code with which its maker has withheld it (`m.room_key.withheld`).
        withheld: Option<String>,
    },
    /// It came in the clear into an encrypted room.
    #[error("the event is not encrypted")]
    NotEncrypted,
    /// Its room key is not its sender's.
    #[error("the event is forged")]
    Forged,
    /// It is no Megolm event, or damaged.
    #[error("the event is not a valid encrypted event")]
    Malformed,
    /// Another event has used its place in the Megolm session.
    #[error("the event repeats another one's ciphertext")]
    Replayed,
    /// The device could not look at it now.
    #[error("the event could not be looked at")]
    Device(#[from] MatrixError),
}

/// Why an event was not encrypted. No part of it has left.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// Nobody in the room has a device that they have signed themselves.
    #[error("nobody in the room has a device that they have signed")]
    NoSignedDevice,
    /// Somebody in the room presents another identity than the pinned one.
    #[error("an identity in the room is not the pinned one")]
    IdentityChanged,
    /// The device could not do it now.
    #[error("the event could not be encrypted now")]
    Device(#[from] MatrixError),
}

impl EncryptError {
    /// Whether trying again would end the same way, as long as the room is what it is.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Device(MatrixError::Client(error)) => {
                // Another device takes its place.
                !error.is_temporary() && !error.is_unknown_device()
            }
            Self::Device(error) => {
                matches!(
                    error,
                    MatrixError::NotThere | MatrixError::NobodyThere | MatrixError::NotEncrypted
                )
            }
            Self::NoSignedDevice | Self::IdentityChanged => false,
        }
    }

    /// Whether a person has to do something before it can succeed.
    pub fn waits_for_person(&self) -> bool {
        matches!(self, Self::NoSignedDevice | Self::IdentityChanged)
    }
}

/// Tells what an error says of the device that met it.
pub(super) trait DeviceFault {
    /// The error of the device itself, if it is one.
    fn of_device(&self) -> Option<&MatrixError>;

    /// Whether the machine may hold what its store does not.
    fn is_machine_fault(&self) -> bool {
        matches!(self.of_device(), Some(MatrixError::Machine(_)))
    }

    /// Whether the homeserver does not know the device.
    fn is_unknown_device(&self) -> bool {
        matches!(self.of_device(), Some(MatrixError::Client(error)) if error.is_unknown_device())
    }
}

impl DeviceFault for MatrixError {
    fn of_device(&self) -> Option<&MatrixError> {
        Some(self)
    }
}

impl DeviceFault for DecryptError {
    fn of_device(&self) -> Option<&MatrixError> {
        if let Self::Device(error) = self { Some(error) } else { None }
    }
}

impl DeviceFault for EncryptError {
    fn of_device(&self) -> Option<&MatrixError> {
        if let Self::Device(error) = self { Some(error) } else { None }
    }
}

impl From<SqlCryptoStoreError> for MatrixError {
    fn from(error: SqlCryptoStoreError) -> Self {
        Self::Machine(matrix_sdk_crypto::CryptoStoreError::from(error).into())
    }
}

impl From<MachineDecryptError> for DecryptError {
    fn from(error: MachineDecryptError) -> Self {
        match error {
            MachineDecryptError::MissingRoomKey { withheld } => {
                Self::MissingRoomKey { withheld: withheld.map(|code| code.as_str().to_owned()) }
            }
            MachineDecryptError::Forged => Self::Forged,
            MachineDecryptError::Malformed(_) => Self::Malformed,
            MachineDecryptError::Machine(error) => Self::Device(error.into()),
        }
    }
}

impl From<e2ee::matrix::EncryptError> for EncryptError {
    fn from(error: e2ee::matrix::EncryptError) -> Self {
        use e2ee::matrix::EncryptError as Machine;

        match error {
            Machine::IdentityChanged { .. } => Self::IdentityChanged,
            Machine::Algorithm => MatrixError::NotEncrypted.into(),
            Machine::NotShared => MatrixError::NobodyReachable.into(),
            Machine::NotPublished => MatrixError::PutAway.into(),
            Machine::Machine(error) => MatrixError::from(error).into(),
        }
    }
}

macro_rules! through_matrix_error {
    ($target:ty: $($source:ty),+) => {
        $(impl From<$source> for $target {
            fn from(error: $source) -> Self {
                Self::Device(error.into())
            }
        })+
    };
}

through_matrix_error!(DecryptError: ClientError, StoreError, MachineError);
through_matrix_error!(EncryptError: ClientError, StoreError, MachineError);
