//! What the bridge tells contacts who ask it. Pure, and nothing in it is secret: an answer may go in
//! the clear.

use e2ee::matrix::SignedDevice;
use ruma::UserId;

use crate::{
    commands::words::{held, in_fours, time},
    network::{OwnDevice, PlaintextPolicy},
    portal::{
        PendingChat,
        notices::contact_trust::standing_distrust,
        security::{IdentityStanding, MatrixKeys},
    },
    store::{Portal, RoomEncryption},
};

/// Devices that are listed. An answer must stay small, and whoever has more is no person.
const MAX_DEVICES: usize = 20;

/// What can be asked.
pub(in crate::portal) const HELP: &str = "I am the bridge to Matrix. What you can write to me:\n\
    security @name:server — how your chat with a person on Matrix is protected.\n\
    devices @name:server — their keys and mine, to compare.\n\
    pending @name:server — what you wrote to them and waits, and for what.\n\
    verify @name:server — compares encryption keys with them, by emoji.\n\
    match — what you see is what they see.\n\
    no match — it is not.\n\
    trust @name:server FINGERPRINT — you have compared the whole fingerprint of their identity with them. \
    For example: trust @alice:example.org xQjyUcDvMjNVRgEyWUmbRgdfbKuCEVqTSyRTbYqAlQg\n\
    distrust @name:server — nothing crosses between you and them any more, until you trust them. For \
    example: distrust @alice:example.org\n\
    help — this.\n\
    If you have a chat with one person only, you can leave their name out. What decides something I take \
    only in messages encrypted with OMEMO.";

/// There is nobody to tell of.
pub(in crate::portal) const NO_CHAT: &str = "You have no chat with them through this bridge.";

/// The person was asked to compare.
pub(in crate::portal) fn asked(person: &UserId) -> String {
    format!(
        "I have asked {person}. As soon as they accept, you see seven emoji in your chat with me and \
         have about a minute to compare them: call them, or meet them."
    )
}

/// How both legs of a chat are protected.
pub(in crate::portal) fn security(portal: &Portal, encryption: &str, keys: &MatrixKeys) -> String {
    let plaintext = match portal.plaintext {
        PlaintextPolicy::Refuse => "Nothing of theirs is sent to you without it.",
        PlaintextPolicy::Allow => {
            "⚠️ They have allowed that their messages go to you unencrypted while you have none."
        }
    };
    let matrix = match portal.encryption {
        RoomEncryption::Encrypted => "encrypted with Megolm.",
        RoomEncryption::Plain => "⚠️ not encrypted. Their Matrix server reads this chat.",
    };
    format!(
        "Your chat with {person}\n\nBetween you and the bridge: {encryption}, where your client \
         offers it. {plaintext}\n\nBetween the bridge and them: {matrix}\n{standing}\n\nThe bridge \
         reads everything that passes, and so can whoever runs it. It keeps no text of what was \
         delivered.",
        person = portal.local,
        standing = standing(keys),
    )
}

/// The public keys of a person, and those of the bridge. `own` speak to the contact in the person's
/// name and in the bridge's own.
pub(in crate::portal) fn devices(
    person: &UserId,
    keys: &MatrixKeys,
    own: &[OwnDevice; 2],
) -> String {
    let mut lines = vec![format!("The keys of {person} on Matrix"), standing(keys)];
    match keys.person.devices.as_slice() {
        [] => lines.push("They have signed no device.".to_owned()),
        devices => {
            lines.push("Devices that they have signed:".to_owned());
            lines.extend(devices.iter().take(MAX_DEVICES).map(device));
        }
    }
    let more = keys.person.devices.len().saturating_sub(MAX_DEVICES);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.push("\nThe keys with which the bridge speaks to them for you".to_owned());
    lines.extend(keys.ghost.identity.iter().map(|own| format!("Identity\n{}", own.master_key)));
    lines.extend(keys.ghost.devices.iter().take(MAX_DEVICES).map(device));
    let [theirs, bridges] = own;
    lines.push("\nThe keys with which the bridge speaks to you".to_owned());
    lines.push(format!("For them: device {}\n{}", theirs.id, theirs.fingerprint));
    lines.push(format!("For itself: device {}\n{}", bridges.id, bridges.fingerprint));
    lines.join("\n")
}

/// What of the contact's own waits in a chat, and for what. What the person has written and has not left is nobody
/// else's business.
pub(in crate::portal) fn pending(pending: &PendingChat) -> String {
    let person = &pending.portal.local;
    let why = if pending.is_person_distrusted {
        "you have distrusted them, and nothing crosses until you trust them"
    } else if pending.is_own_identity_changed {
        "their encryption identity has changed, and they have not approved it"
    } else {
        "they have no device that I may encrypt to"
    };
    let mut lines = Vec::new();
    for (what, why) in [
        (pending.from_contact, "from devices of yours that wait for their decision"),
        (pending.to_person, why),
    ] {
        if what.messages > 0 {
            lines.push(format!("{}: {why}", held(what)));
        }
    }
    if !pending.devices.is_empty() {
        lines.push("These devices of yours wait for their decision:".to_owned());
        let devices = pending.devices.iter().take(MAX_DEVICES);
        lines.extend(devices.map(|it| format!("Device {}\n{}", it.id, it.fingerprint)));
    }
    if lines.is_empty() {
        return format!("Nothing of yours waits for {person}.");
    }
    format!("Of yours wait for {person}:\n{}", lines.join("\n"))
}

fn standing(keys: &MatrixKeys) -> String {
    let mut told = of_identity(keys.standing());
    if let Some(decision) = keys.distrust() {
        told.push('\n');
        told.push_str(&standing_distrust(decision));
    }
    told
}

fn of_identity(standing: IdentityStanding<'_>) -> String {
    match standing {
        IdentityStanding::Unseen => "I know no identity of theirs yet.".to_owned(),
        IdentityStanding::Pinned { key, since_ms } => format!(
            "Their identity: trusted on first use or by their own approval, not compared with you, \
             unchanged since {}\n{key}",
            time(since_ms)
        ),
        IdentityStanding::Compared { key, since_ms } => {
            let since = since_ms.map(|ms| format!(" since {}", time(ms))).unwrap_or_default();
            format!("Their identity: compared with you by emoji, unchanged{since}\n{key}")
        }
        IdentityStanding::Trusted { key, since_ms } => format!(
            "Their identity: compared by you, its whole fingerprint, unchanged since {}\n{key}",
            time(since_ms)
        ),
        IdentityStanding::Changed { key, since_ms, new_key } => format!(
            "⚠️ Their identity has changed, and what you write to them waits. Known since {}:\n\
             {key}\nThey present now:\n{new_key}",
            time(since_ms)
        ),
    }
}

fn device(device: &SignedDevice) -> String {
    format!("Device {}\n{}", device.id, in_fours(&device.fingerprint))
}

#[cfg(test)]
mod tests {
    use e2ee::matrix::{KnownIdentity, PublicKeys};
    use ruma::{owned_user_id, user_id};

    use super::*;
    use crate::{
        network::{DeviceTrust, Held, RemoteDevice},
        store::{ContactDecision, ContactTrust, Pin, PinState, testing},
    };

    fn keys(is_verified: bool, state: PinState, devices: usize) -> MatrixKeys {
        let identity = |key: &str| {
            let master_key = key.to_owned();
            Some(KnownIdentity { master_key, is_verified, needs_approval: false })
        };
        let signed = |id: String| SignedDevice { id: id.into(), fingerprint: "abcdefghij".into() };
        let named = (0..devices).map(|number| signed(format!("ALICE{number}")));
        MatrixKeys {
            pin: Some(Pin {
                user_id: owned_user_id!("@alice:example.org"),
                master_key: "alices+key".to_owned(),
                pinned_ms: 1_700_000_000_000,
                state,
            }),
            person: PublicKeys { identity: identity("alices+key"), devices: named.collect() },
            decision: None,
            compared_ms: Some(1_700_000_100_000),
            ghost: PublicKeys {
                identity: identity("ghosts+key"),
                devices: vec![signed("GHOST".to_owned())],
            },
        }
    }

    fn own() -> [OwnDevice; 2] {
        ["12", "13"].map(|id| OwnDevice { id: id.to_owned(), fingerprint: "cccccccc".to_owned() })
    }

    #[test]
    fn a_contact_is_told_what_waits_and_for_what() {
        let held = |messages, since_ms| Held { messages, since_ms };
        let nothing = PendingChat {
            portal: testing::portal(RoomEncryption::Encrypted),
            from_person: held(0, None),
            from_contact: held(0, None),
            to_person: held(0, None),
            devices: Vec::new(),
            is_own_identity_changed: false,
            is_person_distrusted: false,
        };
        let waiting = |is_own_identity_changed, is_person_distrusted| PendingChat {
            portal: nothing.portal.clone(),
            from_person: held(1, Some(1_700_000_000_000)),
            from_contact: held(2, Some(1_700_000_100_000)),
            to_person: held(3, None),
            devices: vec![RemoteDevice {
                id: "7".to_owned(),
                fingerprint: "0123abcd".to_owned(),
                trust: DeviceTrust::Waiting,
                since_ms: None,
            }],
            is_own_identity_changed,
            is_person_distrusted,
        };
        let told = [
            pending(&nothing),
            pending(&waiting(false, false)),
            pending(&waiting(true, false)),
            pending(&waiting(true, true)),
        ];
        insta::assert_snapshot!(told.join("\n\n"));
    }

    #[test]
    fn a_contact_is_told_both_legs_and_all_keys() {
        let new_master_key = "another+key".to_owned();
        let encrypted = testing::portal(RoomEncryption::Encrypted);
        let plain =
            Portal { plaintext: PlaintextPolicy::Allow, ..testing::portal(RoomEncryption::Plain) };
        let pinned = keys(false, PinState::Pinned, 1);
        let decided = |trust| MatrixKeys {
            decision: Some(ContactDecision {
                trust,
                master_key: "alices+key".to_owned(),
                decided_ms: 1_700_000_200_000,
            }),
            ..keys(true, PinState::Pinned, 1)
        };
        let told = [
            security(&encrypted, "OMEMO", &keys(true, PinState::Pinned, 1)),
            security(&plain, "OMEMO", &keys(true, PinState::Changed { new_master_key }, 1)),
            devices(user_id!("@alice:example.org"), &pinned, &own()),
            security(&encrypted, "OMEMO", &decided(ContactTrust::Fingerprint)),
            devices(user_id!("@alice:example.org"), &decided(ContactTrust::Distrusted), &own()),
        ];
        insta::assert_snapshot!(told.join("\n\n---\n\n"));
    }

    #[test]
    fn an_answer_stays_small() {
        let many = keys(false, PinState::Pinned, 5000);
        let told = devices(user_id!("@alice:example.org"), &many, &own());
        assert!(told.len() < 4096 && told.contains("and 4980 more"), "{}", told.len());
    }
}
