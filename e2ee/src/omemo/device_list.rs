//! Device ids and the lists of them that accounts publish.
//!
//! Spec: XEP-0384 0.3 section 4.2 and 0.9 section 5.3.1.

use std::fmt;

use minidom::Element;
use rand_core::{CryptoRng, RngCore};
use rxml::xml_ncname;
use serde::{Deserialize, Serialize};

use super::{Namespace, error::InvalidElement, limits::MAX_DEVICES};

/// A device's number, 1 to 2^31 - 1, unique within an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct DeviceId(u32);

impl DeviceId {
    const MAX: u32 = (1 << 31) - 1;

    /// The id, if it is in range.
    pub const fn new(id: u32) -> Option<Self> {
        if id >= 1 && id <= Self::MAX { Some(Self(id)) } else { None }
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Picks an id at random.
    pub fn random(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        loop {
            if let Some(id) = Self::new(rng.next_u32() >> 1) {
                return id;
            }
        }
    }

    pub(crate) fn parse(text: Option<&str>, element: &'static str) -> Result<Self, InvalidElement> {
        let id = text.and_then(|text| text.parse().ok()).and_then(Self::new);
        id.ok_or(InvalidElement::Id(element))
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<DeviceId> for u32 {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

impl TryFrom<u32> for DeviceId {
    type Error = &'static str;

    fn try_from(id: u32) -> Result<Self, Self::Error> {
        Self::new(id).ok_or("not a device id")
    }
}

/// The devices an account has announced in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceList {
    /// The devices, without repetition, in the order of the list.
    pub devices: Vec<DeviceId>,
    /// How many entries were left out: invalid ids, and all beyond [`MAX_DEVICES`].
    pub dropped: usize,
}

impl DeviceList {
    /// A list of these devices.
    pub const fn new(devices: Vec<DeviceId>) -> Self {
        Self { devices, dropped: 0 }
    }

    /// Reads a `<list>` (legacy) or `<devices>` (omemo:2) element. Its namespace says which.
    ///
    /// # Errors
    /// [`InvalidElement::Name`] for any other element.
    pub fn from_element(namespace: Namespace, element: &Element) -> Result<Self, InvalidElement> {
        let name = element_name(namespace);
        if !element.is(name, namespace.uri()) {
            return Err(InvalidElement::Name(name));
        }
        let mut list = Self::default();
        let entries = element.children().filter(|child| child.is("device", namespace.uri()));
        for entry in entries {
            match DeviceId::parse(entry.attr("id"), "device") {
                Ok(id) if list.devices.contains(&id) => {}
                Ok(id) if list.devices.len() < MAX_DEVICES => list.devices.push(id),
                _ => list.dropped += 1,
            }
        }
        Ok(list)
    }

    /// The element to publish.
    pub fn to_element(&self, namespace: Namespace) -> Element {
        let uri = namespace.uri();
        let entries = self.devices.iter().map(|id| {
            Element::builder("device", uri).attr(xml_ncname!("id").into(), id.value()).build()
        });
        Element::builder(element_name(namespace), uri).append_all(entries).build()
    }
}

const fn element_name(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::Legacy => "list",
        Namespace::V2 => "devices",
    }
}
