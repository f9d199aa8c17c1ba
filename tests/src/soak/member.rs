//! One contact of the crowd: an OMEMO device that has one chat.

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
    chat: Option<Chat>,
}

/// What is known of the device at the other end.
struct Chat {
    jid: String,
    device: DeviceId,
    sessions: SessionList,
    pinned: Option<IdentityKey>,
}

impl Member {
    pub(super) fn new(jid: String, namespace: Namespace) -> Result<Self> {
        Ok(Self { jid, account: Account::generate(now()?, &mut OsRng), namespace, chat: None })
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
        let known = self.chat.as_ref().filter(|chat| chat.device == encrypted.sender());
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

    /// Encrypts a text to whoever wrote first; gives their bare JID too.
    ///
    /// # Errors
    /// When nobody has.
    pub(super) fn seal(&mut self, text: &str) -> Result<(String, Element)> {
        let chat = self.chat.as_ref().context("nobody has written to this contact yet")?;
        let recipient = Recipient {
            jid: chat.jid.clone(),
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
        let sealed = machine.encrypt(&chat.jid, vec![recipient], &payload, now()?, &mut OsRng)?;
        if !sealed.failures.is_empty() {
            bail!("the device at the other end cannot be encrypted to");
        }
        let to = chat.jid.clone();
        self.save(sealed.changes)?;
        Ok((to, sealed.element.to_element()))
    }

    fn save(&mut self, changes: OmemoChanges) -> Result<()> {
        if let Some(mut account) = changes.account {
            account.maintain(now()?, &mut OsRng);
            self.account = account;
        }
        for change in changes.sessions {
            let pinned = self.chat.take().filter(|chat| chat.device == change.device);
            let pinned = pinned.and_then(|chat| chat.pinned);
            let (jid, device, sessions) = (change.jid, change.device, change.sessions);
            self.chat = Some(Chat { jid, device, sessions, pinned });
        }
        for pin in changes.pins {
            if let Some(chat) = self.chat.as_mut().filter(|chat| chat.device == pin.device) {
                chat.pinned = Some(pin.identity);
            }
        }
        Ok(())
    }
}

fn now() -> Result<SystemTime> {
    MilliSecondsSinceUnixEpoch::now().to_system_time().context("the clock is out of range")
}
