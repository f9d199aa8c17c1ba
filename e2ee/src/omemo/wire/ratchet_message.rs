//! Ratchet messages and key exchanges as bytes.
//!
//! Spec: XEP-0384 0.9 section 4.3 and its protobuf schema; legacy is libsignal's version 3.

use prost::Message;

use super::{decode_identity, decode_key, encode_key};
use crate::omemo::{Namespace, identity::IdentityKey, keys::PublicKey, ratchet::Header};

/// Version 3 of 3, in front of both kinds of legacy message.
const LEGACY_VERSION: u8 = 0x33;

/// A parsed ratchet message.
pub(crate) struct RatchetMessage {
    pub(crate) header: Header,
    pub(crate) ciphertext: Vec<u8>,
    /// The bytes under the tag, after the associated data.
    pub(crate) authenticated: Vec<u8>,
    pub(crate) tag: Tag,
}

/// The truncated HMAC of a ratchet message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    Legacy([u8; 8]),
    V2([u8; 16]),
}

/// A parsed key exchange with the ratchet message it carries.
pub(crate) struct KeyExchange {
    pub(crate) prekey_id: Option<u32>,
    pub(crate) signed_prekey_id: u32,
    pub(crate) identity: IdentityKey,
    /// The identity as it was written: what the associated data holds.
    pub(crate) identity_bytes: Vec<u8>,
    pub(crate) ephemeral: PublicKey,
    pub(crate) message: Vec<u8>,
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not the format, by the name of the part.
    Malformed(&'static str),
    /// A public key that cannot be one.
    InvalidKey,
}

/// The part of a ratchet message that is authenticated.
pub(crate) fn encode_message(
    namespace: Namespace,
    header: &Header,
    ciphertext: Vec<u8>,
) -> Vec<u8> {
    let ratchet_key = encode_key(namespace, &header.ratchet_key);
    match namespace {
        Namespace::Legacy => {
            let mut bytes = vec![LEGACY_VERSION];
            let message = LegacyMessage {
                ratchet_key: Some(ratchet_key),
                number: Some(header.number),
                previous: Some(header.previous),
                ciphertext: Some(ciphertext),
            };
            bytes.extend_from_slice(&message.encode_to_vec());
            bytes
        }
        Namespace::V2 => V2Message {
            number: Some(header.number),
            previous: Some(header.previous),
            ratchet_key: Some(ratchet_key),
            ciphertext: Some(ciphertext),
        }
        .encode_to_vec(),
    }
}

/// Puts the authenticated part and the beginning of its HMAC together.
pub(crate) fn encode_authenticated(
    namespace: Namespace,
    mut message: Vec<u8>,
    hmac: &[u8; 32],
) -> Vec<u8> {
    match namespace {
        Namespace::Legacy => {
            message.extend(hmac.iter().take(8));
            message
        }
        Namespace::V2 => {
            let tag = hmac.iter().take(16).copied().collect();
            V2Authenticated { tag: Some(tag), message: Some(message) }.encode_to_vec()
        }
    }
}

pub(crate) fn decode_ratchet_message(
    namespace: Namespace,
    bytes: &[u8],
) -> Result<RatchetMessage, Unreadable> {
    match namespace {
        Namespace::Legacy => {
            let (message, tag) =
                bytes.split_last_chunk::<8>().ok_or(Unreadable::Malformed("message"))?;
            let parsed = LegacyMessage::decode(legacy_body(message)?)
                .map_err(|_| Unreadable::Malformed("message"))?;
            let fields = (parsed.ratchet_key, parsed.number, parsed.previous, parsed.ciphertext);
            ratchet_message(namespace, fields, message.to_vec(), Tag::Legacy(*tag))
        }
        Namespace::V2 => {
            let outer = V2Authenticated::decode(bytes)
                .map_err(|_| Unreadable::Malformed("authenticated message"))?;
            let tag = outer.tag.and_then(|tag| tag.try_into().ok());
            let tag = tag.ok_or(Unreadable::Malformed("tag"))?;
            let message = outer.message.ok_or(Unreadable::Malformed("message"))?;
            let parsed = V2Message::decode(message.as_slice())
                .map_err(|_| Unreadable::Malformed("message"))?;
            let fields = (parsed.ratchet_key, parsed.number, parsed.previous, parsed.ciphertext);
            ratchet_message(namespace, fields, message, Tag::V2(tag))
        }
    }
}

type Fields = (Option<Vec<u8>>, Option<u32>, Option<u32>, Option<Vec<u8>>);

fn ratchet_message(
    namespace: Namespace,
    (ratchet_key, number, previous, ciphertext): Fields,
    authenticated: Vec<u8>,
    tag: Tag,
) -> Result<RatchetMessage, Unreadable> {
    let ratchet_key = ratchet_key.ok_or(Unreadable::Malformed("ratchet key"))?;
    let header = Header {
        ratchet_key: decode_key(namespace, &ratchet_key).ok_or(Unreadable::InvalidKey)?,
        number: number.ok_or(Unreadable::Malformed("message number"))?,
        previous: previous.unwrap_or_default(),
    };
    let ciphertext = ciphertext.ok_or(Unreadable::Malformed("ciphertext"))?;
    Ok(RatchetMessage { header, ciphertext, authenticated, tag })
}

pub(crate) fn encode_key_exchange(namespace: Namespace, exchange: KeyExchange) -> Vec<u8> {
    let ephemeral = encode_key(namespace, &exchange.ephemeral);
    match namespace {
        Namespace::Legacy => {
            let mut bytes = vec![LEGACY_VERSION];
            let exchange = LegacyKeyExchange {
                prekey_id: exchange.prekey_id,
                ephemeral: Some(ephemeral),
                identity: Some(exchange.identity_bytes),
                message: Some(exchange.message),
                signed_prekey_id: Some(exchange.signed_prekey_id),
            };
            bytes.extend_from_slice(&exchange.encode_to_vec());
            bytes
        }
        Namespace::V2 => V2KeyExchange {
            prekey_id: exchange.prekey_id,
            signed_prekey_id: Some(exchange.signed_prekey_id),
            identity: Some(exchange.identity_bytes),
            ephemeral: Some(ephemeral),
            message: Some(exchange.message),
        }
        .encode_to_vec(),
    }
}

pub(crate) fn decode_key_exchange(
    namespace: Namespace,
    bytes: &[u8],
) -> Result<KeyExchange, Unreadable> {
    const MALFORMED: Unreadable = Unreadable::Malformed("key exchange");
    let parsed = match namespace {
        Namespace::Legacy => {
            let parsed = LegacyKeyExchange::decode(legacy_body(bytes)?).map_err(|_| MALFORMED)?;
            V2KeyExchange {
                prekey_id: parsed.prekey_id,
                signed_prekey_id: parsed.signed_prekey_id,
                identity: parsed.identity,
                ephemeral: parsed.ephemeral,
                message: parsed.message,
            }
        }
        Namespace::V2 => V2KeyExchange::decode(bytes).map_err(|_| MALFORMED)?,
    };
    let identity_bytes = parsed.identity.ok_or(MALFORMED)?;
    let ephemeral = parsed.ephemeral.ok_or(MALFORMED)?;
    Ok(KeyExchange {
        prekey_id: parsed.prekey_id,
        signed_prekey_id: parsed.signed_prekey_id.ok_or(MALFORMED)?,
        identity: decode_identity(namespace, &identity_bytes).ok_or(Unreadable::InvalidKey)?,
        identity_bytes,
        ephemeral: decode_key(namespace, &ephemeral).ok_or(Unreadable::InvalidKey)?,
        message: parsed.message.ok_or(MALFORMED)?,
    })
}

fn legacy_body(bytes: &[u8]) -> Result<&[u8], Unreadable> {
    let body = bytes.split_first().filter(|(version, _)| **version == LEGACY_VERSION);
    body.map(|(_, body)| body).ok_or(Unreadable::Malformed("version"))
}

#[derive(Clone, PartialEq, Message)]
struct LegacyMessage {
    #[prost(bytes = "vec", optional, tag = "1")]
    ratchet_key: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "2")]
    number: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    previous: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "4")]
    ciphertext: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct LegacyKeyExchange {
    #[prost(uint32, optional, tag = "1")]
    prekey_id: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "2")]
    ephemeral: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    identity: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    message: Option<Vec<u8>>,
    // Tag 5, libsignal's registration id, has no meaning in OMEMO.
    #[prost(uint32, optional, tag = "6")]
    signed_prekey_id: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct V2Message {
    #[prost(uint32, optional, tag = "1")]
    number: Option<u32>,
    #[prost(uint32, optional, tag = "2")]
    previous: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "3")]
    ratchet_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    ciphertext: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct V2Authenticated {
    #[prost(bytes = "vec", optional, tag = "1")]
    tag: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    message: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct V2KeyExchange {
    #[prost(uint32, optional, tag = "1")]
    prekey_id: Option<u32>,
    #[prost(uint32, optional, tag = "2")]
    signed_prekey_id: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "3")]
    identity: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    ephemeral: Option<Vec<u8>>,
    /// A `V2Authenticated`, kept as bytes.
    #[prost(bytes = "vec", optional, tag = "5")]
    message: Option<Vec<u8>>,
}
