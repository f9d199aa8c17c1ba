//! From the seam's messages to stanzas.
//!
//! Specs: RFC 6121 section 5, XEP-0184 (receipts), XEP-0245 (`/me`), XEP-0334 (hints), XEP-0359
//! (origin-id), XEP-0380 (EME).

use e2ee::omemo::{EncryptedElement, Namespace, Payload};
use jid::BareJid;
use minidom::Element;

use crate::network::{Author, LegSecurity, MessageContent, OutgoingMessage, RemoteMessageId};

use crate::xmpp::xml::{EME, El, HINTS, RECEIPTS, STANZA_ID};

/// What somebody without OMEMO sees.
const FALLBACK: &str =
    "This message is encrypted with OMEMO, which this client does not support or has switched off.";

/// The text of a message as XMPP clients write it.
pub(in crate::xmpp) fn text(content: &MessageContent) -> String {
    match content {
        MessageContent::Text { body } => body.clone(),
        MessageContent::Emote { body } => format!("/me {body}"),
    }
}

/// Stands before what the bridge encrypts to a contact though it came to the bridge in the clear.
const PLAINTEXT_MARK: &str = "⚠️ not encrypted on Matrix: ";

/// As [`text`], for an encrypted message: it promises no more than there was on its whole way.
pub(in crate::xmpp) fn text_to_encrypt(message: &OutgoingMessage) -> String {
    let is_persons = matches!(message.chat.local, Author::Person(_));
    if !is_persons || message.security != LegSecurity::Plaintext {
        return text(&message.content);
    }
    let mark = |body: &str| format!("{PLAINTEXT_MARK}{body}");
    text(&match &message.content {
        MessageContent::Text { body } => MessageContent::Text { body: mark(body) },
        MessageContent::Emote { body } => MessageContent::Emote { body: mark(body) },
    })
}

/// What OMEMO is to encrypt.
pub(in crate::xmpp) fn payload(text: &str, namespace: Namespace) -> Payload {
    match namespace {
        Namespace::Legacy => Payload::Body(text.to_owned()),
        Namespace::V2 => {
            Payload::Content(vec![El::new("body", "jabber:client").text(text).build()])
        }
    }
}

/// From whom to whom.
#[derive(Clone, Copy)]
pub(in crate::xmpp) struct Route<'a> {
    pub from: &'a BareJid,
    pub to: &'a BareJid,
}

impl Route<'_> {
    fn message(self, id: &str) -> El {
        El::stanza("message")
            .attr("type", "chat")
            .attr("id", id)
            .attr("from", self.from.as_str())
            .attr("to", self.to.as_str())
    }
}

/// A person's message, encrypted; each of their devices reads one of the elements. What is said of
/// the encryption (XEP-0380) is said of the first.
pub(in crate::xmpp) fn encrypted_message(
    route: Route<'_>,
    id: &RemoteMessageId,
    encrypted: &[EncryptedElement],
) -> Element {
    let eme = encrypted.first().map(|element| {
        let namespace = element.namespace().uri();
        El::new("encryption", EME).attr("namespace", namespace).attr("name", "OMEMO").build()
    });
    let message = route
        .message(id.as_str())
        .child(El::stanza("body").text(FALLBACK))
        .children(encrypted.iter().map(EncryptedElement::to_element))
        .children(eme);
    with_hints(message, id)
}

/// A person's message in the clear.
pub(in crate::xmpp) fn plain_message(
    route: Route<'_>,
    id: &RemoteMessageId,
    text: &str,
) -> Element {
    with_hints(route.message(id.as_str()).child(El::stanza("body").text(text)), id)
}

fn with_hints(message: El, id: &RemoteMessageId) -> Element {
    message
        .child(El::new("request", RECEIPTS))
        .child(El::new("origin-id", STANZA_ID).attr("id", id.as_str()))
        .child(El::new("store", HINTS))
        .build()
}

/// An OMEMO message without content. It has no body and no EME, or clients would show it.
pub(in crate::xmpp) fn empty_message(
    route: Route<'_>,
    id: &str,
    encrypted: &EncryptedElement,
) -> Element {
    route.message(id).child(encrypted.to_element()).child(El::new("store", HINTS)).build()
}

/// Tells a contact's client that its message has arrived.
pub(in crate::xmpp) fn receipt(from: &BareJid, to: &str, own_id: &str, received: &str) -> Element {
    El::stanza("message")
        .attr("type", "chat")
        .attr("id", own_id)
        .attr("from", from.as_str())
        .attr("to", to)
        .child(El::new("received", RECEIPTS).attr("id", received))
        .child(El::new("store", HINTS))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encrypted(namespace: Namespace) -> EncryptedElement {
        let xml = match namespace {
            Namespace::Legacy => {
                "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='7'>\
                 <key rid='9'>AAAA</key><iv>AAAAAAAAAAAAAAAA</iv></header><payload>AAAA</payload></encrypted>"
            }
            Namespace::V2 => {
                "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='7'><keys jid='bob@example.org'>\
                 <key rid='9'>AAAA</key></keys></header><payload>AAAA</payload></encrypted>"
            }
        };
        EncryptedElement::from_element(&xml.parse().unwrap()).unwrap()
    }

    fn show(build: impl Fn(Route<'_>) -> Element) -> String {
        let from = BareJid::new("alice%example.net@bridge.example.net").unwrap();
        let to = BareJid::new("bob@example.org").unwrap();
        String::from(&build(Route { from: &from, to: &to })).replace("><", ">\n<")
    }

    #[test]
    fn encrypted_messages() {
        let id = RemoteMessageId::new("id1");
        for namespace in Namespace::ALL {
            insta::assert_snapshot!(
                format!("encrypted_{namespace:?}"),
                show(|route| encrypted_message(route, &id, &[encrypted(namespace)]))
            );
        }
    }

    #[test]
    fn an_empty_message_shows_nothing() {
        insta::assert_snapshot!(show(|route| empty_message(
            route,
            "id2",
            &encrypted(Namespace::Legacy)
        )));
    }

    #[test]
    fn plain_messages_and_receipts() {
        let id = RemoteMessageId::new("id3");
        insta::assert_snapshot!("plain", show(|route| plain_message(route, &id, "1 < 2\n\u{1}ok")));
        insta::assert_snapshot!(
            "receipt",
            show(|route| receipt(route.from, "bob@example.org/phone", "r1", "m1"))
        );
    }

    #[test]
    fn an_emote_is_a_me_message() {
        assert_eq!(text(&MessageContent::Emote { body: "waves".into() }), "/me waves");
        assert_eq!(text(&MessageContent::Text { body: "hi".into() }), "hi");
    }
}
