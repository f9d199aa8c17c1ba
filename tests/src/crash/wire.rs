//! What went over the wire: message stanzas, and the places in ratchets that their keys belong to.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::Method;
use minidom::Element;
use prost::Message as _;
use serde_json::Value;
use vodozemac::base64_decode;
use vodozemac::megolm::MegolmMessage;

use crate::evil_hs::Request;
use crate::omemo::Namespace;

/// The namespace of a component's stream.
const STANZAS: &str = "jabber:component:accept";

/// libsignal's version byte and the tag behind its messages.
const LEGACY_VERSION: usize = 1;
const LEGACY_TAG: usize = 8;

/// A place in a ratchet: whose key may encrypt one text and no other.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// Of a room key.
    Megolm {
        /// The session.
        session: String,
        /// The message's index in it.
        index: u32,
    },
    /// Of a session with one device.
    Omemo {
        /// The sender's ratchet key.
        ratchet_key: Vec<u8>,
        /// The message's number under it.
        number: u32,
    },
}

/// Every place that was used, with what it was used for.
#[derive(Debug, Default)]
pub struct Positions {
    used: BTreeMap<Position, BTreeSet<Vec<u8>>>,
}

impl Positions {
    /// Takes note of what the bridge has sent into rooms.
    pub fn add_request(&mut self, request: &Request) {
        if request.method == Method::PUT
            && request.path.contains("/send/m.room.encrypted/")
            && let Some((position, ciphertext)) = megolm_position(&request.body)
        {
            self.add(position, ciphertext);
        }
    }

    /// Takes note of what the bridge has sent to XMPP.
    pub fn add_stanza(&mut self, stanza: &Element) {
        for (namespace, key) in omemo_keys(stanza) {
            if let Some((position, ciphertext)) = omemo_position(namespace, &key) {
                self.add(position, ciphertext);
            }
        }
    }

    /// How often a place was used for a second text. The same bytes again are a repetition.
    pub fn reused(&self) -> usize {
        self.used.values().map(|texts| texts.len() - 1).sum()
    }

    /// Whether keys of both kinds were seen.
    pub fn has_both(&self) -> bool {
        let is_megolm = |position: &Position| matches!(position, Position::Megolm { .. });
        self.used.keys().any(is_megolm) && !self.used.keys().all(is_megolm)
    }

    fn add(&mut self, position: Position, ciphertext: Vec<u8>) {
        self.used.entry(position).or_default().insert(ciphertext);
    }
}

fn megolm_position(content: &Value) -> Option<(Position, Vec<u8>)> {
    let session = content.get("session_id")?.as_str()?.to_owned();
    let ciphertext = content.get("ciphertext")?.as_str()?;
    let index = MegolmMessage::from_base64(ciphertext).ok()?.message_index();
    Some((Position::Megolm { session, index }, ciphertext.into()))
}

/// One key for one device, and whether a key exchange is around it.
struct DeviceKey {
    bytes: Vec<u8>,
    is_exchange: bool,
}

fn omemo_keys(stanza: &Element) -> Vec<(Namespace, DeviceKey)> {
    let mut keys = Vec::new();
    for namespace in Namespace::BOTH {
        let (uri, exchange) = match namespace {
            Namespace::Legacy => (namespace.uri(), "prekey"),
            Namespace::Omemo2 => (namespace.uri(), "kex"),
        };
        let header = stanza.get_child("encrypted", uri).and_then(|it| it.get_child("header", uri));
        let Some(header) = header else { continue };
        // Legacy keys stand in the header, those of omemo:2 in a group for each account.
        let groups = header.children().filter(|child| child.name() == "keys");
        let all = header.children().chain(groups.flat_map(Element::children));
        for key in all.filter(|child| child.name() == "key") {
            let is_exchange = matches!(key.attr(exchange), Some("true" | "1"));
            if let Ok(bytes) = base64_decode(key.text().trim().trim_end_matches('=')) {
                keys.push((namespace, DeviceKey { bytes, is_exchange }));
            }
        }
    }
    keys
}

fn omemo_position(namespace: Namespace, key: &DeviceKey) -> Option<(Position, Vec<u8>)> {
    let mut bytes = key.bytes.clone();
    if key.is_exchange {
        bytes = match namespace {
            Namespace::Legacy => LegacyExchange::decode(bytes.get(LEGACY_VERSION..)?).ok()?.message,
            Namespace::Omemo2 => Omemo2Exchange::decode(bytes.as_slice()).ok()?.message,
        };
    }
    let (ratchet_key, number) = match namespace {
        Namespace::Legacy => {
            let end = bytes.len().checked_sub(LEGACY_TAG)?;
            let message = LegacyMessage::decode(bytes.get(LEGACY_VERSION..end)?).ok()?;
            (message.ratchet_key, message.number)
        }
        Namespace::Omemo2 => {
            let outer = Omemo2Authenticated::decode(bytes.as_slice()).ok()?;
            let message = Omemo2Message::decode(outer.message.as_slice()).ok()?;
            (message.ratchet_key, message.number)
        }
    };
    Some((Position::Omemo { ratchet_key, number }, bytes))
}

#[derive(Clone, PartialEq, prost::Message)]
struct LegacyExchange {
    #[prost(bytes = "vec", tag = "4")]
    message: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LegacyMessage {
    #[prost(bytes = "vec", tag = "1")]
    ratchet_key: Vec<u8>,
    #[prost(uint32, tag = "2")]
    number: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Omemo2Exchange {
    #[prost(bytes = "vec", tag = "5")]
    message: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Omemo2Authenticated {
    #[prost(bytes = "vec", tag = "2")]
    message: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Omemo2Message {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(bytes = "vec", tag = "3")]
    ratchet_key: Vec<u8>,
}

/// The whole message stanzas of one direction of a stream, in order.
pub fn messages(stream: &[u8]) -> Vec<Element> {
    const END: &str = "</message>";
    let text = String::from_utf8_lossy(stream);
    let prefixes = BTreeMap::from([(None, STANZAS.to_owned())]);
    // No stanza of a component's stream holds another one.
    text.split_inclusive(END)
        .filter_map(|part| {
            let stanza = part.get(part.rfind("<message")?..)?;
            Element::from_reader_with_prefixes(stanza.as_bytes(), prefixes.clone()).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_of_a_stream_are_found() {
        let stream = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept'><handshake/>\
            <message id='1'><body>one</body></message><iq type='get'/><message id='2'><body>two";
        let found = messages(stream.as_bytes());
        assert_eq!(found.iter().filter_map(|it| it.attr("id")).collect::<Vec<_>>(), ["1"]);
    }

    #[test]
    fn a_place_that_is_used_for_a_second_text_counts_once_for_it() {
        let stanza = |text: &str| {
            let message = LegacyMessage { ratchet_key: vec![1], number: 7 }.encode_to_vec();
            let bytes = [&[0x33][..], &message, text.as_bytes()].concat();
            let key = vodozemac::base64_encode(bytes);
            let uri = Namespace::Legacy.uri();
            let xml = format!(
                "<message id='1'><encrypted xmlns='{uri}'><header sid='1'><key rid='2'>{key}</key>\
                 </header></encrypted></message>"
            );
            messages(xml.as_bytes()).remove(0)
        };
        let mut positions = Positions::default();
        positions.add_stanza(&stanza("8 bytes."));
        positions.add_stanza(&stanza("8 bytes."));
        assert_eq!((positions.used.len(), positions.reused()), (1, 0), "the same again");
        positions.add_stanza(&stanza("8 others"));
        assert_eq!((positions.used.len(), positions.reused()), (1, 1));
    }
}
