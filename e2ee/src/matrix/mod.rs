//! Matrix devices: Olm, Megolm and cross-signing over `matrix-sdk-crypto`, with strict defaults.
//!
//! Owns what one device may do with its keys. Does no network I/O: a [`Machine`] gives
//! [`Request`]s and takes [`Response`]s. Knows no room state and no pins: who is in a room and
//! whether an identity is the expected one is asked by the caller, before every
//! [`Machine::share`].
//!
//! What is stricter here than the library's defaults:
//! - room keys go only to devices that their owner has signed;
//! - an event whose sender does not own its room key is refused, and every other one says what
//!   stands behind its sender;
//! - a relation counts only if it was inside the ciphertext.
//!
//! Spec: <https://spec.matrix.org/v1.17/client-server-api/#end-to-end-encryption>

mod decrypt;
mod encrypt;
mod error;
mod healing;
mod machine;
mod public_keys;
mod request;
mod verification;

pub use self::{
    decrypt::{DecryptError, DecryptedEvent, SenderTrust},
    encrypt::{
        EncryptError, EncryptedContent, KnownIdentity, MAX_MESSAGES_PER_ROOM_KEY, MAX_ROOM_KEY_AGE,
        Recipient, RoomKeySettings,
    },
    error::MachineError,
    machine::{DeviceRole, Machine, SyncOutcome},
    public_keys::{PublicKeys, SignedDevice},
    request::{Request, RequestBody, Response},
    verification::{CancelReason, RoomEvent, ShortAuthString, Verification, VerificationState},
};
