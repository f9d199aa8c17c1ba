//! `security`: both legs of a chat, and what the bridge itself sees.

use async_trait::async_trait;
use e2ee::matrix::SignedDevice;

use super::{Call, Command, usage_of, words};
use crate::{
    network::PlaintextPolicy,
    portal::{ChatSecurity, IdentityStanding, MatrixKeys, decision_for_person},
    store::{Portal, RoomEncryption},
};

pub(super) struct Security;

#[async_trait]
impl Command for Security {
    fn name(&self) -> &'static str {
        "security"
    }

    fn usage(&self) -> &'static str {
        "[<address>]"
    }

    fn about(&self) -> &'static str {
        "Tells for both legs of a chat what encrypts them, which keys there are and what is known of them, and what I myself can see. The address is needed outside a chat."
    }

    fn example(&self) -> &'static str {
        "security bob@example.org"
    }

    async fn run(&self, call: &Call<'_>, arguments: &[&str]) -> String {
        match (arguments, call.portal) {
            ([], Some(portal)) => tell(call, portal).await,
            ([], None) => usage_of(self),
            ([address], _) => match call.hub.find_chat(call.sender, address).await {
                Ok(Some(portal)) => tell(call, &portal).await,
                Ok(None) => "You have no chat with this address.".to_owned(),
                Err(error) => words::failed(&error),
            },
            _ => usage_of(self),
        }
    }
}

async fn tell(call: &Call<'_>, portal: &Portal) -> String {
    match call.hub.security_of(portal).await {
        Ok(security) => describe(&security),
        Err(error) => words::failed(&error),
    }
}

const BRIDGE_SEES: &str = "What the bridge sees: everything that passes here, in the clear, while it takes \
    it off one leg and puts it on the other. It keeps no text of what was delivered; of what waits \
    it keeps an encrypted copy. It also knows who writes to whom and when. Neither leg protects you \
    from whoever runs it.";

fn describe(security: &ChatSecurity) -> String {
    let mut lines = vec![format!("Your chat with {}", security.portal.contact.as_str())];
    lines.extend(matrix_leg(security));
    lines.extend(remote_leg(security));
    lines.push(String::new());
    lines.push(BRIDGE_SEES.to_owned());
    lines.join("\n")
}

fn matrix_leg(security: &ChatSecurity) -> Vec<String> {
    let leg = match security.portal.encryption {
        RoomEncryption::Encrypted => "encrypted with Megolm",
        RoomEncryption::Plain => "⚠️ not encrypted. Your homeserver reads this room",
    };
    let MatrixKeys { person, ghost, .. } = &security.matrix;
    let mut lines = vec![String::new(), format!("Between you and the bridge: {leg}.")];
    lines.push(standing(security.matrix.standing()));
    let distrust = security.matrix.distrust();
    lines.extend(distrust.and_then(|it| decision_for_person(it, security.matrix.pin.as_ref())));
    lines.push(match person.devices.as_slice() {
        [] => "None of your devices is signed by you, as far as I know.".to_owned(),
        _ => "Your devices, signed by you:".to_owned(),
    });
    lines.extend(person.devices.iter().map(device));
    lines.push("The keys of your contact's ghost, which your client shows:".to_owned());
    lines.extend(ghost.identity.iter().map(|own| format!("Identity\n{}", own.master_key)));
    lines.extend(ghost.devices.iter().map(device));
    lines
}

fn remote_leg(security: &ChatSecurity) -> Vec<String> {
    let network = security.portal.network.to_uppercase();
    let leg = match security.contact.as_slice() {
        [] => "⚠️ your contact has no encryption, as far as I know".to_owned(),
        _ => format!("encrypted with {}", security.remote_encryption),
    };
    let heading = format!("Between the bridge and your contact ({network}): {leg}.");
    let mut lines = vec![String::new(), heading];
    lines.extend(security.contact.iter().map(words::device));
    lines.push("The bridge's device in your name, which your contact's client shows:".to_owned());
    lines.push(format!("Device {}\n{}", security.own.id, security.own.fingerprint));
    let plaintext = match security.portal.plaintext {
        PlaintextPolicy::Refuse => {
            "Without encryption your messages wait: you have not allowed plaintext here."
        }
        PlaintextPolicy::Allow => {
            "⚠️ Without encryption your messages leave in the clear: you have allowed plaintext here."
        }
    };
    lines.push(plaintext.to_owned());
    lines
}

fn standing(standing: IdentityStanding<'_>) -> String {
    match standing {
        IdentityStanding::Unseen => "I know no identity of yours yet.".to_owned(),
        IdentityStanding::Pinned { key, since_ms } => format!(
            "Your identity: trusted on first use or by approval, not compared, unchanged since \
             {}\n{key}",
            words::time(since_ms)
        ),
        IdentityStanding::Compared { key, since_ms } => {
            let since = since_ms.map(|ms| format!(" since {}", words::time(ms)));
            let since = since.unwrap_or_default();
            format!("Your identity: verified by emoji with your contact, unchanged{since}\n{key}")
        }
        IdentityStanding::Trusted { key, since_ms } => format!(
            "Your identity: verified by your contact, who has compared its fingerprint, unchanged since \
             {}\n{key}",
            words::time(since_ms)
        ),
        IdentityStanding::Changed { key, since_ms, new_key } => format!(
            "⚠️ Your identity has changed. Pinned since {}:\n{key}\nYou present now, and it waits \
             for your “approve me”:\n{new_key}",
            words::time(since_ms)
        ),
    }
}

/// As Element shows it: groups of four.
fn device(device: &SignedDevice) -> String {
    format!("Device {}\n{}", device.id, words::in_fours(&device.fingerprint))
}

#[cfg(test)]
mod tests {
    use e2ee::matrix::{KnownIdentity, PublicKeys};
    use ruma::owned_user_id;

    use super::*;
    use crate::{
        network::{DeviceTrust, OwnDevice, RemoteDevice},
        store::{ContactDecision, ContactTrust, Pin, PinState, testing},
    };

    fn keys(master_key: &str, device: &str, is_verified: bool) -> PublicKeys {
        let master_key = master_key.to_owned();
        PublicKeys {
            identity: Some(KnownIdentity { master_key, is_verified, needs_approval: false }),
            devices: vec![SignedDevice { id: device.into(), fingerprint: "abcdefghij".to_owned() }],
        }
    }

    fn security(encryption: RoomEncryption, state: PinState, is_verified: bool) -> ChatSecurity {
        let user_id = owned_user_id!("@alice:example.org");
        let master_key = "alices+master+key".to_owned();
        ChatSecurity {
            portal: testing::portal(encryption),
            remote_encryption: "OMEMO",
            matrix: MatrixKeys {
                pin: Some(Pin { user_id, master_key, pinned_ms: 1_700_000_000_000, state }),
                person: keys("alices+master+key", "ALICE", is_verified),
                decision: None,
                compared_ms: Some(1_700_000_100_000),
                ghost: keys("ghosts+master+key", "GHOST", true),
            },
            contact: vec![RemoteDevice {
                id: "7".to_owned(),
                fingerprint: "aaaaaaaa bbbbbbbb".to_owned(),
                trust: DeviceTrust::Verified,
                since_ms: Some(1_700_000_000_000),
            }],
            own: OwnDevice { id: "12".to_owned(), fingerprint: "cccccccc dddddddd".to_owned() },
        }
    }

    #[test]
    fn both_legs_are_told_with_their_keys() {
        insta::assert_snapshot!(
            "pinned",
            describe(&security(RoomEncryption::Encrypted, PinState::Pinned, false))
        );
        insta::assert_snapshot!(
            "compared",
            describe(&security(RoomEncryption::Encrypted, PinState::Pinned, true))
        );
        let new_master_key = "another+key".to_owned();
        let changed = PinState::Changed { new_master_key };
        insta::assert_snapshot!(
            "changed",
            describe(&security(RoomEncryption::Encrypted, changed, true))
        );
        let mut decided = security(RoomEncryption::Encrypted, PinState::Pinned, true);
        for trust in [ContactTrust::Fingerprint, ContactTrust::Distrusted] {
            let master_key = "alices+master+key".to_owned();
            let decided_ms = 1_700_000_200_000;
            decided.matrix.decision = Some(ContactDecision { trust, master_key, decided_ms });
            insta::assert_snapshot!(format!("{trust:?}").to_lowercase(), describe(&decided));
        }
        let mut plain = security(RoomEncryption::Plain, PinState::Pinned, false);
        plain.portal.plaintext = PlaintextPolicy::Allow;
        plain.contact.clear();
        plain.matrix.pin = None;
        plain.matrix.person = PublicKeys::default();
        insta::assert_snapshot!("in_the_clear", describe(&plain));
    }
}
