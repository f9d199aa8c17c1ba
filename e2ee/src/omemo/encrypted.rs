//! The `<encrypted>` element: one payload, and its key for each receiving device.
//!
//! Spec: XEP-0384 0.3 section 4.4 and 0.9 section 5.4.

use minidom::Element;

use super::{Namespace, debug::hidden_debug, device_list::DeviceId, error::InvalidElement, wire};

hidden_debug!(EncryptedElement);

/// A parsed or freshly encrypted `<encrypted>` element. Nothing in it is trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptedElement {
    pub(crate) namespace: Namespace,
    pub(crate) sender: DeviceId,
    pub(crate) keys: Vec<KeyEntry>,
    /// Legacy only.
    pub(crate) iv: Option<[u8; 12]>,
    pub(crate) payload: Option<Vec<u8>>,
}

/// The payload's key for one device.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    /// Whose device; legacy headers do not say.
    pub(crate) jid: Option<String>,
    pub(crate) device: DeviceId,
    pub(crate) kind: KeyKind,
    pub(crate) data: Vec<u8>,
}

/// What the bytes of a [`KeyEntry`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    KeyExchange,
    Ratchet,
}

impl EncryptedElement {
    /// Reads an `<encrypted>` element of either namespace.
    ///
    /// # Errors
    /// [`InvalidElement`] when it is another element, malformed, or beyond [`super::limits`].
    pub fn from_element(element: &Element) -> Result<Self, InvalidElement> {
        match Namespace::from_uri(&element.ns()) {
            Some(Namespace::Legacy) if element.name() == "encrypted" => {
                wire::legacy_xml::read_encrypted(element)
            }
            Some(Namespace::V2) if element.name() == "encrypted" => {
                wire::v2_xml::read_encrypted(element)
            }
            _ => Err(InvalidElement::Name("encrypted")),
        }
    }

    /// The element to send.
    pub fn to_element(&self) -> Element {
        match self.namespace {
            Namespace::Legacy => wire::legacy_xml::write_encrypted(self),
            Namespace::V2 => wire::v2_xml::write_encrypted(self),
        }
    }

    /// Which version of OMEMO it is.
    pub const fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// The device that claims to have sent it: sessions are looked up by it.
    pub const fn sender(&self) -> DeviceId {
        self.sender
    }

    /// Whether it carries content. Without, it is an empty message, for the ratchet's sake only.
    pub const fn has_payload(&self) -> bool {
        self.payload.is_some()
    }

    /// Whether it holds a key for this device. Legacy headers name devices by number alone.
    pub fn is_for(&self, jid: &str, device: DeviceId) -> bool {
        self.find_key(jid, device).is_some()
    }

    pub(crate) fn find_key(&self, jid: &str, device: DeviceId) -> Option<&KeyEntry> {
        self.keys
            .iter()
            .find(|key| key.device == device && key.jid.as_deref().is_none_or(|named| named == jid))
    }
}
