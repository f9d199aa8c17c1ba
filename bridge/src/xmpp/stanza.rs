//! The outside of stanzas: addresses, ids, errors (RFC 6120 section 8).

use jid::BareJid;
use minidom::Element;

use super::{
    adhoc::COMMANDS,
    xml::{COMPONENT, El, PUBSUB_ERRORS, STANZAS},
};

/// Longest resource (RFC 7622 section 3.4).
const MAX_RESOURCE_BYTES: usize = 1023;

/// An address in a stanza: of an account, or of one of its clients.
///
/// Of a client's name, the resource, it is only asked whether it is the same. It is taken as the server lets it through:
/// servers allow characters there that are newer than the Unicode of the one profile that could be checked (Resourceprep
/// of RFC 3920), and people call their clients `📱`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    account: BareJid,
    text: String,
}

impl Address {
    /// `None` when it is malformed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (account, resource) = match text.split_once('/') {
            Some((account, resource)) => (account, Some(resource)),
            None => (text, None),
        };
        let account = BareJid::new(account).ok()?;
        let text = match resource {
            Some(resource) if resource.is_empty() || resource.len() > MAX_RESOURCE_BYTES => {
                return None;
            }
            Some(resource) => format!("{account}/{resource}"),
            None => account.to_string(),
        };
        Some(Self { account, text })
    }

    /// The account's own address.
    pub(super) fn bare(&self) -> &BareJid {
        &self.account
    }

    /// The whole address.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// Addresses and id of a stanza; borrowed from it.
pub(super) struct Head<'a> {
    pub from: Address,
    pub to: Address,
    pub id: Option<&'a str>,
    pub kind: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// `None` when an address is missing or malformed.
    pub(super) fn read(stanza: &'a Element) -> Option<Self> {
        Some(Self {
            from: Address::parse(stanza.attr("from")?)?,
            to: Address::parse(stanza.attr("to")?)?,
            id: stanza.attr("id"),
            kind: stanza.attr("type"),
        })
    }
}

/// A stanza error that we answer with (RFC 6120 section 8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    BadRequest,
    ItemNotFound,
    ServiceUnavailable,
    NotAllowed,
    NotAcceptable,
    InternalServerError,
    ResourceConstraint,
    JidMalformed,
    /// Unsubscribing from what was not subscribed to (XEP-0060).
    NotSubscribed,
    /// The `jid` of a subscription is not the requester's (XEP-0060).
    InvalidJid,
    /// No such action is known (XEP-0050).
    MalformedAction,
    /// The action is not possible now (XEP-0050).
    BadAction,
    /// The form cannot be read, or not all is filled in (XEP-0050).
    BadPayload,
    /// There is no such session, or it is somebody else's (XEP-0050).
    BadSessionId,
    /// The session has ended by time (XEP-0050).
    SessionExpired,
}

impl Refusal {
    /// Condition, type, and the code of the time before XMPP 1.0, which some clients wait for.
    const fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::BadRequest
            | Self::InvalidJid
            | Self::MalformedAction
            | Self::BadAction
            | Self::BadPayload
            | Self::BadSessionId => ("bad-request", "modify", "400"),
            Self::JidMalformed => ("jid-malformed", "modify", "400"),
            Self::ItemNotFound => ("item-not-found", "cancel", "404"),
            Self::ServiceUnavailable => ("service-unavailable", "cancel", "503"),
            Self::NotAllowed | Self::SessionExpired => ("not-allowed", "cancel", "405"),
            Self::NotAcceptable => ("not-acceptable", "modify", "406"),
            Self::InternalServerError => ("internal-server-error", "wait", "500"),
            Self::ResourceConstraint => ("resource-constraint", "wait", "500"),
            Self::NotSubscribed => ("unexpected-request", "cancel", "400"),
        }
    }

    /// The condition of the extension that it is about, and its namespace.
    const fn specific(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::NotSubscribed => Some(("not-subscribed", PUBSUB_ERRORS)),
            Self::InvalidJid => Some(("invalid-jid", PUBSUB_ERRORS)),
            Self::MalformedAction => Some(("malformed-action", COMMANDS)),
            Self::BadAction => Some(("bad-action", COMMANDS)),
            Self::BadPayload => Some(("bad-payload", COMMANDS)),
            Self::BadSessionId => Some(("bad-sessionid", COMMANDS)),
            Self::SessionExpired => Some(("session-expired", COMMANDS)),
            _ => None,
        }
    }

    fn to_element(self) -> Element {
        let (condition, kind, code) = self.parts();
        let specific = self.specific().map(|(name, namespace)| El::new(name, namespace).build());
        El::stanza("error")
            .attr("type", kind)
            .attr("code", code)
            .child(El::new(condition, STANZAS))
            .children(specific)
            .build()
    }
}

/// The answer that refuses a stanza. `name` is the stanza's (`iq`, `message`).
pub(super) fn refuse(name: &str, from: &str, to: &str, id: Option<&str>, why: Refusal) -> Element {
    El::stanza(name)
        .attr("type", "error")
        .attr("from", to)
        .attr("to", from)
        .attr_if("id", id)
        .child(why.to_element())
        .build()
}

/// The result of an IQ request.
pub(super) fn result(request: &Head<'_>, payload: Option<Element>) -> Element {
    El::stanza("iq")
        .attr("type", "result")
        .attr("from", request.to.as_str())
        .attr("to", request.from.as_str())
        .attr_if("id", request.id)
        .children(payload)
        .build()
}

/// The condition of a stanza of type `error`.
pub(super) fn error_condition(stanza: &Element) -> String {
    let condition = stanza
        .get_child("error", COMPONENT)
        .and_then(|error| {
            error.children().find(|child| child.ns() == STANZAS && child.name() != "text")
        })
        .map(|condition| condition.name().to_owned());
    condition.unwrap_or_else(|| "undefined-condition".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_the_old_code_too() {
        let stanza = refuse("iq", "a@x/r", "b@y", Some("7"), Refusal::ItemNotFound);
        insta::assert_snapshot!(String::from(&stanza));
        assert_eq!(error_condition(&stanza), "item-not-found");
    }

    #[test]
    fn a_resource_is_taken_as_it_comes_and_an_account_is_not() {
        for (text, account, whole) in [
            ("Bob@Example.org/Phone", "bob@example.org", "bob@example.org/Phone"),
            ("bob@example.org/📱", "bob@example.org", "bob@example.org/📱"),
            ("bob@example.org/a/b@c", "bob@example.org", "bob@example.org/a/b@c"),
            ("example.org/x", "example.org", "example.org/x"),
            ("bob@example.org", "bob@example.org", "bob@example.org"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.bare().as_str(), address.as_str()), (account, whole));
        }
        for text in ["📱@example.org/x", "bob@example.org/", "@example.org", "", "/x"] {
            assert!(Address::parse(text).is_none(), "{text}");
        }
        let client = |bytes| Address::parse(&format!("bob@example.org/{}", "x".repeat(bytes)));
        assert!(client(MAX_RESOURCE_BYTES).is_some());
        assert!(client(MAX_RESOURCE_BYTES + 1).is_none());
    }

    #[test]
    fn an_error_without_condition_is_undefined() {
        let stanza: Element =
            "<message xmlns='jabber:component:accept' type='error'/>".parse().unwrap();
        assert_eq!(error_condition(&stanza), "undefined-condition");
    }
}
