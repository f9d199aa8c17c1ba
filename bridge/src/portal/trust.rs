//! What people decide about the keys of the other side, and what waits for them to decide.

use ruma::UserId;

use super::{
    Hub,
    from_remote::{CONTACT_CHANGED, DISTRUSTED, NEW_DEVICES, chat_of},
    leg_changes::Direction,
    say::NO_TRUSTED_DEVICE,
};
use crate::{
    matrix::MatrixError,
    network::{Decider, DeviceDecision, Held, RemoteDevice, SendError, VerifyUriError},
    store::{Notice, PinState, Portal, PortalState, StoreError},
};

/// Fewer digits of a fingerprint name nothing.
const MIN_DIGITS: usize = 8;

/// Why nothing was decided or told.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The contact's devices are not known at the moment.
    #[error("the contact's devices are not known")]
    Remote(#[from] SendError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// What follows from the decision could not be done.
    #[error("the decision is made, but not all that follows from it")]
    Matrix(#[from] MatrixError),
}

/// What was typed is not the fingerprint of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnknownFingerprint {
    /// It holds something else than hex digits.
    #[error("a fingerprint has only the digits 0 to 9 and a to f")]
    NotHex,
    /// It is a part of one, where the whole is needed.
    #[error(
        "this needs the whole fingerprint, all 64 digits: somebody could make a key with the same beginning"
    )]
    NotWhole,
    /// It is too short.
    #[error("give at least the first 8 digits of the fingerprint")]
    TooShort,
    /// No device has it.
    #[error("no device of your contact has this fingerprint")]
    None,
    /// More than one device has it.
    #[error(
        "more than one device of your contact has a fingerprint that begins so: give more digits"
    )]
    Ambiguous,
}

/// What waits in one chat.
pub struct PendingChat {
    /// The chat's portal.
    pub portal: Portal,
    /// Messages of the person that have not left.
    pub from_person: Held,
    /// Messages of the contact that are not decrypted because of their device.
    pub from_contact: Held,
    /// Messages of the contact that could not be encrypted for the person.
    pub to_person: Held,
    /// Devices of the contact that wait for a decision.
    pub devices: Vec<RemoteDevice>,
    /// Whether the person has another identity than the pinned one.
    pub is_own_identity_changed: bool,
    /// Whether the contact has distrusted the person.
    pub is_person_distrusted: bool,
}

impl PendingChat {
    /// Whether there is anything.
    pub fn is_empty(&self) -> bool {
        let waiting = [self.from_person, self.from_contact, self.to_person];
        waiting.iter().all(|held| held.messages == 0) && self.devices.is_empty()
    }
}

impl Hub {
    /// Approves those new devices and changed identities of the contact whose fingerprints were
    /// said in the room. Returns how many.
    ///
    /// # Errors
    /// [`DecideError`] when it is not known to be stored.
    pub async fn approve_contact(
        &self,
        portal: &Portal,
        decided_by: &Decider,
    ) -> Result<usize, DecideError> {
        let mut tx = self.parts.db.read().await?;
        let mut shown = Vec::new();
        for kind in [CONTACT_CHANGED, NEW_DEVICES] {
            shown.extend(tx.notices().subjects(portal.room_id.as_str(), kind).await?);
        }
        drop(tx);
        self.decide(portal, &shown, DeviceDecision::Approve, decided_by).await
    }

    /// Marks the contact's devices with these very fingerprints as compared. Returns how many there
    /// are of which this was not known.
    ///
    /// # Errors
    /// [`DecideError`] when it is not known to be stored.
    pub async fn verify_devices(
        &self,
        portal: &Portal,
        fingerprints: &[String],
        decided_by: &Decider,
    ) -> Result<usize, DecideError> {
        self.decide(portal, fingerprints, DeviceDecision::Verify, decided_by).await
    }

    /// Keeps the contact's devices with this fingerprint out, and makes new room keys. Returns how
    /// many there are that were not kept out before.
    ///
    /// # Errors
    /// [`DecideError`] when it is not known to be stored, or when the room keys are the old ones.
    pub async fn distrust_device(
        &self,
        portal: &Portal,
        fingerprint: &str,
        decided_by: &Decider,
    ) -> Result<usize, DecideError> {
        let fingerprint = [fingerprint.to_owned()];
        self.decide(portal, &fingerprint, DeviceDecision::Distrust, decided_by).await
    }

    /// The fingerprints of the contact's devices that a URI of their client names.
    ///
    /// # Errors
    /// [`VerifyUriError`] when the devices do not present every one of them.
    pub async fn match_uri(
        &self,
        portal: &Portal,
        uri: &str,
    ) -> Result<Vec<String>, VerifyUriError> {
        self.parts.remote.match_uri(&chat_of(portal), uri).await
    }

    async fn decide(
        &self,
        portal: &Portal,
        fingerprints: &[String],
        decision: DeviceDecision,
        decided_by: &Decider,
    ) -> Result<usize, DecideError> {
        let chat = chat_of(portal);
        let decided = self.parts.remote.decide(&chat, fingerprints, decision, decided_by).await?;
        // If it happens again it is told again; of other devices it is known that it was told.
        let mut tx = self.parts.db.begin().await?;
        for kind in [CONTACT_CHANGED, NEW_DEVICES, DISTRUSTED] {
            for subject in fingerprints {
                let scope = portal.room_id.as_str();
                tx.notices().forget_about(Notice { scope, subject, kind }).await?;
            }
        }
        let weaker = Direction::FromContact.weaker();
        tx.notices().forget(portal.room_id.as_str(), weaker).await?;
        tx.commit().await?;
        if decision == DeviceDecision::Distrust {
            self.rotate(portal).await?;
        }
        self.release(portal, &[NO_TRUSTED_DEVICE]).await?;
        Ok(decided)
    }

    /// The devices of the contact of a portal.
    ///
    /// # Errors
    /// [`DecideError`] when the contact's server or the store does not answer.
    pub async fn devices_of_contact(
        &self,
        portal: &Portal,
    ) -> Result<Vec<RemoteDevice>, DecideError> {
        Ok(self.parts.remote.devices(&chat_of(portal)).await?)
    }

    /// The portal of a person's chat with a contact, whom an address names.
    ///
    /// # Errors
    /// [`DecideError`] when the store failed.
    pub async fn find_chat(
        &self,
        user: &UserId,
        address: &str,
    ) -> Result<Option<Portal>, DecideError> {
        let Ok(contact) = self.parts.network.parse_contact(address) else { return Ok(None) };
        Ok(self.find_portal(user, &contact).await?)
    }

    /// From the next message on, the ghost and the bot encrypt under new room keys in this room.
    ///
    /// # Errors
    /// [`MatrixError`] when a key is still the old one.
    pub async fn rotate(&self, portal: &Portal) -> Result<(), MatrixError> {
        for sender in [&*portal.ghost, self.parts.namespace.bot()] {
            self.parts.devices.rotate(sender, &portal.room_id).await?;
        }
        Ok(())
    }

    /// What waits in a portal.
    ///
    /// # Errors
    /// [`DecideError`] when the store failed.
    pub async fn pending_in(&self, portal: &Portal) -> Result<PendingChat, DecideError> {
        let chat = chat_of(portal);
        let undecided = self.parts.remote.undecided(&chat).await?;
        let mut tx = self.parts.db.read().await?;
        let from_person = tx.matrix_inbox().count_pending(&portal.room_id, &portal.local).await?;
        let to_person = tx.remote_inbox().count_pending(&chat).await?;
        let own = tx.pins().find(&portal.local).await?;
        let is_person_distrusted = tx.contact_decisions().is_distrusted(&chat).await?;
        Ok(PendingChat {
            portal: portal.clone(),
            from_person,
            from_contact: undecided.held,
            to_person,
            devices: undecided.devices,
            is_own_identity_changed: own.is_some_and(|pin| pin.state != PinState::Pinned),
            is_person_distrusted,
        })
    }

    /// What waits in all chats of a person.
    ///
    /// # Errors
    /// [`DecideError`] when the store failed.
    pub async fn pending_of(&self, user: &UserId) -> Result<Vec<PendingChat>, DecideError> {
        let mut tx = self.parts.db.read().await?;
        let portals = tx.portals().load_by_local(user).await?;
        drop(tx);
        let mut pending = Vec::new();
        for portal in portals.iter().filter(|portal| portal.state != PortalState::Closed) {
            let waiting = self.pending_in(portal).await?;
            if !waiting.is_empty() {
                pending.push(waiting);
            }
        }
        Ok(pending)
    }

    /// The identity that the bridge has pinned for a person, if it knows one.
    ///
    /// # Errors
    /// [`DecideError`] when the store failed.
    pub async fn find_own_pin(
        &self,
        user: &UserId,
    ) -> Result<Option<crate::store::Pin>, DecideError> {
        Ok(self.parts.db.read().await?.pins().find(user).await?)
    }
}

/// How much of a fingerprint names a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// All of it: what is trusted must be the very key that was compared.
    Whole,
    /// Its beginning, if there is but one.
    Beginning,
}

/// The device that a person means by what they have typed.
///
/// # Errors
/// [`UnknownFingerprint`] says what is wrong with it.
pub fn find_named<'a>(
    devices: &'a [RemoteDevice],
    typed: &str,
    naming: Naming,
) -> Result<&'a RemoteDevice, UnknownFingerprint> {
    let digits = digits_of(typed);
    if !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(UnknownFingerprint::NotHex);
    }
    let is_named = |device: &&RemoteDevice| match naming {
        Naming::Whole => digits_of(&device.fingerprint) == digits,
        Naming::Beginning => digits_of(&device.fingerprint).starts_with(&digits),
    };
    let named: Vec<&RemoteDevice> = devices.iter().filter(is_named).collect();
    let begins = |device: &RemoteDevice| digits_of(&device.fingerprint).starts_with(&digits);
    match (named.as_slice(), naming) {
        _ if digits.len() < MIN_DIGITS => Err(UnknownFingerprint::TooShort),
        ([], Naming::Whole) if devices.iter().any(begins) => Err(UnknownFingerprint::NotWhole),
        ([], _) => Err(UnknownFingerprint::None),
        ([first, others @ ..], _) => {
            // One key under several numbers is one device to a person.
            if others.iter().all(|other| other.fingerprint == first.fingerprint) {
                Ok(first)
            } else {
                Err(UnknownFingerprint::Ambiguous)
            }
        }
    }
}

fn digits_of(fingerprint: &str) -> String {
    fingerprint
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::DeviceTrust;

    fn device(id: &str, fingerprint: &str) -> RemoteDevice {
        let fingerprint = fingerprint.to_owned();
        RemoteDevice { id: id.to_owned(), fingerprint, trust: DeviceTrust::Pinned, since_ms: None }
    }

    #[test]
    fn a_fingerprint_names_one_key_or_says_what_is_wrong() {
        let devices = [
            device("1", "0123abcd 00000000"),
            device("2", "0123abcd 11111111"),
            device("3", "0123abcd 11111111"),
            device("4", "4567ef01 22222222"),
        ];
        let named = |typed, naming| find_named(&devices, typed, naming).map(|found| &*found.id);
        for (typed, whole, beginning) in [
            ("0123abcd00000000", Ok("1"), Ok("1")),
            (" 0123:ABCD 0000 0000 ", Ok("1"), Ok("1")),
            ("0123abcd0", Err(UnknownFingerprint::NotWhole), Ok("1")),
            ("0123abcd", Err(UnknownFingerprint::NotWhole), Err(UnknownFingerprint::Ambiguous)),
            // One key under two numbers.
            ("0123abcd11111111", Ok("2"), Ok("2")),
            ("0123abcd1", Err(UnknownFingerprint::NotWhole), Ok("2")),
            ("4567ef0", Err(UnknownFingerprint::TooShort), Err(UnknownFingerprint::TooShort)),
            ("", Err(UnknownFingerprint::TooShort), Err(UnknownFingerprint::TooShort)),
            ("89ab2345", Err(UnknownFingerprint::None), Err(UnknownFingerprint::None)),
            ("4567ef01222222220", Err(UnknownFingerprint::None), Err(UnknownFingerprint::None)),
            ("4567efgh", Err(UnknownFingerprint::NotHex), Err(UnknownFingerprint::NotHex)),
        ] {
            assert_eq!(named(typed, Naming::Whole), whole, "{typed}");
            assert_eq!(named(typed, Naming::Beginning), beginning, "{typed}");
        }
        assert_eq!(find_named(&[], "0123abcd", Naming::Whole), Err(UnknownFingerprint::None));
    }
}
