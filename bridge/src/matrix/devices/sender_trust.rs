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

/// What is known of the sender of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub trust: SenderTrust,
    /// The public master key that this is about, in unpadded base64.
    pub identity: Option<String>,
    /// Whether the sender presents another identity than the pinned one now.
    pub new_identity_waits: bool,
}

impl Judgement {
    /// Of an event from a device that its owner has not signed.
    pub const UNSIGNED: Self =
        Self { trust: SenderTrust::UnsignedDevice, identity: None, new_identity_waits: false };
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

    /// Whether the pin may be older than what stands behind the event: it is to be compared with the identity that
    /// the sender presents now.
    pub fn is_news_to(&self, pin: &Pin) -> bool {
        !self.is(&pin.master_key) || self.master_key_now.is_some_and(|now| now != pin.presented())
    }

    /// How far the sender can be trusted.
    pub fn judge(&self, pin: Pin) -> Judgement {
        let new_identity_waits = matches!(pin.state, PinState::Changed { .. });
        let Pin { master_key: pinned, state, .. } = pin;
        let (trust, identity) = match state {
            _ if pinned == self.master_key && self.is_verified => {
                (SenderTrust::Verified, Some(pinned))
            }
            _ if self.is(&pinned) => (SenderTrust::Pinned, Some(pinned)),
            PinState::Changed { new_master_key } if self.is(&new_master_key) => {
                (SenderTrust::Changed, Some(new_master_key))
            }
            PinState::Changed { .. } | PinState::Pinned => (SenderTrust::Outdated, None),
        };
        Judgement { trust, identity, new_identity_waits }
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
            let new_identity_waits = pin.presented() != pin.master_key;
            let identity = about.map(str::to_owned);
            let expected = Judgement { trust, identity, new_identity_waits };
            assert_eq!(signer.judge(pin), expected, "{then} {now:?} {is_verified}");
        }
    }

    #[test]
    fn a_pin_is_compared_anew_when_another_identity_signs_the_device() {
        for (then, now, pin, is_news) in [
            ("A", None, pin("A", None), false),
            ("B", None, pin("A", None), true),
            ("A", Some("B"), pin("A", None), true),
            ("A", Some("B"), pin("A", Some("B")), false),
            ("A", Some("C"), pin("A", Some("B")), true),
            ("A", Some("B"), pin("B", None), false),
            ("B", None, pin("A", Some("B")), true),
        ] {
            let signer = Signer { master_key: then, master_key_now: now, is_verified: false };
            assert_eq!(signer.is_news_to(&pin), is_news, "{then} {now:?}");
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
