//! What one ratchet key of the remote side lets us read.

use serde::{Deserialize, Serialize};

use super::{RatchetError, chain_key::ChainKey, message_key::MessageKey};
use crate::omemo::{keys::PublicKey, limits::MAX_SKIPPED_KEYS};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReceiverChain {
    ratchet_key: PublicKey,
    chain_key: ChainKey,
    /// Keys of messages that have not come yet, oldest first.
    skipped: Vec<SkippedKey>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SkippedKey {
    index: u32,
    key: MessageKey,
}

impl ReceiverChain {
    pub(crate) const fn new(ratchet_key: PublicKey, chain_key: ChainKey) -> Self {
        Self { ratchet_key, chain_key, skipped: Vec::new() }
    }

    pub(crate) fn belongs_to(&self, ratchet_key: &PublicKey) -> bool {
        self.ratchet_key == *ratchet_key
    }

    pub(crate) const fn ratchet_key(&self) -> &PublicKey {
        &self.ratchet_key
    }

    /// One more than the highest message number that was read.
    pub(crate) const fn length(&self) -> u32 {
        self.chain_key.index()
    }

    /// Takes the key of message `index` out of the chain; each can be taken once.
    pub(crate) fn take(&mut self, index: u32) -> Result<MessageKey, RatchetError> {
        let Some(gap) = index.checked_sub(self.chain_key.index()) else {
            let position = self.skipped.iter().position(|skipped| skipped.index == index);
            return position
                .map(|position| self.skipped.remove(position).key)
                .ok_or(RatchetError::Replayed);
        };
        if usize::try_from(gap).map_or(true, |gap| gap > MAX_SKIPPED_KEYS) {
            return Err(RatchetError::TooManySkipped);
        }
        for index in self.chain_key.index()..index {
            let key = self.chain_key.next_message_key().ok_or(RatchetError::Exhausted)?;
            self.skipped.push(SkippedKey { index, key });
        }
        self.chain_key.next_message_key().ok_or(RatchetError::Exhausted)
    }

    pub(crate) fn skipped_count(&self) -> usize {
        self.skipped.len()
    }

    /// Forgets the oldest skipped keys; returns how many of `excess` are left to forget.
    pub(crate) fn forget_oldest(&mut self, excess: usize) -> usize {
        let count = excess.min(self.skipped.len());
        self.skipped.drain(..count);
        excess - count
    }
}
