//! Takes one forbidden namespace declaration out of the stream before the parser sees it.
//!
//! The prefix `xml` needs no declaration, and no other prefix may stand for its namespace (Namespaces in XML 1.0,
//! section 3). Servers forget that: they read `<xml:foo/>`, which is allowed, and pass it on as
//! `<foo xmlns='http://www.w3.org/XML/1998/namespace'/>`; Prosody also makes of the attribute `xml:foo='1'`
//! `xmlns:ns1='http://www.w3.org/XML/1998/namespace' ns1:foo='1'`. The parser ends the stream over that and cannot be
//! told not to, so any user of any server could end it. Here such a value gets one character more, and what it was
//! declared for is in a namespace that nobody knows.
//!
//! Nothing else is changed: not `xmlns:xml`, which must have this value, no other attribute, no text. Owns as much of the
//! syntax as is needed to know an attribute from text, and forgives what is wrong: the parser does not. A value in
//! which characters are written as references (`&#104;ttp:…`) is not recognised; servers write none but for the five
//! that must be escaped.
//!
//! Of what the parser refuses in declarations this is all that a server can be brought to write. The namespace of
//! `xmlns`, a prefix without a namespace, and `xmlns` or `xml` declared as something else are refused by the server's own
//! parser (expat).

use minidom::rxml::XMLNS_XML;

/// What a forbidden value ends with when it leaves.
const MARK: u8 = b'#';

/// Bytes of an attribute's name that are kept: enough to know `xmlns:xml` from what begins so.
const KEPT_OF_NAME: usize = "xmlns:xml".len() + 1;

/// The filter, and what it has read.
#[derive(Default)]
pub(super) struct Declarations {
    place: Place,
    /// How the name that came last in a tag begins.
    name: Vec<u8>,
}

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Text,
    /// Behind `<`.
    Opened,
    /// Behind `<!`.
    Bang,
    /// Behind `<!-`.
    Dash,
    /// In a comment or a CDATA section: two of `end`, or more, and `>` end it.
    Section { end: u8, run: u8 },
    /// In a tag, and in no name and no value.
    Tag,
    /// In a name in a tag.
    Name,
    /// In an attribute's value.
    Value {
        quote: u8,
        /// How much of the forbidden value it is so far; `None` when it is something else, or not forbidden here.
        matched: Option<usize>,
    },
}

impl Declarations {
    /// Appends to `out` what the parser may see of `bytes`. A stream may be cut anywhere; nothing is held back.
    pub(super) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.reserve(bytes.len());
        for &byte in bytes {
            if self.ends_forbidden(byte) {
                out.push(MARK);
            }
            out.push(byte);
            self.place = self.behind(byte);
        }
    }

    /// Whether this byte closes a value that is forbidden where it stands.
    fn ends_forbidden(&self, byte: u8) -> bool {
        matches!(
            self.place,
            Place::Value { quote, matched: Some(matched) }
                if byte == quote && matched == XMLNS_XML.len()
        )
    }

    fn behind(&mut self, byte: u8) -> Place {
        match self.place {
            Place::Text if byte == b'<' => Place::Opened,
            Place::Text => Place::Text,
            Place::Opened if byte == b'!' => Place::Bang,
            Place::Bang if byte == b'-' => Place::Dash,
            Place::Bang => Place::Section { end: b']', run: 0 },
            Place::Dash => Place::Section { end: b'-', run: 0 },
            Place::Section { run: 2.., .. } if byte == b'>' => Place::Text,
            Place::Section { end, run } => {
                let run = if byte == end { run.saturating_add(1) } else { 0 };
                Place::Section { end, run }
            }
            Place::Opened | Place::Tag | Place::Name => self.in_tag(byte),
            Place::Value { quote, .. } if byte == quote => Place::Tag,
            Place::Value { quote, matched } => {
                let goes_on = |at: &usize| XMLNS_XML.as_bytes().get(*at) == Some(&byte);
                let matched = matched.filter(goes_on).map(|at| at.saturating_add(1));
                Place::Value { quote, matched }
            }
        }
    }

    fn in_tag(&mut self, byte: u8) -> Place {
        match byte {
            b'>' => Place::Text,
            b'\'' | b'"' => {
                let matched = self.is_declaration().then_some(0);
                Place::Value { quote: byte, matched }
            }
            b' ' | b'\t' | b'\r' | b'\n' | b'=' | b'/' | b'?' => Place::Tag,
            _ => {
                if self.place != Place::Name {
                    self.name.clear();
                }
                if self.name.len() < KEPT_OF_NAME {
                    self.name.push(byte);
                }
                Place::Name
            }
        }
    }

    /// Whether the value that begins here declares a namespace, other than for `xml` itself.
    fn is_declaration(&self) -> bool {
        match self.name.as_slice() {
            b"xmlns" => true,
            b"xmlns:xml" => false,
            name => name.starts_with(b"xmlns:"),
        }
    }
}
