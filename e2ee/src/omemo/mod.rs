//! OMEMO without I/O: values in, values out.
//!
//! Speaks legacy OMEMO (`eu.siacs.conversations.axolotl`, XEP-0384 0.3) and `urn:xmpp:omemo:2`
//! (XEP-0384 0.9) with one identity for both. Knows no stanza beyond its own elements, no server,
//! no database and no trust policy: the caller loads an [`Account`] and the [`SessionList`] of each
//! device, calls a [`Machine`], and saves the returned [`OmemoChanges`] in one commit. Clock and
//! randomness are arguments.
//!
//! The layers, each knowing only the ones before it: `crypto` (primitives), [`identity`],
//! `handshake` (X3DH), `ratchet`, `session`, [`session_list`], [`machine`]. `wire` holds what the two namespaces
//! write differently.
//!
//! A failed call changes nothing: everything works on copies and the changes are handed out only
//! when the last check has passed.

pub mod account;
pub mod bundle;
pub mod device_list;
pub mod encrypted;
pub mod error;
pub mod identity;
pub mod limits;
pub mod machine;
pub mod namespace;
pub mod session_list;

mod crypto;
mod debug;
mod handshake;
mod keys;
mod payload;
mod prekeys;
mod ratchet;
mod sce;
mod session;
mod state;
mod wire;

#[cfg(test)]
mod tests;

pub use self::{
    account::Account,
    bundle::Bundle,
    device_list::{DeviceId, DeviceList},
    encrypted::EncryptedElement,
    error::{DecryptError, DeviceError, EncryptError, InvalidBundle, InvalidElement, StateError},
    identity::IdentityKey,
    machine::{
        Answer, Decrypted, DeviceFailure, Encrypted, Machine, OmemoChanges, Pin, Recipient, Sender,
        SessionChange,
    },
    namespace::Namespace,
    payload::{Payload, Plaintext},
    prekeys::KeptPrekeys,
    sce::Envelope,
    session_list::SessionList,
};
