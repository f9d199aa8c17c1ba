//! The content of a message, before and after encryption.
//!
//! Spec: XEP-0384 0.3 section 4.4 (AES-128-GCM) and 0.9 section 4.4 (AES-256-CBC with HMAC).

use std::time::SystemTime;

use minidom::Element;
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use super::{
    Namespace,
    crypto::{self, CbcKeys},
    debug::hidden_debug,
    encrypted::EncryptedElement,
    error::{DecryptError, EncryptError},
    limits::MAX_PAYLOAD_BYTES,
    sce::{self, Envelope},
};

hidden_debug!(Payload, Plaintext);

const V2_LABEL: &[u8] = b"OMEMO Payload";

/// What to encrypt. It decides the namespace.
#[derive(Clone)]
pub enum Payload {
    /// Nothing: starts, answers or refreshes a session.
    Empty(Namespace),
    /// The text of a `<body>`, in legacy OMEMO. Nothing else can be encrypted there.
    Body(String),
    /// The elements of a stanza, for the `<content>` of an XEP-0420 envelope in
    /// `urn:xmpp:omemo:2`. A body is `<body xmlns='jabber:client'>`.
    Content(Vec<Element>),
}

impl Payload {
    /// The version of OMEMO that carries it.
    pub const fn namespace(&self) -> Namespace {
        match self {
            Self::Empty(namespace) => *namespace,
            Self::Body(_) => Namespace::Legacy,
            Self::Content(_) => Namespace::V2,
        }
    }
}

/// What was decrypted.
#[derive(Clone, PartialEq)]
pub enum Plaintext {
    /// The text of a `<body>`, from legacy OMEMO. It is **not** bound to the sender: every
    /// recipient device knows the payload's key.
    Body(String),
    /// An XEP-0420 envelope whose affix elements have been checked.
    Envelope(Envelope),
}

/// Who writes to whom: bare JIDs.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
}

/// Whether an envelope must name its author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// It must: it comes with what starts a session, and whoever carries that could give it to us as from anybody.
    Required,
    /// As XEP-0384 leaves it: the session says who it is.
    Optional,
}

/// An encrypted payload.
pub(crate) struct Sealed {
    /// What every recipient's `<key>` carries.
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) iv: Option<[u8; 12]>,
    pub(crate) ciphertext: Option<Vec<u8>>,
}

/// Encrypts a payload under a fresh key.
pub(crate) fn seal(
    payload: &Payload,
    route: Route<'_>,
    now: SystemTime,
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<Sealed, EncryptError> {
    match payload {
        Payload::Empty(Namespace::Legacy) => Ok(Sealed {
            key: random_bytes::<16>(rng).to_vec().into(),
            iv: Some(*random_bytes(rng)),
            ciphertext: None,
        }),
        Payload::Empty(Namespace::V2) => {
            Ok(Sealed { key: vec![0; 32].into(), iv: None, ciphertext: None })
        }
        Payload::Body(text) => seal_legacy(text.as_bytes(), rng),
        Payload::Content(content) => {
            let envelope = sce::write(content, route, now, rng)?;
            seal_v2(&envelope, rng)
        }
    }
}

fn seal_legacy(text: &[u8], rng: &mut (impl CryptoRng + RngCore)) -> Result<Sealed, EncryptError> {
    check_size(text)?;
    let key = random_bytes::<16>(rng);
    let iv: [u8; 12] = *random_bytes(rng);
    let mut ciphertext = text.to_vec();
    let tag =
        crypto::gcm_encrypt(&key, &iv, &mut ciphertext).ok_or(EncryptError::PayloadTooLarge)?;
    Ok(Sealed {
        key: [key.as_slice(), &tag].concat().into(),
        iv: Some(iv),
        ciphertext: Some(ciphertext),
    })
}

/// Encrypts the bytes of an envelope.
pub(crate) fn seal_v2(
    envelope: &[u8],
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<Sealed, EncryptError> {
    check_size(envelope)?;
    let key = random_bytes::<32>(rng);
    let keys = CbcKeys::derive(&key, V2_LABEL);
    let ciphertext = keys.encrypt(envelope);
    let hmac = crypto::hmac(keys.authentication(), &[&ciphertext]);
    let (tag, _) = hmac.split_at(16);
    Ok(Sealed {
        key: [key.as_slice(), tag].concat().into(),
        iv: None,
        ciphertext: Some(ciphertext),
    })
}

fn check_size(plaintext: &[u8]) -> Result<(), EncryptError> {
    // CBC adds up to one block.
    if plaintext.len() > MAX_PAYLOAD_BYTES - 16 {
        return Err(EncryptError::PayloadTooLarge);
    }
    Ok(())
}

/// Decrypts an element's payload with the content of its `<key>`.
pub(crate) fn open(
    element: &EncryptedElement,
    key: &[u8],
    route: Route<'_>,
    naming: Naming,
) -> Result<Option<Plaintext>, DecryptError> {
    let Some(ciphertext) = &element.payload else { return Ok(None) };
    match element.namespace {
        Namespace::Legacy => {
            let iv = element.iv.ok_or(DecryptError::Malformed("iv"))?;
            open_legacy(ciphertext, &iv, key).map(Some)
        }
        Namespace::V2 => open_v2(ciphertext, key, route, naming).map(Some),
    }
}

fn open_legacy(ciphertext: &[u8], iv: &[u8; 12], key: &[u8]) -> Result<Plaintext, DecryptError> {
    const MALFORMED: DecryptError = DecryptError::Malformed("payload key");
    let (key, tag) = key.split_first_chunk::<16>().ok_or(MALFORMED)?;
    let tag: &[u8; 16] = tag.try_into().map_err(|_| MALFORMED)?;
    let mut text = ciphertext.to_vec();
    if !crypto::gcm_decrypt(key, iv, &mut text, tag) {
        return Err(DecryptError::Payload);
    }
    let text = String::from_utf8(text).map_err(|_| DecryptError::Malformed("body text"))?;
    Ok(Plaintext::Body(text))
}

fn open_v2(
    ciphertext: &[u8],
    key: &[u8],
    route: Route<'_>,
    naming: Naming,
) -> Result<Plaintext, DecryptError> {
    let envelope = decrypt_v2(ciphertext, key)?;
    sce::read(&envelope, route, naming).map(Plaintext::Envelope)
}

/// The bytes of the envelope.
pub(crate) fn decrypt_v2(
    ciphertext: &[u8],
    key: &[u8],
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    const MALFORMED: DecryptError = DecryptError::Malformed("payload key");
    let (key, tag) = key.split_first_chunk::<32>().ok_or(MALFORMED)?;
    let tag: &[u8; 16] = tag.try_into().map_err(|_| MALFORMED)?;
    let keys = CbcKeys::derive(key, V2_LABEL);
    if !crypto::hmac_matches(keys.authentication(), &[ciphertext], tag) {
        return Err(DecryptError::Payload);
    }
    keys.decrypt(ciphertext).ok_or(DecryptError::Malformed("padding"))
}

fn random_bytes<const N: usize>(rng: &mut (impl CryptoRng + RngCore)) -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    rng.fill_bytes(bytes.as_mut());
    bytes
}
