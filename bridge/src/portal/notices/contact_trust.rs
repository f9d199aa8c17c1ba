//! The words about what a contact decides about a person's identity. Pure.

use ruma::UserId;

use crate::{
    commands::words::time,
    portal::own_identity::Before,
    store::{ContactDecision, Pin, PinState},
};

/// For the person: nothing crosses any more.
pub(in crate::portal) const DISTRUSTED: &str = "⚠️ Your contact has distrusted your encryption identity. \
    Nothing crosses this chat in either direction: what you write waits, and so does what they write. \
    Only they can end that: by the fingerprint of your identity, which “!xmpp devices” shows, or by \
    emoji, for which “!xmpp verify” asks. Compare by voice or in person.";

/// For the person: the contact has compared.
pub(in crate::portal) const TRUSTED: &str = "Your contact has compared the fingerprint of your encryption \
    identity and trusts it. This proves that the bridge holds your key. Messages still pass through \
    the bridge, which can read them.";

/// For the contact: who may be listening in.
pub(in crate::portal) const DOUBTFUL: &str = "Nothing has changed: they do not trust all the devices that \
    can write to me in your name, or your server did not answer. Tell them to look at “!xmpp devices”; \
    once they have approved or verified each device that is yours, and the others are off your \
    account, write it again.";

/// For the contact: nothing that is compared could be meant.
pub(in crate::portal) const UNSEEN: &str = "Nothing has changed: I know no encryption identity of theirs \
    yet. Compare emoji with them instead (“verify”).";

/// For the contact: what was typed is no fingerprint of the person's.
pub(in crate::portal) const NOT_THEIRS: &str = "⚠️ Nothing has changed: this is not the fingerprint of the \
    encryption identity that I know of them. Ask me for “devices” again and compare all of it with what \
    they see in their client or hear from “!xmpp devices”. If it is not the same, somebody may stand \
    between them and this bridge.";

/// For the contact: what was typed is a part of it.
pub(in crate::portal) const NOT_WHOLE: &str = "Nothing has changed: this needs the whole fingerprint of \
    their identity, as “devices” shows it. Somebody could make a key with the same beginning.";

/// For the contact: there are two identities now.
pub(in crate::portal) const CHANGED: &str = "Nothing has changed: their encryption identity has changed, \
    and they have not approved the new one themselves. Once they have, ask me for “devices” again and \
    compare.";

/// For the contact: how trust is said.
pub(in crate::portal) fn usage(person: &UserId) -> String {
    format!(
        "Write “trust {person}” and behind it the whole fingerprint of their identity, as “devices” \
         shows it, once you have compared it with them by voice or in person."
    )
}

/// For the contact: their trust counts from now on.
pub(in crate::portal) fn trusted(person: &UserId) -> String {
    format!(
        "You have compared the identity of {person} and trust it. What waited because of that is on its \
         way. If their encryption identity changes from now on, what you write is held and you are \
         told. The bridge itself still reads messages."
    )
}

/// For the contact: it was so before.
pub(in crate::portal) fn trusted_before(person: &UserId) -> String {
    format!("You have compared this identity of {person} and trusted it before.")
}

/// For the contact: nothing crosses any more. `hold` is how long messages wait.
pub(in crate::portal) fn distrusted(person: &UserId, hold: &str) -> String {
    format!(
        "You have distrusted {person}. From now on nothing crosses between you in either direction: \
         what they write waits, and so does what you write, for {hold} at most. They are told, and \
         cannot end it. You can: write “trust {person}” and behind it the whole fingerprint of their \
         identity, which “devices” shows, or compare emoji with them (“verify {person}”)."
    )
}

/// For the contact: it was so before.
pub(in crate::portal) fn distrusted_before(person: &UserId) -> String {
    format!("You have distrusted {person} before: nothing crosses between you.")
}

/// For the person: their identity has changed.
pub(in crate::portal) fn own_identity_changed(before: Before) -> String {
    let (whose, then) = match before {
        Before::Pinned => ("Your encryption identity", ""),
        Before::Verified => (
            "⚠️ Your encryption identity, which your contact has verified,",
            " Your contact is told that this is not the one they have compared.",
        ),
        Before::Distrusted => (
            "Your encryption identity",
            " Your contact has distrusted you: what is between you waits for their word all the same.",
        ),
    };
    format!(
        "{whose} has changed. If you have reset it yourself, write “!xmpp approve me” here, and what \
         waits is delivered. If you have not, somebody else may be using your account: do not approve \
         it.{then}"
    )
}

/// For the person: the identity that the contact had verified does not count any more.
pub(in crate::portal) const VERIFIED_IDENTITY_REPLACED: &str = "⚠️ Your encryption identity, which your \
    contact had verified, has changed, and the new one counts from now on. Your contact is told that it is \
    not the one they had compared.";

/// For the contact: the person's identity has changed.
pub(in crate::portal) fn their_identity_changed(person: &UserId, before: Before) -> String {
    let (whose, then) = match before {
        Before::Pinned => {
            ("The Matrix identity of".to_owned() + " " + person.as_str(), String::new())
        }
        Before::Verified => (
            format!("⚠️ The Matrix identity of {person}, which you have verified,"),
            format!(
                " What you have said of the old one does not count for the new one: compare it \
                 (“verify {person}”, or “devices” and “trust {person}”). Until then “distrust \
                 {person}” keeps it out."
            ),
        ),
        Before::Distrusted => (
            format!("The Matrix identity of {person}, whom you have distrusted,"),
            " Nothing crosses between you until you say so, whatever they approve.".to_owned(),
        ),
    };
    format!(
        "{whose} has changed. Messages to them wait until they have approved it. If they did not do this \
         themselves, somebody else may be using their account.{then}"
    )
}

/// What the contact has decided, as the person is told it; `None` where it says nothing of the
/// identity that is pinned.
pub(crate) fn for_person(decision: &ContactDecision, pin: Option<&Pin>) -> Option<String> {
    let since = time(decision.decided_ms);
    if decision.is_distrust() {
        return Some(format!(
            "⚠️ Your contact has distrusted you, on {since}: nothing crosses this chat until they trust \
             your identity."
        ));
    }
    let is_pinned =
        |pin: &Pin| pin.state == PinState::Pinned && decision.has_verified(&pin.master_key);
    pin.is_some_and(is_pinned)
        .then(|| format!("Your contact has compared it with you, on {since}, and trusts it."))
}

/// For the contact: that they distrust the person.
pub(in crate::portal) fn standing_distrust(decision: &ContactDecision) -> String {
    format!(
        "⚠️ You have distrusted them, on {}: nothing crosses between you until you trust their identity.",
        time(decision.decided_ms)
    )
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::store::ContactTrust;

    #[test]
    fn both_sides_are_told_what_was_decided_and_how_it_ends() {
        let alice = user_id!("@alice:example.org");
        let told = [
            usage(alice),
            trusted(alice),
            distrusted(alice, "7 days"),
            own_identity_changed(Before::Pinned),
            own_identity_changed(Before::Verified),
            own_identity_changed(Before::Distrusted),
            their_identity_changed(alice, Before::Pinned),
            their_identity_changed(alice, Before::Verified),
            their_identity_changed(alice, Before::Distrusted),
        ];
        insta::assert_snapshot!(told.join("\n\n"));
    }

    #[test]
    fn trust_is_told_of_its_own_identity_only_and_distrust_of_any() {
        let pin = |master_key: &str, state| Pin {
            user_id: user_id!("@alice:example.org").to_owned(),
            master_key: master_key.to_owned(),
            pinned_ms: 0,
            state,
        };
        let said = |trust| ContactDecision { trust, master_key: "one".to_owned(), decided_ms: 0 };
        let waiting = PinState::Changed { new_master_key: "two".to_owned() };
        for (pin, trusted) in [
            (pin("one", PinState::Pinned), true),
            (pin("one", waiting), false),
            (pin("two", PinState::Pinned), false),
        ] {
            for trust in [ContactTrust::Emoji, ContactTrust::Fingerprint] {
                assert_eq!(for_person(&said(trust), Some(&pin)).is_some(), trusted);
            }
            let told = for_person(&said(ContactTrust::Distrusted), Some(&pin));
            assert!(told.is_some_and(|told| told.contains("nothing crosses")));
        }
        assert_eq!(for_person(&said(ContactTrust::Emoji), None), None);
    }
}
