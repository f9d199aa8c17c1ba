//! Message keys: each opens one message.

use serde::{Deserialize, Serialize};

use crate::omemo::{crypto::CbcKeys, keys::Secret, namespace::Labels};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct MessageKey(Secret);

impl MessageKey {
    pub(crate) const fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// The cipher and authentication keys of the message.
    pub(crate) fn expand(&self, labels: &Labels) -> CbcKeys {
        CbcKeys::derive(self.0.as_bytes(), labels.message)
    }
}
