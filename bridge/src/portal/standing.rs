//! How far the devices can be trusted that read what the bridge tells a contact, and that answer it.

use std::time::Duration;

use ruma::UserId;
use tokio::time::timeout;

use super::Hub;
use crate::network::{Author, ChatKey, DeviceTrust, RemoteDevice, RemoteUserId, SendError};

/// How long the contact's server may take: people compare within a minute.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a person knows of the contact's devices that see the emoji and may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// They have verified none, and say no to none.
    Unverified,
    /// They have verified some, and trust all.
    Verified,
    /// Among them is one that they do not trust.
    Doubtful,
}

impl Standing {
    /// `was_verified`: they have verified a device of the contact, now or earlier. From then on one that they know
    /// nothing of is not trusted either.
    fn of(was_verified: bool, known: &[RemoteDevice], readers: &[RemoteDevice]) -> Self {
        let is_doubtful = |reader: &RemoteDevice| {
            let same = known.iter().filter(|it| it.fingerprint == reader.fingerprint);
            let trusts: Vec<DeviceTrust> = same.map(|it| it.trust).collect();
            let is_any = |these: &[DeviceTrust]| trusts.iter().any(|trust| these.contains(trust));
            if is_any(&[DeviceTrust::Verified, DeviceTrust::Pinned]) {
                return false;
            }
            let refused = [DeviceTrust::Waiting, DeviceTrust::Changed, DeviceTrust::Distrusted];
            was_verified || is_any(&refused)
        };
        if readers.iter().any(is_doubtful) {
            Self::Doubtful
        } else if known.iter().any(|device| device.trust == DeviceTrust::Verified) {
            Self::Verified
        } else {
            Self::Unverified
        }
    }
}

impl Hub {
    /// What the person knows of the devices that read what the bridge tells the contact. Nobody
    /// decides about those in the bridge's own chat, so what was decided in the person's counts.
    pub(super) async fn standing(&self, user: &UserId, contact: &RemoteUserId) -> Standing {
        let chat = ChatKey { local: Author::Person(user.to_owned()), contact: contact.clone() };
        let bridges = ChatKey { local: Author::Bridge, contact: contact.clone() };
        let remote = &self.parts.remote;
        let ask = async {
            let (known, readers) = (remote.devices(&chat).await?, remote.devices(&bridges).await?);
            let was_verified = remote.new_devices_wait(&chat).await?;
            Ok::<_, SendError>(Standing::of(was_verified, &known, &readers))
        };
        match timeout(PATIENCE, ask).await {
            Ok(Ok(standing)) => standing,
            // Whether a strange one is among them cannot be told.
            Ok(Err(_)) | Err(_) => Standing::Doubtful,
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
            let known = [device("phone", Verified), device("invented", invented)];
            Standing::of(true, &known, &readers)
        };
        assert_eq!(standing(Verified), Standing::Verified);
        assert_eq!(standing(Pinned), Standing::Verified);
        for trust in [Waiting, Changed, Distrusted, Unknown] {
            assert_eq!(standing(trust), Standing::Doubtful, "{trust:?}");
        }
        let only_phone = |trust| [device("phone", trust)];
        assert_eq!(Standing::of(true, &only_phone(Verified), &readers), Standing::Doubtful);
        assert_eq!(Standing::of(false, &only_phone(Pinned), &readers), Standing::Unverified);
        // What was verified once, and is stolen or presents another key by now.
        for trust in [Distrusted, Changed] {
            assert_eq!(Standing::of(true, &only_phone(trust), &readers), Standing::Doubtful);
        }
        let replaced = [device("another key", Changed)];
        assert_eq!(Standing::of(true, &replaced, &readers), Standing::Doubtful);
        // Nothing was verified, but to one of them they have said no.
        assert_eq!(Standing::of(false, &only_phone(Distrusted), &readers), Standing::Doubtful);
    }
}
