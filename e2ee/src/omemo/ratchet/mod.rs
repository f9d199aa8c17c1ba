//! The Double Ratchet.
//!
//! Owns root, chain and message keys. Knows no wire format, no associated data and no handshake:
//! headers come in parsed, message keys go out.
//!
//! Spec: <https://signal.org/docs/specifications/doubleratchet/>

mod chain_key;
mod message_key;
mod receiver_chain;
mod root_key;

use rand_core::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};

pub(crate) use self::message_key::MessageKey;
use self::{chain_key::ChainKey, receiver_chain::ReceiverChain, root_key::RootKey};
use super::{
    keys::{PrivateKey, PublicKey, Secret},
    limits::{MAX_RECEIVING_CHAINS, MAX_SKIPPED_KEYS},
    namespace::Labels,
};

/// What a ratchet message says in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) ratchet_key: PublicKey,
    pub(crate) number: u32,
    /// Length of the sender's previous chain. We announce the true one and rely on nobody's:
    /// libsignal sends another number, so old chains are kept open instead.
    pub(crate) previous: u32,
}

/// Why a ratchet gives no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RatchetError {
    /// The key was given out before.
    Replayed,
    /// More keys would be skipped than the limit allows.
    TooManySkipped,
    /// The header's ratchet key is of low order.
    InvalidKey,
    /// The header's ratchet key cannot belong to this session.
    UnknownRatchetKey,
    /// A chain has come to its last message number.
    Exhausted,
}

/// One side of a pairwise ratchet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ratchet {
    root_key: RootKey,
    sending: Sending,
    /// Length of the previous sending chain.
    previous: u32,
    /// Oldest first.
    receiving: Vec<ReceiverChain>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sending {
    /// The one who answers, before the first message: the signed prekey is the ratchet key.
    Listening { key: PrivateKey },
    /// The remote side's newest ratchet key has not been answered: the next message starts a
    /// chain with a fresh key of ours.
    Due,
    /// Messages go out in this chain.
    Active { key: PrivateKey, chain: ChainKey },
}

impl Ratchet {
    /// The side that starts, towards the remote side's signed prekey. `None` when that is of low
    /// order.
    pub(crate) fn initiate(
        labels: &Labels,
        shared_secret: Secret,
        signed_prekey: &PublicKey,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Option<Self> {
        let key = PrivateKey::random(rng);
        let (root_key, chain) = RootKey::new(shared_secret).advance(labels, &key, signed_prekey)?;
        let sending = Sending::Active { key, chain };
        Some(Self { root_key, sending, previous: 0, receiving: Vec::new() })
    }

    /// The side that answers, with the signed prekey that the other side has used.
    pub(crate) fn respond(shared_secret: Secret, signed_prekey: PrivateKey) -> Self {
        let sending = Sending::Listening { key: signed_prekey };
        let root_key = RootKey::new(shared_secret);
        Self { root_key, sending, previous: 0, receiving: Vec::new() }
    }

    /// The key for the next message to send, and its header.
    pub(crate) fn send(
        &mut self,
        labels: &Labels,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(Header, MessageKey), RatchetError> {
        if let Sending::Due = self.sending {
            self.start_chain(labels, rng)?;
        }
        let Sending::Active { key, chain } = &mut self.sending else {
            return Err(RatchetError::UnknownRatchetKey);
        };
        let number = chain.index();
        let message_key = chain.next_message_key().ok_or(RatchetError::Exhausted)?;
        let header = Header { ratchet_key: key.public(), number, previous: self.previous };
        Ok((header, message_key))
    }

    /// The key for a message that came in, and the ratchet as it is when the message proves to be
    /// authentic. `self` is not changed.
    pub(crate) fn receive(
        &self,
        labels: &Labels,
        header: &Header,
    ) -> Result<(Self, MessageKey), RatchetError> {
        let mut next = self.clone();
        let chains = &mut next.receiving;
        let known = chains.iter_mut().find(|chain| chain.belongs_to(&header.ratchet_key));
        let message_key = match known {
            Some(chain) => chain.take(header.number)?,
            None => next.receive_in_new_chain(labels, header)?,
        };
        next.forget_oldest();
        Ok((next, message_key))
    }

    /// How many messages went out under our newest ratchet key.
    pub(crate) const fn sent(&self) -> u32 {
        match &self.sending {
            Sending::Active { chain, .. } => chain.index(),
            Sending::Listening { .. } | Sending::Due => 0,
        }
    }

    /// Whether the remote side's newest ratchet key has not been answered.
    pub(crate) const fn owes_chain(&self) -> bool {
        matches!(self.sending, Sending::Due)
    }

    /// How long the remote side's newest chain is, as far as we know.
    pub(crate) fn received(&self) -> u32 {
        self.receiving.last().map_or(0, ReceiverChain::length)
    }

    /// How many keys are kept of messages that have not come.
    pub(crate) fn skipped_count(&self) -> usize {
        self.receiving.iter().map(ReceiverChain::skipped_count).sum()
    }

    /// Forgets the oldest of these keys until there are `most`. Returns how many more there could be.
    pub(crate) fn keep_skipped(&mut self, most: usize) -> usize {
        let skipped = self.skipped_count();
        let excess = skipped.saturating_sub(most);
        self.receiving.iter_mut().fold(excess, |excess, chain| chain.forget_oldest(excess));
        most.saturating_sub(skipped)
    }

    fn start_chain(
        &mut self,
        labels: &Labels,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(), RatchetError> {
        let remote = self.receiving.last().ok_or(RatchetError::UnknownRatchetKey)?.ratchet_key();
        let key = PrivateKey::random(rng);
        let (root_key, chain) =
            self.root_key.advance(labels, &key, remote).ok_or(RatchetError::InvalidKey)?;
        self.root_key = root_key;
        self.sending = Sending::Active { key, chain };
        Ok(())
    }

    fn receive_in_new_chain(
        &mut self,
        labels: &Labels,
        header: &Header,
    ) -> Result<MessageKey, RatchetError> {
        let (own, sent) = match &self.sending {
            Sending::Listening { key } => (key, 0),
            Sending::Active { key, chain } => (key, chain.index()),
            Sending::Due => return Err(RatchetError::UnknownRatchetKey),
        };
        let (root_key, chain_key) = self
            .root_key
            .advance(labels, own, &header.ratchet_key)
            .ok_or(RatchetError::InvalidKey)?;
        let mut chain = ReceiverChain::new(header.ratchet_key, chain_key);
        let message_key = chain.take(header.number)?;
        self.root_key = root_key;
        self.previous = sent;
        self.sending = Sending::Due;
        self.receiving.push(chain);
        Ok(message_key)
    }

    fn forget_oldest(&mut self) {
        let chains = self.receiving.len().saturating_sub(MAX_RECEIVING_CHAINS);
        self.receiving.drain(..chains);
        self.keep_skipped(MAX_SKIPPED_KEYS);
    }
}
