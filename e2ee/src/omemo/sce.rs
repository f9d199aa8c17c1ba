//! Stanza content encryption: the envelope inside `urn:xmpp:omemo:2` payloads.
//!
//! Spec: XEP-0420, and its profile in XEP-0384 0.9 section 5.4: `rpad` is required, `from` and
//! `to` are checked where they are present. With what starts a session `from` is required too.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use minidom::Element;
use rand_core::{CryptoRng, RngCore};
use rxml::{Event, Parse as _, Parser, xml_ncname};

use super::{
    debug::hidden_debug,
    error::{DecryptError, EncryptError},
    limits::MAX_ENVELOPE_DEPTH,
    payload::{Naming, Route},
};

hidden_debug!(Envelope);

const NS: &str = "urn:xmpp:sce:1";

/// XEP-0420 asks for up to 200 characters of random length.
const MAX_PADDING: u32 = 200;

/// A decrypted envelope.
#[derive(Clone, PartialEq)]
pub struct Envelope {
    /// The elements that were encrypted.
    pub content: Vec<Element>,
    /// When the sender says it was written.
    pub sent_at: Option<SystemTime>,
}

impl Envelope {
    /// The text of the first `<body xmlns='jabber:client'>`.
    pub fn body(&self) -> Option<String> {
        self.content.iter().find(|child| child.is("body", "jabber:client")).map(Element::text)
    }
}

/// Writes an envelope with all affix elements.
pub(crate) fn write(
    content: &[Element],
    route: Route<'_>,
    now: SystemTime,
    rng: &mut (impl CryptoRng + RngCore),
) -> Result<Vec<u8>, EncryptError> {
    let address = |name: &str, jid: &str| {
        Element::builder(name, NS).attr(xml_ncname!("jid").into(), jid).build()
    };
    let stamp = DateTime::<Utc>::from(now).to_rfc3339_opts(SecondsFormat::Secs, true);
    let time = Element::builder("time", NS).attr(xml_ncname!("stamp").into(), stamp);
    let envelope = Element::builder("envelope", NS)
        .append(Element::builder("content", NS).append_all(content.iter().cloned()).build())
        .append(Element::builder("rpad", NS).append(padding(rng)).build())
        .append(address("from", route.from))
        .append(address("to", route.to))
        .append(time.build())
        .build();
    let mut bytes = Vec::new();
    envelope.write_to(&mut bytes).map_err(|_| EncryptError::Xml)?;
    Ok(bytes)
}

fn padding(rng: &mut (impl CryptoRng + RngCore)) -> String {
    let length = rng.next_u32() % (MAX_PADDING + 1);
    let letter = |bits: u32| char::from(b'a' + u8::try_from(bits % 26).unwrap_or(0));
    (0..length).map(|_| letter(rng.next_u32())).collect()
}

/// Reads an envelope and holds its affix elements against who wrote to whom.
pub(crate) fn read(
    bytes: &[u8],
    route: Route<'_>,
    naming: Naming,
) -> Result<Envelope, DecryptError> {
    check_depth(bytes)?;
    let envelope = Element::from_reader(bytes).map_err(|_| DecryptError::Envelope("not XML"))?;
    if !envelope.is("envelope", NS) {
        return Err(DecryptError::Envelope("no <envelope> element"));
    }
    find_affix(&envelope, "rpad")?.ok_or(DecryptError::Envelope("no <rpad> element"))?;
    if naming == Naming::Required {
        find_affix(&envelope, "from")?.ok_or(DecryptError::Affix("from"))?;
    }
    check_address(&envelope, "from", route.from)?;
    check_address(&envelope, "to", route.to)?;
    let content =
        find_affix(&envelope, "content")?.ok_or(DecryptError::Envelope("no <content> element"))?;
    Ok(Envelope { content: content.children().cloned().collect(), sent_at: read_time(&envelope)? })
}

/// The tree is only built when it is shallow: building and dropping it are recursive.
fn check_depth(mut bytes: &[u8]) -> Result<(), DecryptError> {
    let mut parser = Parser::default();
    let mut depth = 0_usize;
    loop {
        match parser.parse(&mut bytes, true) {
            Ok(Some(Event::StartElement(..))) => depth += 1,
            Ok(Some(Event::EndElement(..))) => depth = depth.saturating_sub(1),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(()),
            Err(_) => return Err(DecryptError::Envelope("not XML")),
        }
        if depth > MAX_ENVELOPE_DEPTH {
            return Err(DecryptError::Envelope("elements nested too deep"));
        }
    }
}

fn find_affix<'a>(
    envelope: &'a Element,
    name: &'static str,
) -> Result<Option<&'a Element>, DecryptError> {
    let mut found = envelope.children().filter(|child| child.is(name, NS));
    let first = found.next();
    if found.next().is_some() { Err(DecryptError::Affix(name)) } else { Ok(first) }
}

fn check_address(
    envelope: &Element,
    name: &'static str,
    expected: &str,
) -> Result<(), DecryptError> {
    let Some(element) = find_affix(envelope, name)? else { return Ok(()) };
    let jid = element.attr("jid").ok_or(DecryptError::Affix(name))?;
    let bare = jid.split_once('/').map_or(jid, |(bare, _)| bare);
    if bare == expected { Ok(()) } else { Err(DecryptError::Affix(name)) }
}

fn read_time(envelope: &Element) -> Result<Option<SystemTime>, DecryptError> {
    let Some(element) = find_affix(envelope, "time")? else { return Ok(None) };
    let stamp = element.attr("stamp").and_then(|stamp| DateTime::parse_from_rfc3339(stamp).ok());
    stamp.map(|stamp| Some(stamp.into())).ok_or(DecryptError::Affix("time"))
}
