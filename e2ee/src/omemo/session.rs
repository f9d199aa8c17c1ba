//! One pairwise session: a handshake, the ratchet that came of it, and its associated data.
//!
//! Knows wire formats and who started; knows no pins, no account and no other sessions.

use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Namespace,
    bundle::{Bundle, Prekey},
    crypto,
    encrypted::KeyKind,
    error::{DecryptError, DeviceError},
    handshake::{self, OwnPrekeys, RemotePrekeys},
    identity::{IdentityKey, IdentityKeyPair},
    keys::{PrivateKey, PublicKey},
    limits::HEARTBEAT,
    machine::Answer,
    ratchet::{Ratchet, RatchetError},
    wire::{
        self,
        ratchet_message::{self, KeyExchange, RatchetMessage, Tag},
    },
};

/// One pairwise session. [`Session::decrypt`] gives a new value, so that a message that proves
/// false leaves the old one as it was.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Session {
    role: Role,
    progress: Progress,
    /// What every key exchange of this session repeats.
    prekey_id: u32,
    signed_prekey_id: u32,
    ephemeral: PublicKey,
    remote_identity: IdentityKey,
    associated_data: AssociatedData,
    ratchet: Ratchet,
    /// Messages that came since we last sent one.
    received_since_sent: u32,
    /// Whether this is an older state of the session: keys that follow it may have been used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    receive_only: bool,
}

/// Who started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Initiator,
    Responder,
}

/// How far the handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Progress {
    /// We started and have heard nothing: every message repeats the key exchange.
    AwaitsReply,
    /// The other side started and has heard nothing.
    OwesReply,
    /// Both sides have the session.
    Established,
}

/// Both identities as the namespace writes them.
#[derive(Clone, Serialize, Deserialize)]
struct AssociatedData {
    #[serde(with = "base64_bytes")]
    initiator: Vec<u8>,
    #[serde(with = "base64_bytes")]
    responder: Vec<u8>,
}

/// Our side's keys for a key exchange that came in.
pub(crate) struct Responder<'a> {
    pub(crate) identity: &'a IdentityKeyPair,
    pub(crate) signed_prekey: &'a PrivateKey,
    pub(crate) prekey_id: u32,
    pub(crate) prekey: &'a PrivateKey,
}

impl Session {
    /// Starts a session with the device of a bundle.
    pub(crate) fn initiate(
        identity: &IdentityKeyPair,
        bundle: &Bundle,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Self, DeviceError> {
        let namespace = bundle.namespace();
        let labels = namespace.labels();
        let signed_prekey = bundle.signed_prekey();
        let Prekey { id: prekey_id, key: prekey } =
            bundle.pick_prekey(rng).ok_or(DeviceError::NoBundle)?;
        let remote_identity = bundle.identity();
        let remote = RemotePrekeys {
            identity: &remote_identity,
            signed_prekey: &signed_prekey.key,
            prekey: &prekey,
        };
        let ephemeral = PrivateKey::random(rng);
        let ratchet = handshake::initiate(labels, identity, &ephemeral, &remote)
            .and_then(|secret| Ratchet::initiate(labels, secret, &signed_prekey.key, rng))
            .ok_or(DeviceError::InvalidKey)?;
        Ok(Self {
            role: Role::Initiator,
            progress: Progress::AwaitsReply,
            prekey_id,
            signed_prekey_id: signed_prekey.id,
            ephemeral: ephemeral.public(),
            remote_identity,
            associated_data: AssociatedData {
                initiator: own_identity_bytes(namespace, identity),
                responder: wire::encode_identity(
                    namespace,
                    &remote_identity,
                    bundle.identity_ed25519(),
                ),
            },
            ratchet,
            received_since_sent: 0,
            receive_only: false,
        })
    }

    /// Answers a key exchange. Proves nothing until [`Self::decrypt`] has read its message.
    pub(crate) fn respond(
        namespace: Namespace,
        own: &Responder<'_>,
        exchange: &KeyExchange,
    ) -> Result<Self, DecryptError> {
        let prekeys = OwnPrekeys { signed_prekey: own.signed_prekey, prekey: own.prekey };
        let secret = handshake::respond(
            namespace.labels(),
            own.identity,
            &prekeys,
            &exchange.identity,
            &exchange.ephemeral,
        );
        let secret = secret.ok_or(DecryptError::InvalidKey)?;
        Ok(Self {
            role: Role::Responder,
            progress: Progress::OwesReply,
            prekey_id: own.prekey_id,
            signed_prekey_id: exchange.signed_prekey_id,
            ephemeral: exchange.ephemeral,
            remote_identity: exchange.identity,
            associated_data: AssociatedData {
                initiator: exchange.identity_bytes.clone(),
                responder: own_identity_bytes(namespace, own.identity),
            },
            ratchet: Ratchet::respond(secret, own.signed_prekey.clone()),
            received_since_sent: 0,
            receive_only: false,
        })
    }

    pub(crate) const fn identity(&self) -> IdentityKey {
        self.remote_identity
    }

    /// Lets this session decrypt only, until the other side answers a ratchet key of this state:
    /// what is sent then goes under a key that is fresh.
    pub(crate) fn receive_only(&mut self) {
        self.receive_only = true;
    }

    pub(crate) const fn is_receive_only(&self) -> bool {
        self.receive_only
    }

    /// Whether this key exchange, repeated by the other side, started this session.
    pub(crate) fn started_by(&self, exchange: &KeyExchange) -> bool {
        self.role == Role::Responder
            && self.ephemeral == exchange.ephemeral
            && self.remote_identity == exchange.identity
    }

    /// As [`Ratchet::skipped_count`].
    pub(crate) fn skipped_count(&self) -> usize {
        self.ratchet.skipped_count()
    }

    /// As [`Ratchet::keep_skipped`].
    pub(crate) fn keep_skipped(&mut self, most: usize) -> usize {
        self.ratchet.keep_skipped(most)
    }

    pub(crate) fn answer(&self) -> Answer {
        let stale = self.ratchet.received() > HEARTBEAT && self.ratchet.sent() == 0;
        if self.progress == Progress::OwesReply || stale || self.received_since_sent >= HEARTBEAT {
            Answer::Due
        } else {
            Answer::NotDue
        }
    }

    /// Encrypts a payload's key: the bytes of a `<key>`, and what they are.
    pub(crate) fn encrypt(
        &mut self,
        namespace: Namespace,
        plaintext: &[u8],
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(KeyKind, Vec<u8>), DeviceError> {
        let labels = namespace.labels();
        let (header, message_key) =
            self.ratchet.send(labels, rng).map_err(|error| match error {
                RatchetError::InvalidKey => DeviceError::InvalidKey,
                _ => DeviceError::ChainExhausted,
            })?;
        let keys = message_key.expand(labels);
        let message = ratchet_message::encode_message(namespace, &header, keys.encrypt(plaintext));
        let associated_data = self.associated_data(namespace, Direction::Sending);
        let hmac = crypto::hmac(keys.authentication(), &[&associated_data, &message]);
        let message = ratchet_message::encode_authenticated(namespace, message, &hmac);

        self.received_since_sent = 0;
        if self.progress == Progress::OwesReply {
            self.progress = Progress::Established;
        }
        Ok(match self.progress {
            Progress::AwaitsReply => (KeyKind::KeyExchange, self.key_exchange(namespace, message)),
            _ => (KeyKind::Ratchet, message),
        })
    }

    /// Reads the bytes of a ratchet message. On success the first value takes this one's place.
    pub(crate) fn decrypt(
        &self,
        namespace: Namespace,
        message: &RatchetMessage,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), DecryptError> {
        let labels = namespace.labels();
        let (ratchet, message_key) = self.ratchet.receive(labels, &message.header)?;
        let keys = message_key.expand(labels);
        let associated_data = self.associated_data(namespace, Direction::Receiving);
        let parts: [&[u8]; 2] = [&associated_data, &message.authenticated];
        let authentic = match &message.tag {
            Tag::Legacy(tag) => crypto::hmac_matches(keys.authentication(), &parts, tag),
            Tag::V2(tag) => crypto::hmac_matches(keys.authentication(), &parts, tag),
        };
        if !authentic {
            return Err(DecryptError::Authentication);
        }
        let plaintext = keys.decrypt(&message.ciphertext);
        let plaintext = plaintext.ok_or(DecryptError::Malformed("padding"))?;
        let is_answer = ratchet.owes_chain() && !self.ratchet.owes_chain();
        let next = Self {
            ratchet,
            receive_only: self.receive_only && !is_answer,
            progress: match self.progress {
                Progress::AwaitsReply => Progress::Established,
                other => other,
            },
            received_since_sent: self.received_since_sent.saturating_add(1),
            ..self.clone()
        };
        Ok((next, plaintext))
    }

    fn key_exchange(&self, namespace: Namespace, message: Vec<u8>) -> Vec<u8> {
        let exchange = KeyExchange {
            prekey_id: Some(self.prekey_id),
            signed_prekey_id: self.signed_prekey_id,
            identity: self.remote_identity,
            identity_bytes: self.associated_data.initiator.clone(),
            ephemeral: self.ephemeral,
            message,
        };
        ratchet_message::encode_key_exchange(namespace, exchange)
    }

    /// Legacy puts the sender first, omemo:2 the initiator.
    fn associated_data(&self, namespace: Namespace, direction: Direction) -> Vec<u8> {
        let AssociatedData { initiator, responder } = &self.associated_data;
        let initiator_sends = matches!(
            (self.role, direction),
            (Role::Initiator, Direction::Sending) | (Role::Responder, Direction::Receiving)
        );
        if namespace == Namespace::V2 || initiator_sends {
            [initiator.as_slice(), responder].concat()
        } else {
            [responder.as_slice(), initiator].concat()
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Sending,
    Receiving,
}

fn own_identity_bytes(namespace: Namespace, identity: &IdentityKeyPair) -> Vec<u8> {
    wire::encode_identity(namespace, &identity.public(), &identity.ed25519())
}

impl From<RatchetError> for DecryptError {
    fn from(error: RatchetError) -> Self {
        match error {
            RatchetError::Replayed => Self::Replayed,
            RatchetError::TooManySkipped => Self::TooManySkipped,
            RatchetError::InvalidKey => Self::InvalidKey,
            // A session that cannot know the key gives the same answer as one that tried it.
            RatchetError::UnknownRatchetKey => Self::Authentication,
            RatchetError::Exhausted => Self::Malformed("message number"),
        }
    }
}

mod base64_bytes {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(d)?.as_bytes()).map_err(de::Error::custom)
    }
}
