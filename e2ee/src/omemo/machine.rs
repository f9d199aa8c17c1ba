//! Encrypts for many devices and decrypts for one: the entry to the engine.
//!
//! Knows the order of checks and what changed; knows no storage. All that a call altered is in its
//! [`OmemoChanges`], to be saved in one commit together with what the call returned.

use std::{fmt, time::SystemTime};

use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use super::{
    Account, Bundle, DecryptError, DeviceError, DeviceId, EncryptError, EncryptedElement,
    IdentityKey, Namespace, Payload, Plaintext, SessionList,
    debug::hidden_debug,
    encrypted::{KeyEntry, KeyKind},
    payload::{self, Naming, Route},
    prekeys::KeptPrekeys,
    session::{Responder, Session},
    wire::ratchet_message::{self, KeyExchange, RatchetMessage, Unreadable},
};

hidden_debug!(Recipient, Sender, SessionChange, Pin);

/// One of our devices, ready to encrypt and decrypt.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    account: &'a Account,
    own_jid: &'a str,
}

/// A device to encrypt to, with what is stored and known of it.
#[derive(Clone)]
pub struct Recipient {
    /// The bare JID of the device's owner.
    pub jid: String,
    /// The device.
    pub device: DeviceId,
    /// What [`OmemoChanges`] last said of this device in this namespace.
    pub sessions: Option<SessionList>,
    /// Its bundle, needed when there is no session. With both, the session is used.
    pub bundle: Option<Bundle>,
    /// The identity that was pinned for this device, if any.
    pub pinned: Option<IdentityKey>,
}

/// What is stored and known of the device a message claims to come from.
#[derive(Clone)]
pub struct Sender {
    /// The bare JID the stanza came from.
    pub jid: String,
    /// What [`OmemoChanges`] last said of [`EncryptedElement::sender`] in this namespace.
    pub sessions: Option<SessionList>,
    /// The identity that was pinned for this device, if any.
    pub pinned: Option<IdentityKey>,
}

/// All that one call altered. Save it in one commit, then send or show what the call returned.
#[derive(Debug, Clone, Default)]
pub struct OmemoChanges {
    /// The account without the prekey that was used: call [`Account::maintain`], save it and
    /// publish the bundle of the message's namespace again.
    pub account: Option<Account>,
    /// Sessions that moved on or are new.
    pub sessions: Vec<SessionChange>,
    /// Identities that were used and had no pin: pin them.
    pub pins: Vec<Pin>,
}

/// The sessions with one device, to be stored in place of what was.
#[derive(Clone)]
pub struct SessionChange {
    /// The bare JID of the device's owner.
    pub jid: String,
    /// The device.
    pub device: DeviceId,
    /// The namespace; a device has separate sessions in each.
    pub namespace: Namespace,
    /// The new state.
    pub sessions: SessionList,
}

/// A device's identity on first use.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin {
    /// The bare JID of the device's owner.
    pub jid: String,
    /// The device.
    pub device: DeviceId,
    /// What it presented.
    pub identity: IdentityKey,
}

/// An encrypted message.
#[derive(Debug, Clone)]
pub struct Encrypted {
    /// The element to send, once `changes` are committed.
    pub element: EncryptedElement,
    /// What to commit.
    pub changes: OmemoChanges,
    /// Devices that will not be able to read it.
    pub failures: Vec<DeviceFailure>,
}

/// A device that could not be encrypted to.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceFailure {
    /// The bare JID of the device's owner.
    pub jid: String,
    /// The device.
    pub device: DeviceId,
    /// Why.
    pub error: DeviceError,
}

/// Shows no JID.
impl fmt::Debug for DeviceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceFailure").field(&self.error).finish()
    }
}

/// A decrypted message.
#[derive(Debug, Clone)]
pub struct Decrypted {
    /// The content; `None` for an empty message.
    pub plaintext: Option<Plaintext>,
    /// The identity of the sending device, equal to the pin if there was one.
    pub identity: IdentityKey,
    /// Whether an empty message should go back to this device, because it started a session or
    /// has heard nothing for long. Anything else that is encrypted to it serves as well.
    pub answer: Answer,
    /// What to commit.
    pub changes: OmemoChanges,
}

/// Whether a device waits for an answer on the ratchet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing is to be sent.
    NotDue,
    /// Send an empty message unless something else goes to this device soon.
    Due,
}

/// Shows no JID.
impl fmt::Debug for Machine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Machine(…)")
    }
}

impl<'a> Machine<'a> {
    /// The device of this account under this bare JID.
    pub const fn new(account: &'a Account, own_jid: &'a str) -> Self {
        Self { account, own_jid }
    }

    /// Encrypts a payload once, and its key for every recipient that can be encrypted to.
    ///
    /// `to` is the bare JID the message goes to. The namespace is the payload's. A device that is
    /// listed twice is encrypted to once.
    ///
    /// # Errors
    /// [`EncryptError`] when there is nobody to encrypt to or the payload cannot be written.
    pub fn encrypt(
        &self,
        to: &str,
        mut recipients: Vec<Recipient>,
        payload: &Payload,
        now: SystemTime,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Encrypted, EncryptError> {
        recipients.sort_by(|one, other| one.address().cmp(&other.address()));
        recipients.dedup_by(|one, other| one.address() == other.address());
        if recipients.is_empty() {
            return Err(EncryptError::NoRecipient);
        }
        let namespace = payload.namespace();
        let sealed = payload::seal(payload, Route { from: self.own_jid, to }, now, rng)?;
        let mut keys = Vec::new();
        let mut changes = OmemoChanges::default();
        let mut failures = Vec::new();
        for recipient in recipients {
            let Recipient { jid, device, pinned, .. } = recipient.clone();
            match self.encrypt_key(namespace, recipient, &sealed.key, rng) {
                Ok(Addressed { sessions, identity, kind, data }) => {
                    keys.push(KeyEntry { jid: owner(namespace, &jid), device, kind, data });
                    changes.add(
                        SessionChange { jid, device, namespace, sessions },
                        identity,
                        pinned,
                    );
                }
                Err(error) => failures.push(DeviceFailure { jid, device, error }),
            }
        }
        if keys.is_empty() {
            return Err(EncryptError::NoUsableDevice { failures });
        }
        let element = EncryptedElement {
            namespace,
            sender: self.account.device_id(),
            keys,
            iv: sealed.iv,
            payload: sealed.ciphertext,
        };
        Ok(Encrypted { element, changes, failures })
    }

    fn encrypt_key(
        &self,
        namespace: Namespace,
        recipient: Recipient,
        key: &[u8],
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Addressed, DeviceError> {
        let Recipient { sessions, bundle, pinned, .. } = recipient;
        let mut sessions = sessions.unwrap_or_else(|| SessionList::new(namespace));
        let mismatch = bundle.as_ref().is_some_and(|bundle| bundle.namespace() != namespace);
        if mismatch || sessions.namespace() != namespace {
            return Err(DeviceError::Namespace);
        }
        // Without a pin, the sessions there are say whose device it is.
        let expected = pinned.or_else(|| sessions.any_identity());
        if let Some(bundle) = &bundle {
            self.check_identity(bundle.identity(), expected)?;
        }
        if let Some(expected) = expected {
            sessions.keep_identity(expected);
        }
        if sessions.identity().is_none() {
            let bundle = bundle.ok_or(DeviceError::NoBundle)?;
            sessions.start(Session::initiate(self.account.identity(), &bundle, rng)?);
        }
        let identity = sessions.identity().ok_or(DeviceError::NoBundle)?;
        let (kind, data) = sessions.encrypt(key, rng)?;
        Ok(Addressed { sessions, identity, kind, data })
    }

    fn check_identity(
        &self,
        presented: IdentityKey,
        expected: Option<IdentityKey>,
    ) -> Result<(), DeviceError> {
        if presented == self.account.identity_key() {
            return Err(DeviceError::OwnIdentity);
        }
        match expected {
            Some(expected) if expected != presented => {
                Err(DeviceError::IdentityChanged { presented })
            }
            _ => Ok(()),
        }
    }

    /// The prekeys of ours that a message starts its session with, for one that is not to be read yet; `None` where it
    /// starts none, or they are gone. [`Account::with_prekeys`] reads it later.
    pub fn keep_prekeys(&self, element: &EncryptedElement) -> Option<KeptPrekeys> {
        let exchange = self.read_key_exchange(element)?;
        let prekeys = self.account.prekeys(element.namespace);
        prekeys.keep(element.namespace, exchange.signed_prekey_id, exchange.prekey_id?)
    }

    /// Whether one of these sessions was started by the key exchange of a message. To be asked of all other devices of
    /// the sender before kept prekeys are used: whoever repeats a message under another device number would have it
    /// read again, where nothing is used up.
    pub fn has_started(&self, sessions: &SessionList, element: &EncryptedElement) -> bool {
        sessions.namespace() == element.namespace
            && self
                .read_key_exchange(element)
                .is_some_and(|exchange| sessions.was_started_by(&exchange))
    }

    /// The identity that the key exchange of a message names, which anybody can; `None` where it brings none for us.
    /// [`Self::has_started`] is true of sessions of this identity only.
    pub fn named_identity(&self, element: &EncryptedElement) -> Option<IdentityKey> {
        self.read_key_exchange(element).map(|exchange| exchange.identity)
    }

    fn read_key_exchange(&self, element: &EncryptedElement) -> Option<KeyExchange> {
        let entry = element.find_key(self.own_jid, self.account.device_id())?;
        if entry.kind != KeyKind::KeyExchange {
            return None;
        }
        ratchet_message::decode_key_exchange(element.namespace, &entry.data).ok()
    }

    /// Decrypts a message for this device.
    ///
    /// # Errors
    /// [`DecryptError`] says what was wrong. Nothing has changed then, and nothing is to be saved.
    pub fn decrypt(
        &self,
        sender: Sender,
        element: &EncryptedElement,
    ) -> Result<Decrypted, DecryptError> {
        let namespace = element.namespace;
        let Sender { jid, sessions, pinned } = sender;
        let device = self.account.device_id();
        let entry = element.find_key(self.own_jid, device).ok_or(DecryptError::NotForUs)?;
        let sessions = sessions.unwrap_or_else(|| SessionList::new(namespace));
        if sessions.namespace() != namespace {
            return Err(DecryptError::NoSession);
        }
        let opened = match entry.kind {
            KeyKind::KeyExchange => self.open_key_exchange(sessions, pinned, &entry.data)?,
            KeyKind::Ratchet => open_ratchet_message(sessions, pinned, &entry.data)?,
        };
        let route = Route { from: &jid, to: self.own_jid };
        let naming = match &opened.account {
            Some(_) => Naming::Required,
            None => Naming::Optional,
        };
        let plaintext = payload::open(element, &opened.key, route, naming)?;

        let answer = opened.sessions.answer();
        let mut changes = OmemoChanges { account: opened.account, ..OmemoChanges::default() };
        let change =
            SessionChange { jid, device: element.sender, namespace, sessions: opened.sessions };
        changes.add(change, opened.identity, pinned);
        Ok(Decrypted { plaintext, identity: opened.identity, answer, changes })
    }

    fn open_key_exchange(
        &self,
        mut sessions: SessionList,
        pinned: Option<IdentityKey>,
        bytes: &[u8],
    ) -> Result<Opened, DecryptError> {
        let namespace = sessions.namespace();
        let exchange = ratchet_message::decode_key_exchange(namespace, bytes)?;
        let presented = exchange.identity;
        let message = ratchet_message::decode_ratchet_message(namespace, &exchange.message)?;
        // Without a pin, the sessions there are say whose device it is.
        match self.check_identity(presented, pinned.or_else(|| sessions.any_identity())) {
            Ok(()) => {}
            Err(DeviceError::OwnIdentity) => return Err(DecryptError::OwnIdentity),
            Err(_) => {
                // Anybody can name an identity; only who has its key is worth a question.
                self.start_from(namespace, &exchange, &message)?;
                return Err(DecryptError::IdentityChanged { presented });
            }
        }
        sessions.keep_identity(presented);
        if let Some(opened) = sessions.decrypt_repeated(&exchange, &message) {
            let (identity, key) = opened?;
            return Ok(Opened { sessions, identity, key, account: None });
        }
        // The message must be of the very session that its key exchange starts: no older session
        // is tried, or an old message in a new key exchange would use up a prekey.
        let (session, key, prekey_id) = self.start_from(namespace, &exchange, &message)?;
        sessions.start(session);
        let account = Some(self.account.without_prekey(namespace, prekey_id));
        Ok(Opened { sessions, identity: presented, key, account })
    }

    /// The session that a key exchange starts, the key in its first message, and the prekey that
    /// it used. An error when the message is not of that very session.
    fn start_from(
        &self,
        namespace: Namespace,
        exchange: &KeyExchange,
        message: &RatchetMessage,
    ) -> Result<(Session, Zeroizing<Vec<u8>>, u32), DecryptError> {
        let prekey_id = exchange.prekey_id.ok_or(DecryptError::NoPrekey)?;
        let prekeys = self.account.prekeys(namespace);
        let unknown = DecryptError::UnknownPrekey;
        let own = Responder {
            identity: self.account.identity(),
            signed_prekey: prekeys.find_signed(exchange.signed_prekey_id).ok_or(unknown)?,
            prekey_id,
            prekey: prekeys.find_one_time(prekey_id).ok_or(DecryptError::UnknownPrekey)?,
        };
        let session = Session::respond(namespace, &own, exchange)?;
        let (session, key) = session.decrypt(namespace, message)?;
        Ok((session, key, prekey_id))
    }
}

/// A `<key>` for one device, and what that changes.
struct Addressed {
    sessions: SessionList,
    identity: IdentityKey,
    kind: KeyKind,
    data: Vec<u8>,
}

/// A `<key>` that was opened, and what that changes.
struct Opened {
    sessions: SessionList,
    identity: IdentityKey,
    key: Zeroizing<Vec<u8>>,
    account: Option<Account>,
}

fn open_ratchet_message(
    mut sessions: SessionList,
    pinned: Option<IdentityKey>,
    bytes: &[u8],
) -> Result<Opened, DecryptError> {
    let message = ratchet_message::decode_ratchet_message(sessions.namespace(), bytes)?;
    if let Some(pinned) = pinned {
        let presented = sessions.any_identity().filter(|identity| *identity != pinned);
        sessions.keep_identity(pinned);
        if let (Some(presented), None) = (presented, sessions.any_identity()) {
            return Err(DecryptError::IdentityChanged { presented });
        }
    }
    let (identity, key) = sessions.decrypt(&message)?;
    Ok(Opened { sessions, identity, key, account: None })
}

/// Legacy headers name devices by number alone.
fn owner(namespace: Namespace, jid: &str) -> Option<String> {
    (namespace == Namespace::V2).then(|| jid.to_owned())
}

impl Recipient {
    fn address(&self) -> (&str, DeviceId) {
        (&self.jid, self.device)
    }
}

impl OmemoChanges {
    fn add(&mut self, change: SessionChange, identity: IdentityKey, pinned: Option<IdentityKey>) {
        if pinned.is_none() {
            self.pins.push(Pin { jid: change.jid.clone(), device: change.device, identity });
        }
        self.sessions.push(change);
    }
}

impl From<Unreadable> for DecryptError {
    fn from(error: Unreadable) -> Self {
        match error {
            Unreadable::Malformed(part) => Self::Malformed(part),
            Unreadable::InvalidKey => Self::InvalidKey,
        }
    }
}
