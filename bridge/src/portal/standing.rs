//! How far the devices can be trusted that read what the bridge tells a contact, and that answer it.

use ruma::UserId;

use super::Hub;
use crate::network::{Author, ChatKey, DeviceTrust, RemoteDevice, RemoteUserId};

/// What a person knows of the contact's devices that see the emoji and may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// They have verified none.
    Unverified,
    /// They have verified some, and trust all.
    Verified,
    /// They have verified some, and among the others is one that they do not trust.
    Doubtful,
}

impl Standing {
    fn of(known: &[RemoteDevice], readers: &[RemoteDevice]) -> Self {
        if !known.iter().any(|device| device.trust == DeviceTrust::Verified) {
            return Self::Unverified;
        }
        let is_trusted = |reader: &RemoteDevice| {
            let trusts = [DeviceTrust::Verified, DeviceTrust::Pinned];
            known
                .iter()
                .any(|it| it.fingerprint == reader.fingerprint && trusts.contains(&it.trust))
        };
        if readers.iter().all(is_trusted) { Self::Verified } else { Self::Doubtful }
    }
}

impl Hub {
    /// What the person knows of the devices that read what the bridge tells the contact. Nobody
    /// decides about those in the bridge's own chat, so what was decided in the person's counts.
    pub(super) async fn standing(&self, user: &UserId, contact: &RemoteUserId) -> Standing {
        let chat = ChatKey { local: Author::Person(user.to_owned()), contact: contact.clone() };
        let bridges = ChatKey { local: Author::Bridge, contact: contact.clone() };
        let remote = &self.parts.remote;
        match (remote.devices(&chat).await, remote.devices(&bridges).await) {
            (Ok(known), Ok(readers)) => Standing::of(&known, &readers),
            // Whether a strange one is among them cannot be told.
            _ => Standing::Doubtful,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(fingerprint: &str, trust: DeviceTrust) -> RemoteDevice {
        let fingerprint = fingerprint.to_owned();
        RemoteDevice { id: "1".to_owned(), fingerprint, trust, since_ms: None }
    }

    #[test]
    fn a_device_that_the_person_does_not_trust_neither_sees_nor_answers() {
        use DeviceTrust::{Changed, Distrusted, Pinned, Unknown, Verified, Waiting};

        let readers = [device("phone", Pinned), device("invented", Pinned)];
        let standing = |invented| {
            Standing::of(&[device("phone", Verified), device("invented", invented)], &readers)
        };
        assert_eq!(standing(Verified), Standing::Verified);
        assert_eq!(standing(Pinned), Standing::Verified);
        for trust in [Waiting, Changed, Distrusted, Unknown] {
            assert_eq!(standing(trust), Standing::Doubtful, "{trust:?}");
        }
        let only_phone = [device("phone", Verified)];
        assert_eq!(Standing::of(&only_phone, &readers), Standing::Doubtful);
        assert_eq!(Standing::of(&[device("phone", Pinned)], &readers), Standing::Unverified);
    }
}
