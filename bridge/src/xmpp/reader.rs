//! A bounded reader for an XMPP stream.
//!
//! Owns the limits on what the other end may make us hold in memory. Does no I/O and knows no
//! protocol above "a stream of top-level elements" (RFC 6120 section 4). A stanza over a limit
//! is dropped while it is read and reported as [`StreamEvent::Refused`]; the stream goes on.

mod declarations;

use minidom::{
    Element, Node,
    rxml::{
        self, Options, Parse, RawEvent, RawParser, WithOptions, error::EndOrError,
        parser::CommentMode,
    },
    tree_builder::TreeBuilder,
};

use self::declarations::Declarations;

/// How much one stanza may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Nesting below the stream element.
    pub depth: usize,
    /// Bytes on the wire.
    pub bytes: usize,
    /// Attributes and namespace declarations of one element.
    pub attributes: usize,
    /// Bytes of one attribute's value. The inbox is read with the parser's own limit, which is a
    /// little more.
    pub value: usize,
    /// Bytes of text in one stanza.
    pub text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 64, bytes: 512 * 1024, attributes: 64, value: 8000, text: 384 * 1024 }
    }
}

/// Longest name or attribute value: what servers let through in a whole stanza by default, so
/// that a long one is refused here and does not end the stream.
const MAX_TOKEN_BYTES: usize = 1024 * 1024;
/// Nesting at which not even the counting goes on.
const MAX_SKIPPED_DEPTH: usize = 1_000_000;

/// What came over the stream.
pub(super) enum StreamEvent {
    /// The stream header.
    Opened {
        /// The stream's `id`.
        id: Option<String>,
    },
    /// A top-level element within the limits.
    Stanza(Element),
    /// A top-level element that was skipped.
    Refused(Refused),
    /// The other end has closed the stream.
    Closed,
}

/// What is known of a stanza that was refused.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Refused {
    pub name: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub id: Option<String>,
    pub kind: Option<String>,
    pub reason: Reason,
}

/// Why a stanza was refused: mostly the limit that it went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Reason {
    #[default]
    TooDeep,
    TooManyBytes,
    TooManyAttributes,
    LongAttribute,
    TooMuchText,
    /// A prefix that was not declared.
    Namespace,
    /// An address that is missing or malformed. The reader does not look at addresses.
    Address,
}

/// Why a stream cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the stream is not well-formed")]
    NotWellFormed(#[source] rxml::Error),
    #[error("text between the stanzas")]
    StrayText,
    #[error("a stanza is nested without end")]
    Runaway,
    #[error("the stream header is missing")]
    NoHeader,
}

/// Turns bytes into stanzas.
pub(super) struct StreamReader {
    declarations: Declarations,
    /// What has come through there, of which the parser has read the first `used`.
    passed: Vec<u8>,
    used: usize,
    parser: RawParser,
    limits: Limits,
    /// Namespaces that the stream header declared.
    header: Vec<(Option<String>, String)>,
    state: State,
}

enum State {
    /// Before the stream header, or inside it.
    Header {
        open: bool,
        id: Option<String>,
    },
    Between,
    Inside(Box<Building>),
    Skipping {
        depth: usize,
        refused: Refused,
    },
    Closed,
}

struct Building {
    tree: TreeBuilder,
    depth: usize,
    bytes: usize,
    attributes: usize,
    text: usize,
    head: Refused,
}

impl StreamReader {
    pub(super) fn new(limits: Limits) -> Self {
        let options = Options {
            max_token_length: MAX_TOKEN_BYTES,
            comments: CommentMode::Discard,
            ..Options::default()
        };
        let mut parser = RawParser::with_options(options);
        parser.set_text_buffering(false);
        Self {
            declarations: Declarations::default(),
            passed: Vec::new(),
            used: 0,
            parser,
            limits,
            header: Vec::new(),
            state: State::Header { open: false, id: None },
        }
    }

    /// Reads on; `None` when all of `bytes`, and all that was kept of earlier ones, is used up.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<StreamEvent>, ReadError> {
        loop {
            let event = match self.parse() {
                Ok(Some(event)) => event,
                Ok(None) | Err(EndOrError::NeedMoreData) if bytes.is_empty() => return Ok(None),
                Ok(None) | Err(EndOrError::NeedMoreData) => {
                    self.passed.clear();
                    self.used = 0;
                    self.declarations.pass(std::mem::take(bytes), &mut self.passed);
                    continue;
                }
                Err(EndOrError::Error(error)) => return Err(ReadError::NotWellFormed(error)),
            };
            if let Some(event) = self.advance(event)? {
                return Ok(Some(event));
            }
        }
    }

    /// The parser's next event out of what has come through.
    fn parse(&mut self) -> Result<Option<RawEvent>, EndOrError> {
        let mut rest = self.passed.get(self.used..).unwrap_or_default();
        let before = rest.len();
        let event = self.parser.parse(&mut rest, false);
        self.used = self.used.saturating_add(before.saturating_sub(rest.len()));
        event
    }

    fn advance(&mut self, event: RawEvent) -> Result<Option<StreamEvent>, ReadError> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Header { open, id } => self.header(event, open, id),
            State::Between => self.between(event),
            State::Inside(building) => Ok(self.inside(event, building)),
            State::Skipping { depth, refused } => self.skip(&event, depth, refused),
            State::Closed => Ok(Some(StreamEvent::Closed)),
        }
    }

    fn header(
        &mut self,
        event: RawEvent,
        mut open: bool,
        mut id: Option<String>,
    ) -> Result<Option<StreamEvent>, ReadError> {
        match event {
            RawEvent::XmlDeclaration(..) => {}
            RawEvent::ElementHeadOpen(..) => open = true,
            RawEvent::Attribute(_, (prefix, name), value) => {
                let name = name.as_str();
                match prefix.as_ref().map(|prefix| prefix.as_str()) {
                    None if name == "xmlns" => self.header.push((None, value)),
                    Some("xmlns") => self.header.push((Some(name.to_owned()), value)),
                    None if name == "id" => id = Some(value),
                    _ => {}
                }
                if self.header.len() > self.limits.attributes {
                    return Err(ReadError::NoHeader);
                }
            }
            RawEvent::ElementHeadClose(_) => {
                self.state = State::Between;
                return Ok(Some(StreamEvent::Opened { id }));
            }
            RawEvent::ElementFoot(_) | RawEvent::Text(..) if !open => {
                return Err(ReadError::NoHeader);
            }
            RawEvent::ElementFoot(_) | RawEvent::Text(..) => {}
        }
        self.state = State::Header { open, id };
        Ok(None)
    }

    fn between(&mut self, event: RawEvent) -> Result<Option<StreamEvent>, ReadError> {
        match &event {
            RawEvent::ElementHeadOpen(_, (_, name)) => {
                let head = Refused { name: name.as_str().to_owned(), ..Refused::default() };
                let prefixes =
                    self.header.iter().cloned().collect::<std::collections::BTreeMap<_, _>>();
                let building = Box::new(Building {
                    tree: TreeBuilder::new().with_prefixes_stack(vec![prefixes.into()]),
                    depth: 0,
                    bytes: 0,
                    attributes: 0,
                    text: 0,
                    head,
                });
                return Ok(self.inside(event, building));
            }
            RawEvent::ElementFoot(_) => return Ok(Some(StreamEvent::Closed)),
            RawEvent::Text(_, text) if !text.trim_ascii().is_empty() => {
                return Err(ReadError::StrayText);
            }
            _ => {}
        }
        self.state = State::Between;
        Ok(None)
    }

    fn inside(&mut self, event: RawEvent, mut building: Box<Building>) -> Option<StreamEvent> {
        let over = building.count(&event, &self.limits);
        let depth = building.depth;
        let over = over
            .or_else(|| building.tree.process_event(event).is_err().then_some(Reason::Namespace));
        if let Some(reason) = over {
            let refused = Refused { reason, ..building.head };
            if depth == 0 {
                self.state = State::Between;
                return Some(StreamEvent::Refused(refused));
            }
            self.state = State::Skipping { depth, refused };
            return None;
        }
        if let Some(stanza) = building.tree.root.take() {
            self.state = State::Between;
            return Some(StreamEvent::Stanza(without_prefixes(&stanza)));
        }
        self.state = State::Inside(building);
        None
    }

    fn skip(
        &mut self,
        event: &RawEvent,
        mut depth: usize,
        mut refused: Refused,
    ) -> Result<Option<StreamEvent>, ReadError> {
        match event {
            RawEvent::ElementHeadOpen(..) => depth = depth.saturating_add(1),
            RawEvent::ElementFoot(_) => depth = depth.saturating_sub(1),
            RawEvent::Attribute(_, (None, name), value) if depth == 1 => {
                refused.note(name.as_str(), value);
            }
            _ => {}
        }
        if depth > MAX_SKIPPED_DEPTH {
            return Err(ReadError::Runaway);
        }
        if depth == 0 {
            self.state = State::Between;
            return Ok(Some(StreamEvent::Refused(refused)));
        }
        self.state = State::Skipping { depth, refused };
        Ok(None)
    }
}

impl Building {
    /// Counts an event in, and says which limit it went over.
    fn count(&mut self, event: &RawEvent, limits: &Limits) -> Option<Reason> {
        self.bytes = self.bytes.saturating_add(event.metrics().len());
        let mut long_value = false;
        match event {
            RawEvent::ElementHeadOpen(..) => {
                self.depth = self.depth.saturating_add(1);
                self.attributes = 0;
            }
            RawEvent::ElementFoot(_) => self.depth = self.depth.saturating_sub(1),
            RawEvent::Attribute(_, (prefix, name), value) => {
                self.attributes = self.attributes.saturating_add(1);
                long_value = value.len() > limits.value;
                if self.depth == 1 && prefix.is_none() {
                    self.head.note(name.as_str(), value);
                }
            }
            RawEvent::Text(_, text) => self.text = self.text.saturating_add(text.len()),
            RawEvent::XmlDeclaration(..) | RawEvent::ElementHeadClose(_) => {}
        }
        [
            (self.depth > limits.depth, Reason::TooDeep),
            (self.attributes > limits.attributes, Reason::TooManyAttributes),
            (long_value, Reason::LongAttribute),
            (self.text > limits.text, Reason::TooMuchText),
            (self.bytes > limits.bytes, Reason::TooManyBytes),
        ]
        .into_iter()
        .find_map(|(over, reason)| over.then_some(reason))
    }
}

/// The same element without the prefixes its author chose, and without attributes that have one:
/// no protocol here knows such an attribute, and minidom panics when it writes an element in which
/// a prefix is declared twice or stands for the namespace of XML itself.
fn without_prefixes(element: &Element) -> Element {
    let mut plain = Element::bare(element.name(), element.ns());
    for ((namespace, name), value) in element.attrs() {
        if namespace.is_none() {
            plain.set_attr(rxml::Namespace::NONE, name.clone(), value.as_str());
        }
    }
    for node in element.nodes() {
        match node {
            Node::Element(child) => {
                plain.append_child(without_prefixes(child));
            }
            Node::Text(text) => plain.append_text(text.as_str()),
        }
    }
    plain
}

/// Longest header attribute that is kept for an answer: the longest address (RFC 7622).
const MAX_HEAD_BYTES: usize = 3071;

impl Refused {
    fn note(&mut self, name: &str, value: &str) {
        if value.len() > MAX_HEAD_BYTES {
            return;
        }
        let slot = match name {
            "from" => &mut self.from,
            "to" => &mut self.to,
            "id" => &mut self.id,
            "type" => &mut self.kind,
            _ => return,
        };
        slot.get_or_insert_with(|| value.to_owned());
    }
}

#[cfg(test)]
mod tests;
