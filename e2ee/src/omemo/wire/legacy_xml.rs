//! `<encrypted xmlns='eu.siacs.conversations.axolotl'>`.
//!
//! Spec: XEP-0384 0.3 section 4.4.

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

const NS: &str = Namespace::Legacy.uri();

pub(crate) fn read_encrypted(element: &Element) -> Result<EncryptedElement, InvalidElement> {
    let header = element.get_child("header", NS).ok_or(InvalidElement::Missing("header"))?;
    let entries = header.children().filter(|child| child.is("key", NS));
    let entries = entries.take(MAX_KEY_ENTRIES + 1);
    let keys = entries.filter_map(read_key).collect::<Result<Vec<_>, _>>()?;
    if keys.len() > MAX_KEY_ENTRIES {
        return Err(InvalidElement::TooLarge("key"));
    }
    let iv = header.get_child("iv", NS).ok_or(InvalidElement::Missing("iv"))?;
    let iv = decode_base64(&iv.text(), MAX_KEY_BYTES, "iv")?;
    let payload = element.get_child("payload", NS);
    let payload = payload.map(|p| decode_base64(&p.text(), MAX_PAYLOAD_BYTES, "payload"));
    Ok(EncryptedElement {
        namespace: Namespace::Legacy,
        sender: DeviceId::parse(header.attr("sid"), "header")?,
        keys,
        iv: Some(iv.try_into().map_err(|_| InvalidElement::Length("iv"))?),
        payload: payload.transpose()?,
    })
}

/// `None` for a device that cannot exist: the key is not ours.
fn read_key(element: &Element) -> Option<Result<KeyEntry, InvalidElement>> {
    let device = DeviceId::parse(element.attr("rid"), "key").ok()?;
    let data = decode_base64(&element.text(), MAX_KEY_BYTES, "key");
    Some(data.map(|data| KeyEntry {
        jid: None,
        device,
        kind: match element.attr("prekey") {
            Some("true" | "1") => KeyKind::KeyExchange,
            _ => KeyKind::Ratchet,
        },
        data,
    }))
}

pub(crate) fn write_encrypted(encrypted: &EncryptedElement) -> Element {
    let mut header = Element::builder("header", NS)
        .attr(xml_ncname!("sid").into(), encrypted.sender.value())
        .append_all(encrypted.keys.iter().map(write_key));
    if let Some(iv) = encrypted.iv {
        header = header.append(Element::builder("iv", NS).append(STANDARD.encode(iv)).build());
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
        KeyKind::KeyExchange => element.attr(xml_ncname!("prekey").into(), "true"),
        KeyKind::Ratchet => element,
    };
    element.append(STANDARD.encode(&key.data)).build()
}
