//! Bob, who is not a bridge: an OMEMO device of his own, and the PEP of his account.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use e2ee::omemo::{
    Account, Bundle, DeviceId, DeviceList, EncryptedElement, Machine, Namespace, Payload,
    Plaintext, Recipient, Sender, SessionList,
};
use minidom::Element;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};

use crate::xmpp::xml::{El, PUBSUB, PUBSUB_EVENT};

pub(super) const ALICE: &str = "alice%example.com@bridge.example.net";
pub(super) const BOB: &str = "bob@example.org";

pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// A contact with one device.
pub(super) struct Contact {
    pub account: Account,
    rng: ChaCha20Rng,
    sessions: BTreeMap<Namespace, SessionList>,
    /// In which namespaces the device is announced.
    pub announced: Vec<Namespace>,
    /// Whether the bundles are there.
    pub bundles: bool,
    /// Another device of the same account.
    pub laptop: Option<Box<Contact>>,
}

impl Contact {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let account = Account::generate(now(), &mut rng);
        let announced = Namespace::ALL.to_vec();
        Self { account, rng, sessions: BTreeMap::new(), announced, bundles: true, laptop: None }
    }

    pub(super) fn without_omemo() -> Self {
        Self { announced: Vec::new(), ..Self::new(2) }
    }

    /// Loses all state but the device's number: what a client restored badly would do.
    pub(super) fn reinstall_under_the_same_number(&mut self, seed: u64) {
        let fresh = Self::new(seed);
        let bytes = fresh.account.to_bytes().unwrap();
        let (version, json) = bytes.split_first().unwrap();
        let mut state: serde_json::Value = serde_json::from_slice(json).unwrap();
        state["device_id"] = self.account.device_id().value().into();
        let mut bytes = vec![*version];
        bytes.extend(serde_json::to_vec(&state).unwrap());
        self.account = Account::from_bytes(&bytes).unwrap();
        self.sessions.clear();
    }

    pub(super) fn device(&self) -> DeviceId {
        self.account.device_id()
    }

    /// All devices of the account.
    pub(super) fn devices(&self) -> Vec<DeviceId> {
        let laptop = self.laptop.iter().map(|laptop| laptop.device());
        [self.device()].into_iter().chain(laptop).collect()
    }

    pub(super) fn fingerprint(&self) -> String {
        self.account.identity_key().fingerprint()
    }

    /// The answer of Bob's server to a request for an item, as the content of `<items>`. Without
    /// an id it is for the only one.
    pub(super) fn item(&self, node: &str, wanted: Option<&str>) -> Option<Element> {
        for namespace in self.announced.iter().copied() {
            if node == namespace.device_list_node() {
                let list = DeviceList::new(self.devices()).to_element(namespace);
                return Some(El::new("item", PUBSUB).attr("id", "current").child(list).build());
            }
            let (bundles, id) = Bundle::node_and_item(namespace, self.device());
            let is_wanted = wanted.is_none_or(|wanted| wanted == id);
            if node == bundles && is_wanted && self.bundles {
                let bundle = self.account.bundle(namespace).to_element();
                return Some(El::new("item", PUBSUB).attr("id", id).child(bundle).build());
            }
        }
        self.laptop.as_ref()?.item(node, wanted)
    }

    /// A push of the device list, from anybody.
    pub(super) fn push(&self, namespace: Namespace, devices: &[DeviceId]) -> Element {
        let list = DeviceList::new(devices.to_vec()).to_element(namespace);
        let item = El::new("item", PUBSUB_EVENT).attr("id", "current").child(list);
        let items =
            El::new("items", PUBSUB_EVENT).attr("node", namespace.device_list_node()).child(item);
        El::new("event", PUBSUB_EVENT).child(items).build()
    }

    /// The push that a subscription to a device list brings, if there is a list.
    pub(super) fn push_for_subscriber(&self, request: &Element) -> Option<Element> {
        let subscribe = request.get_child("pubsub", PUBSUB)?.get_child("subscribe", PUBSUB)?;
        let node = subscribe.attr("node")?;
        let namespace = self.announced.iter().find(|of| of.device_list_node() == node)?;
        Some(self.push(*namespace, &self.devices()))
    }

    /// Encrypts a text for the bridge's device, whose bundle was fetched.
    pub(super) fn encrypt(
        &mut self,
        device: DeviceId,
        bundle: Option<Bundle>,
        text: &str,
        namespace: Namespace,
    ) -> Element {
        let body = || El::new("body", "jabber:client").text(text).build();
        let payload = match namespace {
            Namespace::Legacy => Payload::Body(text.to_owned()),
            Namespace::V2 => Payload::Content(vec![body()]),
        };
        let sessions = self.sessions.get(&namespace).cloned();
        let recipient = Recipient { jid: ALICE.to_owned(), device, sessions, bundle, pinned: None };
        let machine = Machine::new(&self.account, BOB);
        let encrypted =
            machine.encrypt(ALICE, vec![recipient], &payload, now(), &mut self.rng).unwrap();
        for change in encrypted.changes.sessions {
            self.sessions.insert(namespace, change.sessions);
        }
        encrypted.element.to_element()
    }

    /// Whether there is a key for this device in a message.
    pub(super) fn is_addressed_by(&self, message: &Element) -> bool {
        message
            .children()
            .filter_map(|child| EncryptedElement::from_element(child).ok())
            .any(|element| element.is_for(BOB, self.device()))
    }

    /// Decrypts what came for Bob's device; `None` for an empty message.
    pub(super) fn decrypt(&mut self, message: &Element) -> Option<String> {
        let element = message
            .children()
            .find_map(|child| EncryptedElement::from_element(child).ok())
            .expect("an encrypted message");
        let namespace = element.namespace();
        let sessions = self.sessions.get(&namespace).cloned();
        let sender = Sender { jid: ALICE.to_owned(), sessions, pinned: None };
        let decrypted = Machine::new(&self.account, BOB).decrypt(sender, &element).unwrap();
        for change in decrypted.changes.sessions {
            self.sessions.insert(namespace, change.sessions);
        }
        if let Some(account) = decrypted.changes.account {
            self.account = account;
        }
        match decrypted.plaintext? {
            Plaintext::Body(text) => Some(text),
            Plaintext::Envelope(envelope) => envelope.body(),
        }
    }
}
