//! Whether the sender of an event is who they were: the identity behind the event against the pin.

use crate::store::{Pin, PinState};

/// Whether the sender of an event is who they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderTrust {
    /// Verified by people.
    Verified,
    /// The identity is the pinned one.
    Pinned,
    /// The identity is not the pinned one, but the one that the sender presents now.
    Changed,
    /// The identity is neither the pinned one nor the one that the sender presents now.
    Outdated,
    /// The device was not signed by its owner: it may be anybody's who controls the account.
    UnsignedDevice,
}

/// Who has signed the device behind an event. Master keys are public, in unpadded base64.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signer<'e> {
    /// The owner's master key when the room key came.
    pub master_key: &'e str,
    /// The owner's master key of today, where another one has signed the same device since.
    pub master_key_now: Option<&'e str>,
    /// Whether people have verified [`Self::master_key`].
    pub is_verified: bool,
}

impl Signer<'_> {
    /// Whether the device is signed by this identity, then or now.
    pub fn is(&self, master_key: &str) -> bool {
        master_key == self.master_key || Some(master_key) == self.master_key_now
    }

    /// How far the sender can be trusted, and the identity that this is about.
    pub fn judge(&self, pin: Pin) -> (SenderTrust, Option<String>) {
        let Pin { master_key: pinned, state, .. } = pin;
        match state {
            _ if pinned == self.master_key && self.is_verified => {
                (SenderTrust::Verified, Some(pinned))
            }
            _ if self.is(&pinned) => (SenderTrust::Pinned, Some(pinned)),
            PinState::Changed { new_master_key } if self.is(&new_master_key) => {
                (SenderTrust::Changed, Some(new_master_key))
            }
            PinState::Changed { .. } | PinState::Pinned => (SenderTrust::Outdated, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::owned_user_id;

    use super::*;

    fn pin(master_key: &str, new_master_key: Option<&str>) -> Pin {
        let state = new_master_key
            .map_or(PinState::Pinned, |new| PinState::Changed { new_master_key: new.to_owned() });
        let user_id = owned_user_id!("@alice:example.org");
        Pin { user_id, master_key: master_key.to_owned(), pinned_ms: 1, state }
    }

    #[test]
    fn the_identity_behind_an_event_is_compared_with_the_pin() {
        use SenderTrust::{Changed, Outdated, Pinned, Verified};
        for (then, now, is_verified, pin, trust, about) in [
            ("A", None, true, pin("A", None), Verified, Some("A")),
            ("A", None, false, pin("A", None), Pinned, Some("A")),
            // Verified, and the change still waits: this event is of the identity that was verified.
            ("A", None, true, pin("A", Some("B")), Verified, Some("A")),
            ("A", None, false, pin("A", Some("B")), Pinned, Some("A")),
            ("B", None, false, pin("A", Some("B")), Changed, Some("B")),
            // What people have verified once does not make up for a pin that is another.
            ("B", None, true, pin("A", Some("B")), Changed, Some("B")),
            ("C", None, true, pin("A", Some("B")), Outdated, None),
            ("B", None, true, pin("A", None), Outdated, None),
            // The device was signed anew.
            ("A", Some("B"), false, pin("B", None), Pinned, Some("B")),
            ("A", Some("B"), true, pin("B", None), Pinned, Some("B")),
            ("A", Some("B"), false, pin("A", None), Pinned, Some("A")),
            ("C", Some("B"), false, pin("A", Some("B")), Changed, Some("B")),
            ("C", Some("D"), true, pin("A", Some("B")), Outdated, None),
        ] {
            let signer = Signer { master_key: then, master_key_now: now, is_verified };
            let expected = (trust, about.map(str::to_owned));
            assert_eq!(signer.judge(pin), expected, "{then} {now:?} {is_verified}");
        }
    }

    #[test]
    fn a_device_is_signed_by_the_identity_of_then_or_of_now() {
        let signer = Signer { master_key: "A", master_key_now: Some("B"), is_verified: false };
        assert!(signer.is("A") && signer.is("B") && !signer.is("C"));
        let signer = Signer { master_key_now: None, ..signer };
        assert!(signer.is("A") && !signer.is("B"));
    }
}
