//! The words of verifications. Pure.

use e2ee::matrix::ShortAuthString;
use ruma::UserId;

use crate::store::VerificationStage;

/// For the person: the contact cannot be shown anything.
pub(in crate::portal) const CONTACT_OUT_OF_REACH: &str = "Your contact cannot be asked to compare: \
    no encrypted message reaches them now. Nothing was verified.";

/// For the person: somebody else might read and answer.
pub(in crate::portal) const STRANGE_DEVICE: &str = "The comparison was ended: your contact has a device \
    that you have neither verified nor approved, or their server did not answer. See “!xmpp \
    devices”, then “!xmpp approve” what is theirs; what is not, “!xmpp distrust” and tell them to take it off \
    their account. Nothing was verified.";

/// For the person: nothing ties the device they began with to them.
pub(in crate::portal) const UNSIGNED_DEVICE: &str = "Verify your own device first (in Element: \
    Settings, Encryption), then compare with your contact.";

/// For the person: it has succeeded.
pub(in crate::portal) const VERIFIED: &str = "Verified: your contact has seen the same emoji. This \
    proves the key that this bridge holds for them, and that the bridge holds yours. Messages still \
    pass through the bridge, which can read them. Your contact's own devices are verified by their \
    fingerprints: “!xmpp devices”.";

/// For both: the machine lost it.
pub(in crate::portal) const INTERRUPTED: (&str, &str) = (
    "The comparison was interrupted by a restart of the bridge. Unless your client shows your contact \
     as verified, please start it again.",
    "was interrupted by a restart of the bridge.",
);

/// For the contact after [`about`]: it was announced, and could not begin.
pub(in crate::portal) const CALLED_OFF: &str = "could not begin.";

/// For the contact: it is about to begin.
pub(in crate::portal) fn announced(person: &UserId) -> String {
    format!(
        "{person} wants to compare encryption keys with you. In a moment you see seven emoji here. You \
         have about a minute to compare them with what they see, so call them now, or meet them. Do \
         not do it by messages through this bridge: whoever stands in between could alter those."
    )
}

/// For the contact: what to compare.
pub(in crate::portal) fn to_compare(
    person: &UserId,
    shown: &ShortAuthString,
    is_contact_verified: bool,
) -> String {
    let mut text = format!("Compare with {person}:\n\n");
    for (symbol, name) in &shown.emoji {
        text.push_str(&format!("{symbol}  {name}\n"));
    }
    let [first, second, third] = shown.numbers;
    text.push_str(&format!("\nor {first} {second} {third}\n\nWrite “match” or “no match”."));
    text.push_str(
        "\n\nThe same on both sides proves that nobody stands between them and this bridge.",
    );
    if !is_contact_verified {
        text.push_str(
            " It proves nothing of the way between you and the bridge: they have not verified your \
             devices.",
        );
    }
    text
}

/// For the contact: it has succeeded.
pub(in crate::portal) fn verified_for_contact(person: &UserId) -> String {
    format!(
        "Verified: {person} has seen the same. If their encryption identity changes from now on, what \
         you write is held and you are told. The bridge itself still reads messages."
    )
}

/// For the contact: how the comparison with a person has ended.
pub(in crate::portal) fn about(person: &UserId, what: &str) -> String {
    format!("The comparison with {person} {what}")
}

/// For the person, and for the contact after [`about`]: it was ended by one of them, or by time.
pub(in crate::portal) fn cancelled(
    stage: VerificationStage,
    by_us: bool,
    code: &str,
) -> (&'static str, &'static str) {
    match (code, by_us) {
        ("m.timeout", _) => match stage {
            VerificationStage::Shown => (
                "Your contact did not answer in time. Nothing was verified.",
                "has taken too long. Nothing was verified.",
            ),
            _ => (
                "The comparison has taken too long. Nothing was verified.",
                "has taken too long. Nothing was verified.",
            ),
        },
        ("m.mismatched_sas", true) => (
            "⚠️ Your contact did not see the same. Somebody may stand between you and this bridge, or \
             it was a slip: compare once more before you trust this chat.",
            "has ended: it was not the same on both sides. Nothing was verified.",
        ),
        ("m.mismatched_sas", false) => (
            "⚠️ You said that it was not the same. Somebody may stand between you and this bridge, or \
             it was a slip: compare once more before you trust this chat.",
            "has ended: they did not see the same. Somebody may stand between them and this bridge.",
        ),
        ("m.key_mismatch" | "m.mismatched_commitment", _) => (
            "⚠️ The keys that were compared are not the ones that are published. Somebody may be \
             forging them. Nothing was verified.",
            "has ended: the keys do not fit. Somebody may be forging them. Nothing was verified.",
        ),
        (_, true) => (
            "The comparison could not be made. Nothing was verified.",
            "has ended. Nothing was verified.",
        ),
        (_, false) => (
            "You have ended the comparison. Nothing was verified.",
            "was ended by them. Nothing was verified.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn the_comparison_says_what_it_does_not_prove() {
        let shown = ShortAuthString {
            emoji: [
                ("🐶", "Dog"),
                ("🐱", "Cat"),
                ("🦁", "Lion"),
                ("🐎", "Horse"),
                ("🦄", "Unicorn"),
                ("🐷", "Pig"),
                ("🐘", "Elephant"),
            ],
            numbers: [1234, 5678, 9000],
        };
        let alice = user_id!("@alice:example.org");
        insta::assert_snapshot!("unverified_contact", to_compare(alice, &shown, false));
        assert!(!to_compare(alice, &shown, true).contains("proves nothing"));
    }

    #[test]
    fn nothing_but_success_is_called_verified() {
        let stages = [VerificationStage::AskedByUser, VerificationStage::Shown];
        let codes = [
            "m.user",
            "m.timeout",
            "m.mismatched_sas",
            "m.key_mismatch",
            "m.mismatched_commitment",
            "x",
        ];
        for (stage, code) in stages.into_iter().flat_map(|stage| codes.map(|code| (stage, code))) {
            for by_us in [true, false] {
                let (person, contact) = cancelled(stage, by_us, code);
                assert!(!person.starts_with("Verified") && !contact.contains("verified:"));
            }
        }
    }
}
