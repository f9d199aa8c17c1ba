//! The name, as vCards (XEP-0054, XEP-0292).

use minidom::Element;

use crate::xmpp::xml::El;

pub(in crate::xmpp) const TEMP: &str = "vcard-temp";
pub(super) const V4: &str = "urn:ietf:params:xml:ns:vcard-4.0";
/// The PEP node of the vCard 4.
pub(super) const NODE: &str = "urn:xmpp:vcard4";

pub(super) fn temp(name: Option<&str>) -> Element {
    El::new("vCard", TEMP).children(name.map(|name| El::new("FN", TEMP).text(name).build())).build()
}

pub(super) fn v4(name: Option<&str>) -> Element {
    let name = name.map(|name| El::new("fn", V4).child(El::new("text", V4).text(name)).build());
    El::new("vcard", V4).children(name).build()
}

/// The full name in a contact's vCard of the old kind.
pub(in crate::xmpp) fn read_temp(vcard: &Element) -> Option<String> {
    vcard.get_child("FN", TEMP).map(Element::text)
}
