//! Plaintext from a contact in a conversation that has been encrypted: it is marked or refused, and
//! never passes unmarked.

use super::{Hub, StepError, say::Wording};
use crate::{
    config::PlaintextFromContacts,
    network::LegSecurity,
    store::{Notice, Portal, RemoteHistory, RoomEncryption},
};

/// The short word for plaintext that was refused.
pub(super) const PLAINTEXT_REFUSED: &str = "plaintext_refused";

/// What becomes of a contact's message because of how it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// It is delivered as it is.
    Unmarked,
    /// It is delivered with a mark.
    Marked,
    /// It is not delivered.
    Refused,
}

impl Passage {
    /// Decides about a message that came so. The operator's policy is about conversations that have
    /// been encrypted; an encrypted room promises enough for a mark.
    pub(super) fn of(
        portal: &Portal,
        security: LegSecurity,
        policy: PlaintextFromContacts,
    ) -> Self {
        match (security, portal.history, policy) {
            (LegSecurity::Encrypted { .. }, _, _) => Self::Unmarked,
            (LegSecurity::Plaintext, RemoteHistory::Encrypted, PlaintextFromContacts::Refuse) => {
                Self::Refused
            }
            (LegSecurity::Plaintext, RemoteHistory::Encrypted, PlaintextFromContacts::Mark) => {
                Self::Marked
            }
            (LegSecurity::Plaintext, RemoteHistory::NeverEncrypted, _) => match portal.encryption {
                RoomEncryption::Encrypted => Self::Marked,
                RoomEncryption::Plain => Self::Unmarked,
            },
        }
    }
}

impl Hub {
    /// Both sides learn that plaintext was refused: once, until something encrypted comes.
    pub(super) async fn tell_plaintext_refused(&self, portal: &Portal) -> Result<(), StepError> {
        let notice =
            Notice { scope: portal.room_id.as_str(), subject: "contact", kind: PLAINTEXT_REFUSED };
        let text = format!(
            "Your message was not delivered: it came unencrypted, and your conversation with {} has \
             been encrypted before. Switch encryption on and send it again. What else you write to \
             them unencrypted is not delivered either.",
            portal.local
        );
        self.tell_contact_once(&portal.contact, notice, &text).await?;
        let text = "Something came from your contact unencrypted, though this conversation has been \
            encrypted before. It was refused, and so is what else comes unencrypted. If your \
            contact cannot encrypt any more, ask who runs this bridge.";
        self.tell_once(portal, PLAINTEXT_REFUSED, Wording::Public, text).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{network::IdentityTrust, store::testing};

    #[test]
    fn plaintext_never_passes_unmarked_where_anything_was_encrypted() {
        use PlaintextFromContacts::{Mark, Refuse};
        use RemoteHistory::{Encrypted as Was, NeverEncrypted as Never};
        use RoomEncryption::{Encrypted, Plain};
        for (room, history, policy, passage) in [
            (Encrypted, Was, Mark, Passage::Marked),
            (Plain, Was, Mark, Passage::Marked),
            (Encrypted, Never, Mark, Passage::Marked),
            (Plain, Never, Mark, Passage::Unmarked),
            (Encrypted, Was, Refuse, Passage::Refused),
            (Plain, Was, Refuse, Passage::Refused),
            (Encrypted, Never, Refuse, Passage::Marked),
            (Plain, Never, Refuse, Passage::Unmarked),
        ] {
            let portal = Portal { history, ..testing::portal(room) };
            assert_eq!(Passage::of(&portal, LegSecurity::Plaintext, policy), passage);
            let encrypted = LegSecurity::Encrypted { identity: IdentityTrust::Pinned };
            assert_eq!(Passage::of(&portal, encrypted, policy), Passage::Unmarked);
        }
    }
}
