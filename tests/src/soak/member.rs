//! One contact of the crowd: an OMEMO device.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use e2ee::omemo::{
    Account, Bundle, DeviceId, DeviceList, EncryptedElement, IdentityKey, Machine, Namespace,
    OmemoChanges, Payload, Plaintext, Recipient, Sender, SessionList,
};
use matrix_sdk::ruma::MilliSecondsSinceUnixEpoch;
use minidom::Element;
use rand::rngs::OsRng;

/// The namespace of PEP requests and answers.
pub(super) const PUBSUB: &str = "http://jabber.org/protocol/pubsub";

/// A contact with one device, which speaks one form of OMEMO.
pub(super) struct Member {
    jid: String,
    account: Account,
    namespace: Namespace,
    /// By the bare JID at the other end, which has one device.
    chats: BTreeMap<String, Chat>,
}

/// What is known of the device at the other end.
struct Chat {
    device: DeviceId,
    sessions: SessionList,
    pinned: Option<IdentityKey>,
}

impl Member {
    pub(super) fn new(jid: String, namespace: Namespace) -> Result<Self> {
        let account = Account::generate(now()?, &mut OsRng);
        Ok(Self { jid, account, namespace, chats: BTreeMap::new() })
    }

    pub(super) fn jid(&self) -> &str {
        &self.jid
    }

    /// What a PEP service answers to a request for items; `None` where there are none.
    pub(super) fn items(&self, request: &Element) -> Option<Element> {
        let node = request.get_child("items", PUBSUB)?.attr("node")?;
        let device = self.account.device_id();
        let (bundles, bundle_item) = Bundle::node_and_item(self.namespace, device);
        let (item, content) = if node == self.namespace.device_list_node() {
            ("current", DeviceList::new(vec![device]).to_element(self.namespace))
        } else if node == bundles {
            (bundle_item.as_str(), self.account.bundle(self.namespace).to_element())
        } else {
            return None;
        };
        let content = String::from(&content);
        let answer = format!(
            "<pubsub xmlns='{PUBSUB}'><items node='{node}'><item id='{item}'>{content}</item></items></pubsub>"
        );
        answer.parse().ok()
    }

    /// Opens a message; gives its text, where it has one.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(&mut self, from: &str, element: &Element) -> Result<Option<String>> {
        let encrypted = EncryptedElement::from_element(element)?;
        let known = self.chats.get(from).filter(|chat| chat.device == encrypted.sender());
        let sender = Sender {
            jid: from.to_owned(),
            sessions: known.map(|chat| chat.sessions.clone()),
            pinned: known.and_then(|chat| chat.pinned),
        };
        let opened = Machine::new(&self.account, &self.jid).decrypt(sender, &encrypted)?;
        self.save(opened.changes)?;
        Ok(match opened.plaintext {
            Some(Plaintext::Body(text)) => Some(text),
            Some(Plaintext::Envelope(envelope)) => envelope.body(),
            None => None,
        })
    }

    /// Encrypts a text to somebody who has written before.
    ///
    /// # Errors
    /// When they have not.
    pub(super) fn seal(&mut self, to: &str, text: &str) -> Result<Element> {
        let chat = self.chats.get(to).context("nobody has written to this contact yet")?;
        let recipient = Recipient {
            jid: to.to_owned(),
            device: chat.device,
            sessions: Some(chat.sessions.clone()),
            bundle: None,
            pinned: chat.pinned,
        };
        let payload = match self.namespace {
            Namespace::Legacy => Payload::Body(text.to_owned()),
            Namespace::V2 => {
                let body = Element::builder("body", "jabber:client").append(text).build();
                Payload::Content(vec![body])
            }
        };
        let machine = Machine::new(&self.account, &self.jid);
        let sealed = machine.encrypt(to, vec![recipient], &payload, now()?, &mut OsRng)?;
        if !sealed.failures.is_empty() {
            bail!("the device at the other end cannot be encrypted to");
        }
        self.save(sealed.changes)?;
        Ok(sealed.element.to_element())
    }

    fn save(&mut self, changes: OmemoChanges) -> Result<()> {
        if let Some(mut account) = changes.account {
            account.maintain(now()?, &mut OsRng);
            self.account = account;
        }
        for change in changes.sessions {
            let (device, sessions) = (change.device, change.sessions);
            let known = self.chats.get(&change.jid).filter(|chat| chat.device == device);
            let pinned = known.and_then(|chat| chat.pinned);
            self.chats.insert(change.jid, Chat { device, sessions, pinned });
        }
        for pin in changes.pins {
            if let Some(chat) = self.chats.get_mut(&pin.jid) {
                chat.pinned = Some(pin.identity);
            }
        }
        Ok(())
    }
}

fn now() -> Result<SystemTime> {
    MilliSecondsSinceUnixEpoch::now().to_system_time().context("the clock is out of range")
}
