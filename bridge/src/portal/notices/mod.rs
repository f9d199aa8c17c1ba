//! The words with which the bridge introduces itself. Pure.

pub(super) mod contact;
pub(crate) mod contact_trust;
pub(super) mod legs;
pub(super) mod verification;

use ruma::UserId;

use crate::{network::LegSecurity, store::RoomEncryption};

const READS_ALONG: &str = "The bridge itself can read them.";

/// For the Matrix person: what this chat is, and how each of its legs is protected.
pub(super) fn first_for_person(matrix: RoomEncryption, remote: LegSecurity) -> String {
    let legs = match (matrix, remote) {
        (RoomEncryption::Encrypted, LegSecurity::Encrypted { .. }) => {
            "Messages are encrypted to the bridge on both sides: between you and the bridge, and \
             between the bridge and your contact."
        }
        (RoomEncryption::Encrypted, LegSecurity::Plaintext) => {
            "Messages are encrypted between you and the bridge, but not between the bridge and \
             your contact."
        }
        (RoomEncryption::Plain, LegSecurity::Encrypted { .. }) => {
            "Messages are encrypted between the bridge and your contact, but not between you and \
             the bridge: this room is not encrypted."
        }
        (RoomEncryption::Plain, LegSecurity::Plaintext) => "Messages are not encrypted.",
    };
    format!(
        "This chat goes through a bridge. {legs} {READS_ALONG} Write “!xmpp help” for what I can \
         do."
    )
}

/// For the contact: the same, seen from the other side.
pub(super) fn first_for_contact(
    person: &UserId,
    matrix: RoomEncryption,
    remote: LegSecurity,
) -> String {
    let legs = match (matrix, remote) {
        (RoomEncryption::Encrypted, LegSecurity::Encrypted { .. }) => {
            "Messages are encrypted to the bridge on both sides: between you and the bridge, and \
             between the bridge and them."
        }
        (RoomEncryption::Encrypted, LegSecurity::Plaintext) => {
            "Messages are encrypted between the bridge and them, but not between you and the \
             bridge."
        }
        (RoomEncryption::Plain, LegSecurity::Encrypted { .. }) => {
            "Messages are encrypted between you and the bridge, but not between the bridge and \
             them."
        }
        (RoomEncryption::Plain, LegSecurity::Plaintext) => "Messages are not encrypted.",
    };
    format!("You are talking to {person} on Matrix through a bridge. {legs} {READS_ALONG}")
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::network::IdentityTrust;

    #[test]
    fn the_introduction_claims_no_more_than_there_is() {
        let alice = user_id!("@alice:example.org");
        let encrypted = LegSecurity::Encrypted { identity: IdentityTrust::Pinned };
        let words: Vec<[String; 2]> = [RoomEncryption::Encrypted, RoomEncryption::Plain]
            .into_iter()
            .flat_map(|matrix| [(matrix, encrypted), (matrix, LegSecurity::Plaintext)])
            .map(|(matrix, remote)| {
                [first_for_person(matrix, remote), first_for_contact(alice, matrix, remote)]
            })
            .collect();
        insta::assert_json_snapshot!(words);
    }
}
