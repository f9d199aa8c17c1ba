//! The Matrix side: the client-server API and the devices that speak and listen there.
//!
//! Owns requests to the homeserver ([`MatrixClient`]), one task per loaded device
//! ([`Devices`]) and what is known of a room's members and encryption. Knows no other network
//! and no portal.

pub mod client;
mod devices;
mod error;
mod outbox;
mod rooms;
#[cfg(test)]
pub(crate) mod testing;

pub use self::{
    client::{ClientError, Identity, MatrixClient},
    devices::{
        Decrypted, DeviceEvents, DeviceLimits, Devices, DevicesParts, LostEnd, LostFlow, Sealed,
        SenderTrust, VerificationStep,
    },
    error::{DecryptError, EncryptError, MatrixError},
    outbox::{Outbox, OutboxEvents, SentReference},
};
