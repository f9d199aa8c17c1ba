//! Curve25519 keys and secrets of 32 bytes: never printed, wiped when dropped.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use curve25519_dalek::montgomery::MontgomeryPoint;
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::debug::hidden_debug;

hidden_debug!(Secret, PublicKey);

/// 32 secret bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret(Box<[u8; 32]>);

impl Secret {
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Box::new(*bytes))
    }

    pub(crate) fn random(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        let mut secret = Self(Box::new([0; 32]));
        rng.fill_bytes(secret.0.as_mut());
        secret
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The private half of a Curve25519 key pair.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PrivateKey(Secret);

impl PrivateKey {
    pub(crate) fn random(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self(Secret::random(rng))
    }

    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::from_bytes(bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey(MontgomeryPoint::mul_base_clamped(*self.as_bytes()).0)
    }

    /// X25519 (RFC 7748). `None` when the result is all zero: the public key is of low order.
    pub(crate) fn agree(&self, public: &PublicKey) -> Option<Secret> {
        let mut shared = MontgomeryPoint(public.0).mul_clamped(*self.as_bytes());
        let zero = shared.0.ct_eq(&[0; 32]);
        let secret = Secret::from_bytes(&shared.0);
        shared.zeroize();
        (!bool::from(zero)).then_some(secret)
    }
}

/// The public half of a Curve25519 key pair, as its Montgomery u-coordinate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublicKey([u8; 32]);

impl PublicKey {
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A key from outside. Only the canonical form is taken: X25519 ignores the top bit and reduces
    /// the rest, so otherwise the same key could be written in more than one way.
    pub(crate) fn from_outside(bytes: &[u8]) -> Option<Self> {
        // 2^255 - 19, little-endian, is ed ff … ff 7f.
        let (first, rest) = bytes.split_first()?;
        let (last, middle) = rest.split_last()?;
        let beyond_prime =
            *first >= 0xed && *last == 0x7f && middle.iter().all(|byte| *byte == 0xff);
        Self::from_slice(bytes).filter(|_| *last < 0x80 && !beyond_prime)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.as_bytes())))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = Zeroizing::new(STANDARD.decode(text.as_bytes()).map_err(de::Error::custom)?);
        let bytes: &[u8; 32] =
            bytes.as_slice().try_into().map_err(|_| de::Error::custom("not 32 bytes"))?;
        Ok(Self::from_bytes(bytes))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = STANDARD
            .decode(String::deserialize(deserializer)?.as_bytes())
            .map_err(de::Error::custom)?;
        Self::from_slice(&bytes).ok_or_else(|| de::Error::custom("not 32 bytes"))
    }
}
