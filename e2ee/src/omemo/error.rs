//! What can go wrong, by operation. No message carries user data or key material.

use super::identity::IdentityKey;

/// An element of OMEMO that is not what its namespace defines. The sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidElement {
    /// Another element than the expected one.
    #[error("expected a <{0}> element")]
    Name(&'static str),
    /// A child element is missing.
    #[error("the <{0}> element is missing")]
    Missing(&'static str),
    /// A device, prekey or signed prekey id is missing, no number or out of range.
    #[error("the id of a <{0}> element is missing or out of range")]
    Id(&'static str),
    /// Text that is not base64.
    #[error("the <{0}> element is not base64")]
    Base64(&'static str),
    /// Content of a wrong length.
    #[error("the <{0}> element has a wrong length")]
    Length(&'static str),
    /// More than the engine is willing to handle.
    #[error("too many or too large <{0}> elements")]
    TooLarge(&'static str),
}

/// A bundle that must not be used. Its publisher is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBundle {
    /// The element is not a bundle of this namespace.
    #[error("the bundle is malformed")]
    Element(#[from] InvalidElement),
    /// A public key is not a point that can be used.
    #[error("the bundle holds an invalid public key")]
    Key,
    /// The signature of the signed prekey is not by the identity key.
    #[error("the signed prekey is not signed by the identity key")]
    Signature,
    /// There is no one-time prekey.
    #[error("the bundle holds no prekey")]
    NoPrekey,
}

/// Why one device cannot be encrypted to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The device presents another identity than the pinned one.
    #[error("the device's identity has changed")]
    IdentityChanged {
        /// What it presents.
        presented: IdentityKey,
    },
    /// There is neither a session nor a bundle: fetch the bundle.
    #[error("there is no session and no bundle of the device")]
    NoBundle,
    /// The bundle is of the other namespace.
    #[error("the bundle or session is of another OMEMO version")]
    Namespace,
    /// The device presents our own identity.
    #[error("the device presents the sender's own identity")]
    OwnIdentity,
    /// A key agreement gave the all-zero result: a key of the bundle is of low order.
    #[error("a public key of the device is not usable")]
    InvalidKey,
    /// The sending chain has used its last message number.
    #[error("the session's sending chain is used up")]
    ChainExhausted,
}

/// Why nothing could be encrypted. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncryptError {
    /// There was no recipient at all.
    #[error("there is no device to encrypt to")]
    NoRecipient,
    /// None of the devices could be encrypted to.
    #[error("none of the devices could be encrypted to")]
    NoUsableDevice {
        /// Every device with its reason.
        failures: Vec<super::machine::DeviceFailure>,
    },
    /// The payload is larger than [`super::limits::MAX_PAYLOAD_BYTES`].
    #[error("the payload is too large")]
    PayloadTooLarge,
    /// The payload's elements cannot be written as XML.
    #[error("the payload cannot be written as XML")]
    Xml,
}

/// Why a message could not be decrypted. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// No key in the header is for this device. Not an error of the sender in a room.
    #[error("the message is not encrypted for this device")]
    NotForUs,
    /// A ratchet message without any session: start one with an empty message.
    #[error("there is no session with the sending device")]
    NoSession,
    /// The key exchange or session is of another identity than the pinned one.
    #[error("the sending device's identity has changed")]
    IdentityChanged {
        /// What it presents.
        presented: IdentityKey,
    },
    /// The key or payload is not what its namespace defines.
    #[error("the encrypted message is malformed: {0}")]
    Malformed(&'static str),
    /// A public key in the message is invalid or of low order.
    #[error("the message holds an invalid public key")]
    InvalidKey,
    /// The message presents the receiver's own identity.
    #[error("the message presents the receiver's own identity")]
    OwnIdentity,
    /// The key exchange names a prekey that does not exist, or no longer.
    #[error("the key exchange names an unknown prekey")]
    UnknownPrekey,
    /// The key exchange uses no one-time prekey.
    #[error("the key exchange uses no prekey")]
    NoPrekey,
    /// The message key was used before: the message has been decrypted already.
    #[error("the message was decrypted before")]
    Replayed,
    /// The message is too far ahead of what has been received.
    #[error("the message skips too many others")]
    TooManySkipped,
    /// The authentication tag of the key is wrong for every session with the device.
    #[error("the message's key does not authenticate")]
    Authentication,
    /// The authentication tag of the payload is wrong.
    #[error("the message's payload does not authenticate")]
    Payload,
    /// The XEP-0420 envelope is malformed.
    #[error("the envelope is malformed: {0}")]
    Envelope(&'static str),
    /// An affix element of the XEP-0420 envelope contradicts the stanza, or is missing where it must not.
    #[error("the envelope's <{0}> element does not match the message")]
    Affix(&'static str),
}

/// Stored state that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Written by a newer version, or not state of this kind.
    #[error("the stored OMEMO state has unknown version {0:?}")]
    Version(Option<u8>),
    /// Damaged. The parser's own words are left out: they repeat what they did not expect.
    #[error("the stored OMEMO state is damaged")]
    Damaged,
}
