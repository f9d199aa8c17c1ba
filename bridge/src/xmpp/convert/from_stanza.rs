//! From message stanzas to the seam's events.
//!
//! Specs: as in [`super::from_matrix`], and XEP-0203 (delay). Nothing here is trusted: the caller
//! has checked who it comes from.

use e2ee::omemo::{Namespace, Plaintext};
use minidom::Element;
use xmpp_parsers::date::DateTime;

use crate::network::{MessageContent, RemoteMessageId};

use crate::xmpp::{
    stanza::{self, Address},
    xml::{COMPONENT, DELAY, EME, RECEIPTS},
};

/// Longest id that is carried on.
const MAX_ID_BYTES: usize = 512;
/// What clients put beside a body that only stands in for something encrypted.
const OTHER_ENCRYPTION: [&str; 2] = ["jabber:x:encrypted", "urn:xmpp:openpgp:0"];

/// What a message stanza is for us.
#[derive(Clone, PartialEq)]
pub(in crate::xmpp) enum Incoming {
    /// A person's message, or an empty OMEMO message.
    Message(Message),
    /// A receipt for a message of ours.
    Delivered(RemoteMessageId),
    /// A message of ours was refused.
    Failed(RemoteMessageId, String),
    /// Nothing that is carried: chat states, carbons, headlines, rooms.
    Ignored,
}

/// A message that came from a contact.
#[derive(Clone, PartialEq)]
pub(in crate::xmpp) struct Message {
    pub id: Option<RemoteMessageId>,
    pub body: Body,
    /// Where a receipt goes, if one was asked for.
    pub receipt_to: Option<Address>,
    /// When it was sent, if it was delayed; milliseconds since 1970.
    pub sent_at_ms: Option<u64>,
}

/// How a message is written.
#[derive(Clone, PartialEq)]
pub(in crate::xmpp) enum Body {
    /// `<encrypted>` elements, the namespace to prefer first. Fallback text is not looked at.
    Omemo(Vec<Element>),
    /// Encrypted in a way that this bridge does not know.
    OtherEncryption,
    /// In the clear.
    Plain(String),
}

/// Sorts a message stanza.
pub(in crate::xmpp) fn read(stanza: &Element) -> Incoming {
    let id = stanza
        .attr("id")
        .filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES)
        .map(RemoteMessageId::new);
    match stanza.attr("type") {
        // A client's own error says nothing about the contact's other clients.
        Some("error") if stanza.attr("from").is_some_and(|from| from.contains('/')) => {
            return Incoming::Ignored;
        }
        Some("error") => {
            let reason = reason(&stanza::error_condition(stanza));
            return id.map_or(Incoming::Ignored, |id| Incoming::Failed(id, reason));
        }
        Some("groupchat" | "headline") => return Incoming::Ignored,
        _ => {}
    }
    if is_forwarded(stanza) {
        return Incoming::Ignored;
    }
    let Some(body) = read_body(stanza) else {
        return stanza
            .get_child("received", RECEIPTS)
            .and_then(|received| received.attr("id"))
            .map_or(Incoming::Ignored, |id| Incoming::Delivered(RemoteMessageId::new(id)));
    };
    let receipt_to = stanza
        .get_child("request", RECEIPTS)
        .filter(|_| id.is_some())
        .and_then(|_| Address::parse(stanza.attr("from")?));
    Incoming::Message(Message { id, body, receipt_to, sent_at_ms: read_delay(stanza) })
}

/// Carbons and archives are for accounts: a component has none, so whoever sends one to us has
/// forged it.
fn is_forwarded(stanza: &Element) -> bool {
    stanza.children().any(|child| {
        child.ns() == "urn:xmpp:carbons:2" && matches!(child.name(), "sent" | "received")
            || child.ns().starts_with("urn:xmpp:mam:")
    })
}

fn read_body(stanza: &Element) -> Option<Body> {
    let omemo: Vec<Element> = Namespace::ALL
        .into_iter()
        .filter_map(|namespace| stanza.get_child("encrypted", namespace.uri()).cloned())
        .collect();
    if !omemo.is_empty() {
        return Some(Body::Omemo(omemo));
    }
    let is_encrypted = stanza.has_child("encryption", EME)
        || stanza.children().any(|child| OTHER_ENCRYPTION.contains(&child.ns().as_str()));
    if is_encrypted {
        return Some(Body::OtherEncryption);
    }
    let text = stanza.get_child("body", COMPONENT)?.text();
    (!text.is_empty()).then_some(Body::Plain(text))
}

fn read_delay(stanza: &Element) -> Option<u64> {
    let stamp = stanza.get_child("delay", DELAY)?.attr("stamp")?;
    u64::try_from(stamp.parse::<DateTime>().ok()?.0.timestamp_millis()).ok()
}

/// What a text says.
pub(in crate::xmpp) fn content(text: &str) -> MessageContent {
    match text.strip_prefix("/me ") {
        Some(action) => MessageContent::Emote { body: action.to_owned() },
        None => MessageContent::Text { body: text.to_owned() },
    }
}

/// The text of a decrypted message; `None` when it carries something else.
pub(in crate::xmpp) fn decrypted_text(plaintext: &Plaintext) -> Option<String> {
    let text = match plaintext {
        Plaintext::Body(text) => Some(text.clone()),
        Plaintext::Envelope(envelope) => envelope.body(),
    };
    text.filter(|text| !text.is_empty())
}

/// A stanza error in words, for the author of the message.
pub(in crate::xmpp) fn reason(condition: &str) -> String {
    match condition {
        "remote-server-not-found" => "the contact's server cannot be found",
        "remote-server-timeout" => "the contact's server cannot be reached",
        "service-unavailable" | "item-not-found" | "recipient-unavailable" => {
            "the contact does not exist or cannot receive messages now"
        }
        "forbidden" | "not-allowed" | "not-authorized" | "policy-violation" => {
            "the contact's server does not allow it"
        }
        "not-acceptable" => "the contact does not accept messages from this address",
        "resource-constraint" => "the contact's server is too busy or their store is full",
        _ => "the contact's server has refused it",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(attributes: &str, inner: &str) -> Incoming {
        parse_from("bob@example.org/phone", attributes, inner)
    }

    fn parse_from(from: &str, attributes: &str, inner: &str) -> Incoming {
        read(
            &format!(
                "<message xmlns='jabber:component:accept' from='{from}' to='a%b@c' \
                 {attributes}>{inner}</message>"
            )
            .parse()
            .unwrap(),
        )
    }

    #[test]
    fn a_plain_message_with_all_trimmings() {
        let incoming = parse(
            "id='m1' type='chat'",
            "<body>hi</body><request xmlns='urn:xmpp:receipts'/>\
             <delay xmlns='urn:xmpp:delay' stamp='2001-09-09T01:46:40Z'/>",
        );
        assert!(
            incoming
                == Incoming::Message(Message {
                    id: Some(RemoteMessageId::new("m1")),
                    body: Body::Plain("hi".into()),
                    receipt_to: Address::parse("bob@example.org/phone"),
                    sent_at_ms: Some(1_000_000_000_000),
                })
        );
    }

    #[test]
    fn the_fallback_of_an_encrypted_message_is_not_read() {
        let omemo = "<encrypted xmlns='urn:xmpp:omemo:2'/><body>fallback</body>";
        assert!(
            matches!(parse("", omemo), Incoming::Message(Message { body: Body::Omemo(found), .. }) if found.len() == 1)
        );
        for other in [
            "<encryption xmlns='urn:xmpp:eme:0' namespace='urn:x'/><body>fallback</body>",
            "<x xmlns='jabber:x:encrypted'>…</x><body>fallback</body>",
            "<openpgp xmlns='urn:xmpp:openpgp:0'>…</openpgp><body>fallback</body>",
        ] {
            assert!(matches!(
                parse("", other),
                Incoming::Message(Message { body: Body::OtherEncryption, .. })
            ));
        }
    }

    #[test]
    fn what_is_not_carried() {
        let forwarded = "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' \
                         from='victim@x'><body>forged</body></message></forwarded>";
        for (attributes, inner) in [
            ("type='groupchat'", "<body>hi</body>".to_owned()),
            ("type='headline'", "<body>hi</body>".to_owned()),
            (
                "type='chat'",
                "<composing xmlns='http://jabber.org/protocol/chatstates'/>".to_owned(),
            ),
            ("type='chat'", "<body/>".to_owned()),
            ("type='chat'", format!("<received xmlns='urn:xmpp:carbons:2'>{forwarded}</received>")),
            (
                "type='chat'",
                format!("<sent xmlns='urn:xmpp:carbons:2'>{forwarded}</sent><body>x</body>"),
            ),
            (
                "",
                format!("<result xmlns='urn:xmpp:mam:2' id='1'>{forwarded}</result><body>x</body>"),
            ),
            ("type='error'", "<body>no id</body>".to_owned()),
        ] {
            assert!(parse(attributes, &inner) == Incoming::Ignored, "{inner}");
        }
    }

    #[test]
    fn receipts_and_errors_name_the_message() {
        let receipt = parse("id='r'", "<received xmlns='urn:xmpp:receipts' id='m1'/>");
        assert!(receipt == Incoming::Delivered(RemoteMessageId::new("m1")));
        let bounce = "<body>returned</body><error type='cancel'><remote-server-not-found \
                      xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        assert!(parse("id='m2' type='error'", bounce) == Incoming::Ignored, "one client's own");
        let error = parse_from("bob@example.org", "id='m2' type='error'", bounce);
        let reason = "the contact's server cannot be found".to_owned();
        assert!(error == Incoming::Failed(RemoteMessageId::new("m2"), reason));
    }

    #[test]
    fn me_is_an_emote() {
        assert!(content("/me waves") == MessageContent::Emote { body: "waves".into() });
        assert!(content("/meow") == MessageContent::Text { body: "/meow".into() });
    }
}
