//! Identity keys: one Curve25519 key that agrees on secrets and signs (XEdDSA).
//!
//! Legacy OMEMO writes the Montgomery form of the key, `urn:xmpp:omemo:2` the Ed25519 form. Both
//! name the same identity: equality and fingerprints are those of the Montgomery form. Our own
//! Ed25519 form always has sign bit 0, so that one key serves both namespaces.
//!
//! Spec: <https://signal.org/docs/specifications/xeddsa/>

use curve25519_dalek::{
    edwards::{CompressedEdwardsY, EdwardsPoint},
    montgomery::MontgomeryPoint,
    scalar::{Scalar, clamp_integer},
};
use ed25519_dalek::{Signature, VerifyingKey};
use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512};
use zeroize::{Zeroize, Zeroizing};

use super::{
    debug::hidden_debug,
    keys::{PrivateKey, PublicKey},
};

hidden_debug!(IdentityKey);

/// A device's public identity.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PublicKey", into = "PublicKey")]
pub struct IdentityKey(PublicKey);

impl IdentityKey {
    /// Checks the Montgomery form: canonical, on the curve and not of low order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let point = MontgomeryPoint(*bytes);
        let edwards = point.to_edwards(0)?;
        let canonical = edwards.to_montgomery().0 == *bytes;
        (canonical && !edwards.is_small_order()).then_some(Self(PublicKey::from_bytes(*bytes)))
    }

    /// The canonical Montgomery form, 32 bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        *self.0.as_bytes()
    }

    /// The fingerprint as Conversations and Dino print it: eight groups of eight hex digits.
    pub fn fingerprint(&self) -> String {
        let groups = self
            .0
            .as_bytes()
            .chunks(4)
            .map(|group| group.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        groups.collect::<Vec<_>>().join(" ")
    }

    pub(crate) const fn public_key(&self) -> &PublicKey {
        &self.0
    }

    /// The identity that an Ed25519 public key names.
    pub(crate) fn from_ed25519(bytes: &[u8; 32]) -> Option<Self> {
        let point = CompressedEdwardsY(*bytes).decompress()?;
        let canonical = point.compress().0 == *bytes;
        if !canonical || point.is_small_order() {
            return None;
        }
        Self::from_bytes(&point.to_montgomery().0)
    }

    /// The Ed25519 form with this sign bit (0 or 1).
    pub(crate) fn to_ed25519(self, sign: u8) -> Option<[u8; 32]> {
        MontgomeryPoint(self.to_bytes()).to_edwards(sign).map(|point| point.compress().0)
    }
}

impl From<IdentityKey> for PublicKey {
    fn from(key: IdentityKey) -> Self {
        key.0
    }
}

impl TryFrom<PublicKey> for IdentityKey {
    type Error = &'static str;

    fn try_from(key: PublicKey) -> Result<Self, Self::Error> {
        Self::from_bytes(key.as_bytes()).ok_or("not an identity key")
    }
}

/// Verifies a plain Ed25519 signature. Weak keys and malleable signatures are refused.
pub(crate) fn verify(ed25519: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(ed25519)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// Our own identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct IdentityKeyPair(PrivateKey);

impl IdentityKeyPair {
    pub(crate) fn random(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self(PrivateKey::random(rng))
    }

    #[cfg(test)]
    pub(crate) fn from_private(private: PrivateKey) -> Self {
        Self(private)
    }

    pub(crate) const fn private(&self) -> &PrivateKey {
        &self.0
    }

    pub(crate) fn public(&self) -> IdentityKey {
        IdentityKey(self.0.public())
    }

    /// The Ed25519 form, sign bit 0.
    pub(crate) fn ed25519(&self) -> [u8; 32] {
        self.signing_key().1
    }

    /// XEdDSA: a randomised signature that verifies as plain Ed25519 under [`Self::ed25519`].
    pub(crate) fn sign(&self, message: &[u8], rng: &mut (impl CryptoRng + RngCore)) -> [u8; 64] {
        let (secret, public) = self.signing_key();
        let mut random = Zeroizing::new([0; 64]);
        rng.fill_bytes(random.as_mut());

        let mut prefix = [0xff; 32];
        if let Some(first) = prefix.first_mut() {
            *first = 0xfe;
        }
        let nonce =
            Zeroizing::new(hash_to_scalar(&[&prefix, secret.as_bytes(), message, random.as_ref()]));
        let commitment = EdwardsPoint::mul_base(&nonce).compress().0;
        let challenge = hash_to_scalar(&[&commitment, &public, message]);
        let response = *nonce + challenge * *secret;
        Signature::from_components(commitment, response.to_bytes()).to_bytes()
    }

    /// The scalar and public key that sign, negated where the public key would have sign bit 1.
    fn signing_key(&self) -> (Zeroizing<Scalar>, [u8; 32]) {
        let mut clamped = clamp_integer(*self.0.as_bytes());
        let mut secret = Zeroizing::new(Scalar::from_bytes_mod_order(clamped));
        clamped.zeroize();
        let mut public = EdwardsPoint::mul_base(&secret).compress().0;
        if public.last().is_some_and(|byte| byte & 0x80 != 0) {
            *secret = -*secret;
            public = EdwardsPoint::mul_base(&secret).compress().0;
        }
        (secret, public)
    }
}

fn hash_to_scalar(parts: &[&[u8]]) -> Scalar {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    let mut wide: [u8; 64] = hash.finalize().into();
    let scalar = Scalar::from_bytes_mod_order_wide(&wide);
    wide.zeroize();
    scalar
}
