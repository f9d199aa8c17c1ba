//! The prekeys of one namespace: what other devices start sessions with.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};

use super::{
    Namespace,
    identity::IdentityKeyPair,
    keys::PrivateKey,
    limits::{PREKEY_REFILL, PREKEYS, SIGNED_PREKEY_PERIOD},
    wire,
};

/// Ids stay within the 24 bits that libsignal allows; after that they start again at 1.
const MAX_PREKEY_ID: u32 = 0x00ff_ffff;

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SignedPrekey {
    pub(crate) id: u32,
    pub(crate) key: PrivateKey,
    #[serde(with = "signature_base64")]
    pub(crate) signature: [u8; 64],
    created_at_s: u64,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Prekeys {
    signed: SignedPrekey,
    /// The one before, for messages that were under way when it was replaced.
    previous_signed: Option<SignedPrekey>,
    one_time: BTreeMap<u32, PrivateKey>,
    next_id: u32,
}

impl Prekeys {
    pub(crate) fn generate(
        namespace: Namespace,
        identity: &IdentityKeyPair,
        now: SystemTime,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Self {
        let signed = sign_prekey(namespace, 1, identity, now, rng);
        let mut prekeys =
            Self { signed, previous_signed: None, one_time: BTreeMap::new(), next_id: 1 };
        prekeys.refill(rng);
        prekeys
    }

    /// Prekeys that have nothing in common with these, not even an id that was given since.
    pub(crate) fn replaced(
        namespace: Namespace,
        identity: &IdentityKeyPair,
        now: SystemTime,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Self {
        let signed = sign_prekey(namespace, random_id(rng), identity, now, rng);
        let next_id = random_id(rng);
        let mut prekeys =
            Self { signed, previous_signed: None, one_time: BTreeMap::new(), next_id };
        prekeys.refill(rng);
        prekeys
    }

    pub(crate) const fn signed(&self) -> &SignedPrekey {
        &self.signed
    }

    pub(crate) const fn one_time(&self) -> &BTreeMap<u32, PrivateKey> {
        &self.one_time
    }

    pub(crate) fn find_signed(&self, id: u32) -> Option<&PrivateKey> {
        let all = std::iter::once(&self.signed).chain(&self.previous_signed);
        all.into_iter().find(|prekey| prekey.id == id).map(|prekey| &prekey.key)
    }

    pub(crate) fn find_one_time(&self, id: u32) -> Option<&PrivateKey> {
        self.one_time.get(&id)
    }

    pub(crate) fn remove_one_time(&mut self, id: u32) {
        self.one_time.remove(&id);
    }

    /// Rotates and refills what is due. Says whether anything has changed.
    pub(crate) fn maintain(
        &mut self,
        namespace: Namespace,
        identity: &IdentityKeyPair,
        now: SystemTime,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> bool {
        let age_s = seconds(now).saturating_sub(self.signed.created_at_s);
        let rotate = age_s >= SIGNED_PREKEY_PERIOD.as_secs();
        if rotate {
            let next = sign_prekey(namespace, following(self.signed.id), identity, now, rng);
            self.previous_signed = Some(std::mem::replace(&mut self.signed, next));
        }
        let refill = self.one_time.len() < PREKEY_REFILL;
        if refill {
            self.refill(rng);
        }
        rotate || refill
    }

    fn refill(&mut self, rng: &mut (impl CryptoRng + RngCore)) {
        while self.one_time.len() < PREKEYS {
            self.one_time.entry(self.next_id).or_insert_with(|| PrivateKey::random(rng));
            self.next_id = following(self.next_id);
        }
    }
}

const fn following(id: u32) -> u32 {
    if id >= MAX_PREKEY_ID { 1 } else { id + 1 }
}

fn random_id(rng: &mut impl RngCore) -> u32 {
    rng.next_u32() % MAX_PREKEY_ID + 1
}

fn sign_prekey(
    namespace: Namespace,
    id: u32,
    identity: &IdentityKeyPair,
    now: SystemTime,
    rng: &mut (impl CryptoRng + RngCore),
) -> SignedPrekey {
    let key = PrivateKey::random(rng);
    let signature = identity.sign(&wire::encode_key(namespace, &key.public()), rng);
    SignedPrekey { id, key, signature, created_at_s: seconds(now) }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

mod signature_base64 {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 64], D::Error> {
        let bytes =
            STANDARD.decode(String::deserialize(d)?.as_bytes()).map_err(de::Error::custom)?;
        bytes.try_into().map_err(|_| de::Error::custom("not 64 bytes"))
    }
}
