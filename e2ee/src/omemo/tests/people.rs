//! People with a device each, and a store that holds nothing but bytes.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use minidom::Element;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use crate::omemo::{
    Account, Bundle, DecryptError, Decrypted, DeviceId, EncryptError, Encrypted, EncryptedElement,
    IdentityKey, Machine, Namespace, OmemoChanges, Payload, Plaintext, Recipient, Sender,
    SessionList,
};

/// Tuesday, 14 November 2023, 22:13:20 UTC.
pub(super) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

pub(super) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A person with one device. Sessions are stored as bytes and read again for each call.
#[derive(Clone)]
pub(super) struct Person {
    pub(super) jid: &'static str,
    pub(super) rng: ChaCha20Rng,
    account: Account,
    account_bytes: Vec<u8>,
    sessions: BTreeMap<(String, u32, Namespace), Vec<u8>>,
    pins: BTreeMap<(String, u32), [u8; 32]>,
}

pub(super) fn alice() -> Person {
    Person::new("alice%matrix.example@bridge.example", 1)
}

pub(super) fn bob() -> Person {
    Person::new("bob@example.org", 2)
}

impl Person {
    pub(super) fn new(jid: &'static str, seed: u64) -> Self {
        let mut rng = rng(seed);
        let account = Account::generate(now(), &mut rng);
        let account_bytes = account.to_bytes().unwrap().to_vec();
        Self { jid, rng, account, account_bytes, sessions: BTreeMap::new(), pins: BTreeMap::new() }
    }

    pub(super) const fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn replace_account(&mut self, account: &Account) {
        self.account_bytes = account.to_bytes().unwrap().to_vec();
        self.account = Account::from_bytes(&self.account_bytes).unwrap();
    }

    pub(super) const fn device(&self) -> DeviceId {
        self.account.device_id()
    }

    /// Every stored byte, for comparison.
    pub(super) fn stored(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        (self.account_bytes.clone(), self.sessions.clone(), self.pins.clone())
    }

    /// What others fetch, having gone through XML.
    pub(super) fn bundle(&self, namespace: Namespace) -> Bundle {
        let element = through_xml(&self.account.bundle(namespace).to_element());
        Bundle::from_element(namespace, &element).unwrap()
    }

    pub(super) fn sessions_with(
        &self,
        jid: &str,
        device: DeviceId,
        namespace: Namespace,
    ) -> Option<SessionList> {
        let bytes = self.sessions.get(&(jid.to_owned(), device.value(), namespace))?;
        Some(SessionList::from_bytes(bytes).unwrap())
    }

    pub(super) fn pin_of(&self, jid: &str, device: DeviceId) -> Option<IdentityKey> {
        let pin = self.pins.get(&(jid.to_owned(), device.value()))?;
        Some(IdentityKey::from_bytes(pin).unwrap())
    }

    pub(super) fn pin(&mut self, jid: &str, device: DeviceId, identity: IdentityKey) {
        self.pins.insert((jid.to_owned(), device.value()), identity.to_bytes());
    }

    pub(super) fn recipient(&self, other: &Self, namespace: Namespace) -> Recipient {
        let device = other.device();
        let sessions = self.sessions_with(other.jid, device, namespace);
        Recipient {
            jid: other.jid.to_owned(),
            device,
            bundle: sessions
                .as_ref()
                .is_none_or(|sessions| sessions.identity().is_none())
                .then(|| other.bundle(namespace)),
            sessions,
            pinned: self.pin_of(other.jid, device),
        }
    }

    /// Encrypts without saving.
    pub(super) fn try_encrypt(
        &mut self,
        to: &str,
        recipients: Vec<Recipient>,
        payload: &Payload,
    ) -> Result<Encrypted, EncryptError> {
        Machine::new(&self.account, self.jid).encrypt(to, recipients, payload, now(), &mut self.rng)
    }

    /// Encrypts, saves, and gives what arrives after XML.
    pub(super) fn send(&mut self, to: &Self, payload: &Payload) -> EncryptedElement {
        let recipient = self.recipient(to, payload.namespace());
        let encrypted = self.try_encrypt(to.jid, vec![recipient], payload).unwrap();
        assert_eq!(encrypted.failures, []);
        self.save(encrypted.changes);
        EncryptedElement::from_element(&through_xml(&encrypted.element.to_element())).unwrap()
    }

    pub(super) fn say(&mut self, to: &Self, namespace: Namespace, words: &str) -> EncryptedElement {
        self.send(to, &text(namespace, words))
    }

    /// Decrypts without saving.
    pub(super) fn try_decrypt(
        &self,
        from: &str,
        element: &EncryptedElement,
    ) -> Result<Decrypted, DecryptError> {
        let sender = Sender {
            jid: from.to_owned(),
            sessions: self.sessions_with(from, element.sender(), element.namespace()),
            pinned: self.pin_of(from, element.sender()),
        };
        Machine::new(&self.account, self.jid).decrypt(sender, element)
    }

    /// Decrypts, saves and refills the account. On an error nothing may have changed.
    pub(super) fn receive(
        &mut self,
        from: &Self,
        element: &EncryptedElement,
    ) -> Result<Decrypted, DecryptError> {
        let before = self.stored();
        let result = self.try_decrypt(from.jid, element);
        assert_eq!(before, self.stored());
        if let Ok(decrypted) = &result {
            self.save(decrypted.changes.clone());
        }
        result
    }

    /// Receives what must be readable text.
    pub(super) fn hear(&mut self, from: &Self, element: &EncryptedElement) -> String {
        let decrypted = self.receive(from, element).unwrap();
        words(decrypted.plaintext.as_ref().expect("the message has content"))
    }

    /// What is done with a state that is an older copy.
    pub(super) fn is_restored(&mut self) {
        for stored in self.sessions.values_mut() {
            let mut sessions = SessionList::from_bytes(stored).unwrap();
            sessions.receive_only();
            *stored = sessions.to_bytes().unwrap().to_vec();
        }
        let mut account = self.account.clone();
        account.replace_prekeys(now(), &mut self.rng);
        self.replace_account(&account);
    }

    pub(super) fn save(&mut self, changes: OmemoChanges) {
        if let Some(mut account) = changes.account {
            account.maintain(now(), &mut self.rng);
            self.replace_account(&account);
        }
        for change in changes.sessions {
            let key = (change.jid, change.device.value(), change.namespace);
            self.sessions.insert(key, change.sessions.to_bytes().unwrap().to_vec());
        }
        for pin in changes.pins {
            self.pin(&pin.jid, pin.device, pin.identity);
        }
    }
}

pub(super) fn text(namespace: Namespace, words: &str) -> Payload {
    match namespace {
        Namespace::Legacy => Payload::Body(words.to_owned()),
        Namespace::V2 => {
            Payload::Content(vec![Element::builder("body", "jabber:client").append(words).build()])
        }
    }
}

pub(super) fn words(plaintext: &Plaintext) -> String {
    match plaintext {
        Plaintext::Body(text) => text.clone(),
        Plaintext::Envelope(envelope) => envelope.body().expect("a body"),
    }
}

/// What is left of an element after it has been written and read.
pub(super) fn through_xml(element: &Element) -> Element {
    let mut bytes = Vec::new();
    element.write_to(&mut bytes).unwrap();
    Element::from_reader(bytes.as_slice()).unwrap()
}

/// Alice and Bob after a message each way.
pub(super) fn acquainted(namespace: Namespace) -> (Person, Person) {
    let (mut alice, mut bob) = (alice(), bob());
    let hello = alice.say(&bob, namespace, "hello");
    bob.hear(&alice, &hello);
    let answer = bob.say(&alice, namespace, "answer");
    alice.hear(&bob, &answer);
    (alice, bob)
}
