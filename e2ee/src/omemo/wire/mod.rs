//! What the two namespaces write differently: bytes and element names.

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use rxml::{NcNameStr, xml_ncname};

use super::{Namespace, error::InvalidElement, identity::IdentityKey, keys::PublicKey};

pub(crate) mod legacy_xml;
pub(crate) mod ratchet_message;
pub(crate) mod v2_xml;

/// libsignal's type byte in front of Curve25519 keys.
const DJB_TYPE: u8 = 5;

/// Element and attribute names of a `<bundle>`.
pub(crate) struct BundleNames {
    pub(crate) signed_prekey: &'static str,
    pub(crate) signed_prekey_id: &'static NcNameStr,
    pub(crate) signature: &'static str,
    pub(crate) identity: &'static str,
    pub(crate) prekeys: &'static str,
    pub(crate) prekey: &'static str,
    pub(crate) prekey_id: &'static NcNameStr,
}

pub(crate) fn bundle_names(namespace: Namespace) -> &'static BundleNames {
    static LEGACY: BundleNames = BundleNames {
        signed_prekey: "signedPreKeyPublic",
        signed_prekey_id: xml_ncname!("signedPreKeyId"),
        signature: "signedPreKeySignature",
        identity: "identityKey",
        prekeys: "prekeys",
        prekey: "preKeyPublic",
        prekey_id: xml_ncname!("preKeyId"),
    };
    static V2: BundleNames = BundleNames {
        signed_prekey: "spk",
        signed_prekey_id: xml_ncname!("id"),
        signature: "spks",
        identity: "ik",
        prekeys: "prekeys",
        prekey: "pk",
        prekey_id: xml_ncname!("id"),
    };
    match namespace {
        Namespace::Legacy => &LEGACY,
        Namespace::V2 => &V2,
    }
}

/// A public key that is no identity: 33 bytes in legacy, 32 in omemo:2.
pub(crate) fn encode_key(namespace: Namespace, key: &PublicKey) -> Vec<u8> {
    match namespace {
        Namespace::Legacy => with_type_byte(key.as_bytes()),
        Namespace::V2 => key.as_bytes().to_vec(),
    }
}

pub(crate) fn decode_key(namespace: Namespace, bytes: &[u8]) -> Option<PublicKey> {
    match namespace {
        Namespace::Legacy => PublicKey::from_outside(without_type_byte(bytes)?),
        Namespace::V2 => PublicKey::from_outside(bytes),
    }
}

/// An identity key: Montgomery with a type byte in legacy, Ed25519 in omemo:2.
pub(crate) fn encode_identity(
    namespace: Namespace,
    identity: &IdentityKey,
    ed25519: &[u8; 32],
) -> Vec<u8> {
    match namespace {
        Namespace::Legacy => with_type_byte(&identity.to_bytes()),
        Namespace::V2 => ed25519.to_vec(),
    }
}

pub(crate) fn decode_identity(namespace: Namespace, bytes: &[u8]) -> Option<IdentityKey> {
    match namespace {
        Namespace::Legacy => IdentityKey::from_bytes(without_type_byte(bytes)?.try_into().ok()?),
        Namespace::V2 => IdentityKey::from_ed25519(bytes.try_into().ok()?),
    }
}

/// The identity of a bundle in Ed25519 form, and the signature as plain Ed25519.
///
/// Legacy bundles carry the identity's sign bit as the top bit of the signature.
pub(crate) fn decode_bundle_identity(
    namespace: Namespace,
    identity: &[u8],
    mut signature: [u8; 64],
) -> Option<([u8; 32], [u8; 64])> {
    let key = decode_identity(namespace, identity)?;
    let ed25519 = match namespace {
        Namespace::Legacy => {
            let last = signature.last_mut()?;
            let sign = *last >> 7;
            *last &= 0x7f;
            key.to_ed25519(sign)?
        }
        Namespace::V2 => identity.try_into().ok()?,
    };
    Some((ed25519, signature))
}

/// The inverse of [`decode_bundle_identity`] for the signature.
pub(crate) fn encode_bundle_signature(
    namespace: Namespace,
    ed25519: &[u8; 32],
    signature: &[u8; 64],
) -> [u8; 64] {
    let mut encoded = *signature;
    if let (Namespace::Legacy, Some(last), Some(sign)) =
        (namespace, encoded.last_mut(), ed25519.last())
    {
        *last |= sign & 0x80;
    }
    encoded
}

/// Base64 with white space, with or without padding, of at most `limit` bytes.
pub(crate) fn decode_base64(
    text: &str,
    limit: usize,
    element: &'static str,
) -> Result<Vec<u8>, InvalidElement> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let packed: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if packed.len() / 4 * 3 > limit {
        return Err(InvalidElement::TooLarge(element));
    }
    LENIENT.decode(packed).map_err(|_| InvalidElement::Base64(element))
}

fn with_type_byte(key: &[u8; 32]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(33);
    encoded.push(DJB_TYPE);
    encoded.extend_from_slice(key);
    encoded
}

fn without_type_byte(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split_first().filter(|(first, _)| **first == DJB_TYPE).map(|(_, rest)| rest)
}
