//! `<encrypted xmlns='urn:xmpp:omemo:2'>`.
//!
//! Spec: XEP-0384 0.9 section 5.4.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minidom::Element;
use rxml::xml_ncname;

use super::decode_base64;
use crate::omemo::{
    Namespace,
    device_list::DeviceId,
    encrypted::{EncryptedElement, KeyEntry, KeyKind},
    error::InvalidElement,
    limits::{MAX_KEY_BYTES, MAX_KEY_ENTRIES, MAX_PAYLOAD_BYTES},
};

const NS: &str = Namespace::V2.uri();

pub(crate) fn read_encrypted(element: &Element) -> Result<EncryptedElement, InvalidElement> {
    let header = element.get_child("header", NS).ok_or(InvalidElement::Missing("header"))?;
    let mut keys = Vec::new();
    for owner in header.children().filter(|child| child.is("keys", NS)) {
        let jid = owner.attr("jid").ok_or(InvalidElement::Missing("keys"))?;
        for key in owner.children().filter(|child| child.is("key", NS)) {
            if keys.len() == MAX_KEY_ENTRIES {
                return Err(InvalidElement::TooLarge("key"));
            }
            if let Some(key) = read_key(jid, key) {
                keys.push(key?);
            }
        }
    }
    let payload = element.get_child("payload", NS);
    let payload = payload.map(|p| decode_base64(&p.text(), MAX_PAYLOAD_BYTES, "payload"));
    Ok(EncryptedElement {
        namespace: Namespace::V2,
        sender: DeviceId::parse(header.attr("sid"), "header")?,
        keys,
        iv: None,
        payload: payload.transpose()?,
    })
}

/// `None` for a device that cannot exist: the key is not ours.
fn read_key(jid: &str, element: &Element) -> Option<Result<KeyEntry, InvalidElement>> {
    let device = DeviceId::parse(element.attr("rid"), "key").ok()?;
    let data = decode_base64(&element.text(), MAX_KEY_BYTES, "key");
    Some(data.map(|data| KeyEntry {
        jid: Some(jid.to_owned()),
        device,
        kind: match element.attr("kex") {
            Some("true" | "1") => KeyKind::KeyExchange,
            _ => KeyKind::Ratchet,
        },
        data,
    }))
}

pub(crate) fn write_encrypted(encrypted: &EncryptedElement) -> Element {
    let mut header =
        Element::builder("header", NS).attr(xml_ncname!("sid").into(), encrypted.sender.value());
    for owner in encrypted.keys.chunk_by(|one, next| one.jid == next.jid) {
        let jid = owner.first().and_then(|key| key.jid.as_deref()).unwrap_or_default();
        let keys = Element::builder("keys", NS)
            .attr(xml_ncname!("jid").into(), jid)
            .append_all(owner.iter().map(write_key));
        header = header.append(keys.build());
    }
    let mut element = Element::builder("encrypted", NS).append(header.build());
    if let Some(payload) = &encrypted.payload {
        let payload = Element::builder("payload", NS).append(STANDARD.encode(payload));
        element = element.append(payload.build());
    }
    element.build()
}

fn write_key(key: &KeyEntry) -> Element {
    let element = Element::builder("key", NS).attr(xml_ncname!("rid").into(), key.device.value());
    let element = match key.kind {
        KeyKind::KeyExchange => element.attr(xml_ncname!("kex").into(), "true"),
        KeyKind::Ratchet => element,
    };
    element.append(STANDARD.encode(&key.data)).build()
}
