//! Root keys: what every Diffie-Hellman step is mixed into.

use serde::{Deserialize, Serialize};

use super::chain_key::ChainKey;
use crate::omemo::{
    crypto,
    keys::{PrivateKey, PublicKey, Secret},
    namespace::Labels,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RootKey(Secret);

impl RootKey {
    pub(crate) const fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// One step of the Diffie-Hellman ratchet: the next root key and a fresh chain.
    ///
    /// `None` when the public key is of low order.
    pub(crate) fn advance(
        &self,
        labels: &Labels,
        own: &PrivateKey,
        remote: &PublicKey,
    ) -> Option<(Self, ChainKey)> {
        let shared = own.agree(remote)?;
        let output = crypto::hkdf::<64>(self.0.as_bytes(), shared.as_bytes(), labels.root);
        let (root, chain) = output.split_first_chunk::<32>()?;
        let root = Self(Secret::from_bytes(root));
        Some((root, ChainKey::new(Secret::from_bytes(chain.try_into().ok()?))))
    }
}
