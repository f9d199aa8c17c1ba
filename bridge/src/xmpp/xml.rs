//! Building elements, and the namespaces that more than one file needs.

use minidom::{Element, rxml};

/// XEP-0114: stanzas of a component stream.
pub(super) const COMPONENT: &str = "jabber:component:accept";
/// RFC 6120 stream.
pub(super) const STREAM: &str = "http://etherx.jabber.org/streams";
/// RFC 6120 stanza error conditions.
pub(super) const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// XEP-0060.
pub(super) const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
/// XEP-0060 notifications.
pub(super) const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
/// XEP-0060 errors.
pub(super) const PUBSUB_ERRORS: &str = "http://jabber.org/protocol/pubsub#errors";
/// XEP-0172.
pub(super) const NICK: &str = "http://jabber.org/protocol/nick";
/// XEP-0184.
pub(super) const RECEIPTS: &str = "urn:xmpp:receipts";
/// XEP-0199.
pub(super) const PING: &str = "urn:xmpp:ping";
/// XEP-0203.
pub(super) const DELAY: &str = "urn:xmpp:delay";
/// XEP-0334.
pub(super) const HINTS: &str = "urn:xmpp:hints";
/// XEP-0359.
pub(super) const STANZA_ID: &str = "urn:xmpp:sid:0";
/// XEP-0380.
pub(super) const EME: &str = "urn:xmpp:eme:0";

/// Builds an [`Element`]; attribute names are constants of the callers.
pub(super) struct El(Element);

impl El {
    pub(super) fn new(name: &str, ns: &str) -> Self {
        Self(Element::bare(name, ns))
    }

    /// A stanza or a child of one that has the stream's own namespace.
    pub(super) fn stanza(name: &str) -> Self {
        Self::new(name, COMPONENT)
    }

    /// Sets an attribute. A name that XML does not have is left out.
    pub(super) fn attr(mut self, name: &str, value: impl Into<String>) -> Self {
        if let Ok(name) = rxml::NcName::try_from(name) {
            self.0.set_attr(rxml::Namespace::NONE, name, value.into());
        }
        self
    }

    pub(super) fn attr_if(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    /// Appends text without the characters that XML 1.0 cannot carry.
    pub(super) fn text(mut self, text: &str) -> Self {
        self.0.append_text(clean_text(text));
        self
    }

    pub(super) fn child(mut self, child: impl Into<Element>) -> Self {
        self.0.append_child(child.into());
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        for child in children {
            self.0.append_child(child);
        }
        self
    }

    pub(super) fn build(self) -> Element {
        self.0
    }
}

impl From<El> for Element {
    fn from(el: El) -> Self {
        el.0
    }
}

/// Leaves out the characters that XML 1.0 cannot carry (section 2.2).
pub(super) fn clean_text(text: &str) -> String {
    text.chars()
        .filter(|c| match *c {
            '\t' | '\n' | '\r' => true,
            '\u{fffe}' | '\u{ffff}' => false,
            c => !c.is_control() || ('\u{7f}'..='\u{9f}').contains(&c),
        })
        .collect()
}

/// The stanza as it goes over the wire.
pub(super) fn to_bytes(element: &Element) -> Vec<u8> {
    String::from(element).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_xml_cannot_carry_is_left_out() {
        let element = El::new("a", "b").text("one\u{0}\u{1b} <two>\n\u{ffff}").build();
        let parsed: Element = String::from(&element).parse().unwrap();
        assert_eq!(parsed.text(), "one <two>\n");
    }
}
