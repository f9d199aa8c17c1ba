//! The words about a contact's leg that is not as it was. Pure.

use crate::{
    network::{IdentityTrust, LegSecurity},
    portal::leg_changes::Direction,
};

const STATES: [(LegSecurity, &str); 5] = [
    (LegSecurity::Plaintext, "plaintext"),
    (LegSecurity::Encrypted { identity: IdentityTrust::Unknown }, "unknown"),
    (LegSecurity::Encrypted { identity: IdentityTrust::Changed }, "changed"),
    (LegSecurity::Encrypted { identity: IdentityTrust::Pinned }, "pinned"),
    (LegSecurity::Encrypted { identity: IdentityTrust::Verified }, "verified"),
];

/// The short word for a state.
pub(in crate::portal) fn name(leg: LegSecurity) -> &'static str {
    STATES.iter().find(|(state, _)| *state == leg).map_or("", |(_, name)| name)
}

/// The state of a short word.
pub(in crate::portal) fn parse(name: &str) -> Option<LegSecurity> {
    STATES.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
}

/// For the person: what a change means; `None` where it needs no word.
pub(in crate::portal) fn changed(
    direction: Direction,
    before: LegSecurity,
    now: LegSecurity,
) -> Option<&'static str> {
    let is_weaker = now.is_weaker_than(before);
    match (direction, now) {
        (Direction::ToContact, LegSecurity::Plaintext) => Some(
            "⚠️ What you write leaves the bridge unencrypted from now on: your contact has no \
             encryption any more, and you have allowed it. “!xmpp plaintext refuse” ends that.",
        ),
        (Direction::FromContact, LegSecurity::Plaintext) => Some(
            "⚠️ Your contact has written without encryption. Whoever carried it could read it and \
             could have altered it.",
        ),
        (Direction::ToContact, LegSecurity::Encrypted { .. })
            if before == LegSecurity::Plaintext =>
        {
            Some("What you write is encrypted between the bridge and your contact again.")
        }
        (Direction::ToContact, LegSecurity::Encrypted { .. }) if is_weaker => Some(
            "What you write goes to a device of your contact that you have not compared. “!xmpp \
             devices” lists them all.",
        ),
        (Direction::FromContact, LegSecurity::Encrypted { .. }) if is_weaker => Some(
            "Your contact has written from a device that you have not compared. “!xmpp devices” \
             lists them all.",
        ),
        (_, LegSecurity::Encrypted { .. }) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_name_and_every_weaker_one_a_word() {
        for (before, _) in STATES {
            assert_eq!(parse(name(before)), Some(before));
            for (now, _) in STATES {
                for direction in [Direction::ToContact, Direction::FromContact] {
                    let is_told = changed(direction, before, now).is_some();
                    assert!(!now.is_weaker_than(before) || is_told, "{before:?} {now:?}");
                }
            }
        }
        let [plain, .., pinned, verified] = STATES.map(|(state, _)| state);
        assert!(changed(Direction::ToContact, plain, pinned).unwrap().contains("again"));
        assert_eq!(changed(Direction::ToContact, pinned, verified), None);
        assert_eq!(changed(Direction::FromContact, plain, pinned), None);
    }
}
