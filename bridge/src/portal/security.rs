//! What is known of both legs of a chat.

use e2ee::matrix::PublicKeys;

use super::{Hub, from_remote::chat_of, trust::DecideError};
use crate::{
    network::{Author, OwnDevice, RemoteDevice},
    store::{ContactDecision, ContactTrust, KeyEvent, Pin, PinState, Portal},
};

/// Both legs of a chat.
#[derive(Clone)]
pub struct ChatSecurity {
    /// The chat's portal.
    pub portal: Portal,
    /// What encrypts on the other network.
    pub remote_encryption: &'static str,
    /// The leg between the bridge and the person.
    pub matrix: MatrixKeys,
    /// The contact's devices, as the person's decisions have them.
    pub contact: Vec<RemoteDevice>,
    /// The bridge's device on the other network, in the person's name.
    pub own: OwnDevice,
}

/// The public keys of a person, and those that the bridge shows them.
#[derive(Clone)]
pub struct MatrixKeys {
    /// The identity that the bridge has pinned for the person.
    pub pin: Option<Pin>,
    /// The person's keys, as the ghost knows them.
    pub person: PublicKeys,
    /// What the contact has decided about the person.
    pub decision: Option<ContactDecision>,
    /// When they were compared by emoji, in milliseconds since 1970, if it can be told.
    pub compared_ms: Option<i64>,
    /// The ghost's keys.
    pub ghost: PublicKeys,
}

/// What is known of a person's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityStanding<'a> {
    /// The bridge has not seen any.
    Unseen,
    /// Trusted on first use or by approval, and unchanged since.
    Pinned {
        /// The public master key.
        key: &'a str,
        /// Since when, in milliseconds since 1970.
        since_ms: i64,
    },
    /// Compared by emoji with the contact, and unchanged since.
    Compared {
        /// The public master key.
        key: &'a str,
        /// Since when, in milliseconds since 1970, if it can be told.
        since_ms: Option<i64>,
    },
    /// The contact has compared its whole fingerprint, and it is unchanged since.
    Trusted {
        /// The public master key.
        key: &'a str,
        /// Since when, in milliseconds since 1970.
        since_ms: i64,
    },
    /// The person presents another one, which waits for approval.
    Changed {
        /// The pinned public master key.
        key: &'a str,
        /// When it was pinned, in milliseconds since 1970.
        since_ms: i64,
        /// The one that the person presents.
        new_key: &'a str,
    },
}

impl MatrixKeys {
    /// The contact's decision, if it is that nothing is to cross.
    pub fn distrust(&self) -> Option<&ContactDecision> {
        self.decision.as_ref().filter(|decision| decision.is_distrust())
    }

    /// What is known of the person's identity. What was compared before the contact distrusted the
    /// person does not count.
    pub fn standing(&self) -> IdentityStanding<'_> {
        let Some(pin) = &self.pin else { return IdentityStanding::Unseen };
        let (key, since_ms) = (pin.master_key.as_str(), pin.pinned_ms);
        if let PinState::Changed { new_master_key } = &pin.state {
            return IdentityStanding::Changed { key, since_ms, new_key: new_master_key };
        }
        if self.distrust().is_some() {
            return IdentityStanding::Pinned { key, since_ms };
        }
        if let Some(ContactDecision { trust: ContactTrust::Fingerprint, decided_ms, .. }) =
            self.decision.as_ref().filter(|decision| decision.has_verified(key))
        {
            return IdentityStanding::Trusted { key, since_ms: *decided_ms };
        }
        let known = self.person.identity.as_ref().filter(|known| known.master_key == key);
        match known {
            Some(known) if known.is_verified => {
                IdentityStanding::Compared { key, since_ms: self.compared_ms }
            }
            _ => IdentityStanding::Pinned { key, since_ms },
        }
    }
}

impl Hub {
    /// What is known of both legs of a chat.
    ///
    /// # Errors
    /// [`DecideError`] when the store, the contact's server or a device does not answer.
    pub async fn security_of(&self, portal: &Portal) -> Result<ChatSecurity, DecideError> {
        let own = Author::Person(portal.local.clone());
        Ok(ChatSecurity {
            portal: portal.clone(),
            remote_encryption: self.remote_encryption(),
            matrix: self.matrix_keys(portal).await?,
            contact: self.parts.remote.devices(&chat_of(portal)).await?,
            own: self.parts.remote.own_device(&own).await?,
        })
    }

    /// The public keys on the Matrix leg of a chat.
    ///
    /// # Errors
    /// [`DecideError`] when the store or a device does not answer.
    pub(super) async fn matrix_keys(&self, portal: &Portal) -> Result<MatrixKeys, DecideError> {
        let devices = &self.parts.devices;
        let person = devices.public_keys(&portal.ghost, &portal.local).await?;
        let ghost = devices.public_keys(&portal.ghost, &portal.ghost).await?;
        let mut tx = self.parts.db.read().await?;
        let pin = tx.pins().find(&portal.local).await?;
        let compared = match &pin {
            Some(pin) => {
                let (owner, key) = (pin.user_id.as_str(), pin.master_key.as_str());
                tx.key_log().load_first_times(owner, key, KeyEvent::Verified).await?
            }
            None => Vec::new(),
        };
        let decision = tx.contact_decisions().find(&chat_of(portal)).await?;
        let known_ms = decision.as_ref().filter(|it| it.trust == ContactTrust::Emoji);
        // Older words stand in the log alone, which does not say of which contact they are: with
        // more than one it cannot be told.
        let logged_ms = if let [time_ms] = *compared { Some(time_ms) } else { None };
        let compared_ms = known_ms.map(|it| it.decided_ms).or(logged_ms);
        Ok(MatrixKeys { pin, person, decision, compared_ms, ghost })
    }
}
