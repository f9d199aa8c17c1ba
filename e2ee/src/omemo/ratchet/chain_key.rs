//! Chain keys: one step per message.

use serde::{Deserialize, Serialize};

use super::message_key::MessageKey;
use crate::omemo::{crypto, keys::Secret};

const MESSAGE_KEY_SEED: &[u8] = &[1];
const CHAIN_KEY_SEED: &[u8] = &[2];

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChainKey {
    key: Secret,
    index: u32,
}

impl ChainKey {
    pub(crate) const fn new(key: Secret) -> Self {
        Self { key, index: 0 }
    }

    /// The number of the message whose key comes next.
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }

    /// The key of message [`Self::index`], and the step past it.
    ///
    /// `None` when message numbers are used up.
    pub(crate) fn next_message_key(&mut self) -> Option<MessageKey> {
        let index = self.index.checked_add(1)?;
        let message_key = crypto::hmac(self.key.as_bytes(), &[MESSAGE_KEY_SEED]);
        let chain_key = crypto::hmac(self.key.as_bytes(), &[CHAIN_KEY_SEED]);
        *self = Self { key: Secret::from_bytes(&chain_key), index };
        Some(MessageKey::new(Secret::from_bytes(&message_key)))
    }
}
