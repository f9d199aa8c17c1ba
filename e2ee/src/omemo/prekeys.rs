//! The prekeys of one namespace: what other devices start sessions with.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Namespace,
    debug::hidden_debug,
    error::StateError,
    identity::IdentityKeyPair,
    keys::PrivateKey,
    limits::{PREKEY_REFILL, PREKEYS, SIGNED_PREKEY_AHEAD, SIGNED_PREKEY_PERIOD},
    state, wire,
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
    /// Those of a message that has waited. They come with it, and are not stored here.
    #[serde(skip)]
    lent: Option<KeptPrekeys>,
}

/// Our two prekeys that a key exchange names, kept with a message that is not to be read yet: an account throws its own
/// away in time, and others may use them up.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeptPrekeys {
    namespace: Namespace,
    signed_id: u32,
    signed: PrivateKey,
    one_time_id: u32,
    one_time: PrivateKey,
}

hidden_debug!(KeptPrekeys);

const KEPT_VERSION: u8 = 1;

impl KeptPrekeys {
    /// Everything, secrets included, in a versioned format. To be sealed before it is stored.
    ///
    /// # Errors
    /// [`StateError`] never in practice: the format can hold all prekeys.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, StateError> {
        state::to_bytes(KEPT_VERSION, self)
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`StateError`] when the version is unknown or the bytes are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        state::from_bytes(KEPT_VERSION, bytes)
    }

    pub(crate) const fn namespace(&self) -> Namespace {
        self.namespace
    }
}

impl Prekeys {
    pub(crate) fn generate(
        namespace: Namespace,
        identity: &IdentityKeyPair,
        now: SystemTime,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Self {
        let signed = sign_prekey(namespace, 1, identity, now, rng);
        let mut prekeys = Self {
            signed,
            previous_signed: None,
            one_time: BTreeMap::new(),
            next_id: 1,
            lent: None,
        };
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
            Self { signed, previous_signed: None, one_time: BTreeMap::new(), next_id, lent: None };
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
        let lent = self.lent.iter().map(|lent| (lent.signed_id, &lent.signed));
        let own = std::iter::once(&self.signed).chain(&self.previous_signed);
        let all = lent.chain(own.map(|prekey| (prekey.id, &prekey.key)));
        all.into_iter().find(|(known, _)| *known == id).map(|(_, key)| key)
    }

    pub(crate) fn find_one_time(&self, id: u32) -> Option<&PrivateKey> {
        let lent = self.lent.as_ref().filter(|lent| lent.one_time_id == id);
        lent.map(|lent| &lent.one_time).or_else(|| self.one_time.get(&id))
    }

    pub(crate) fn remove_one_time(&mut self, id: u32) {
        self.one_time.remove(&id);
    }

    pub(crate) fn keep(
        &self,
        namespace: Namespace,
        signed_id: u32,
        one_time_id: u32,
    ) -> Option<KeptPrekeys> {
        let signed = self.find_signed(signed_id)?.clone();
        let one_time = self.find_one_time(one_time_id)?.clone();
        Some(KeptPrekeys { namespace, signed_id, signed, one_time_id, one_time })
    }

    pub(crate) fn lend(&mut self, lent: Option<KeptPrekeys>) {
        self.lent = lent;
    }

    /// Rotates and refills what is due. Says whether anything has changed.
    pub(crate) fn maintain(
        &mut self,
        namespace: Namespace,
        identity: &IdentityKeyPair,
        now: SystemTime,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> bool {
        let now_s = seconds(now);
        // It was made while the clock was ahead, or the clock is behind now: it is as if it were made now.
        let redate = self.signed.created_at_s.saturating_sub(now_s) > SIGNED_PREKEY_AHEAD.as_secs();
        if redate {
            self.signed.created_at_s = now_s;
        }
        let age_s = now_s.saturating_sub(self.signed.created_at_s);
        let rotate = age_s >= SIGNED_PREKEY_PERIOD.as_secs();
        if rotate {
            let next = sign_prekey(namespace, following(self.signed.id), identity, now, rng);
            self.previous_signed = Some(std::mem::replace(&mut self.signed, next));
        }
        let refill = self.one_time.len() < PREKEY_REFILL;
        if refill {
            self.refill(rng);
        }
        redate || rotate || refill
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
