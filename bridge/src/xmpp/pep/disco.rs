//! Service discovery (XEP-0030) and version (XEP-0092).

use jid::BareJid;
use minidom::Element;

use super::vcard;
use crate::{
    network::Author,
    xmpp::adhoc::{COMMANDS, Command, DATA_FORMS},
    xmpp::xml::{EME, El, NICK, PING, PUBSUB, RECEIPTS, STANZA_ID},
};

pub(super) const INFO: &str = "http://jabber.org/protocol/disco#info";
pub(super) const ITEMS: &str = "http://jabber.org/protocol/disco#items";
pub(super) const VERSION: &str = "jabber:iq:version";

const FEATURES: [&str; 19] = [
    INFO,
    ITEMS,
    PUBSUB,
    "http://jabber.org/protocol/pubsub#access-open",
    "http://jabber.org/protocol/pubsub#auto-subscribe",
    "http://jabber.org/protocol/pubsub#filtered-notifications",
    "http://jabber.org/protocol/pubsub#item-ids",
    "http://jabber.org/protocol/pubsub#last-published",
    "http://jabber.org/protocol/pubsub#retrieve-items",
    "http://jabber.org/protocol/pubsub#subscribe",
    NICK,
    EME,
    PING,
    RECEIPTS,
    STANZA_ID,
    VERSION,
    vcard::TEMP,
    "eu.siacs.conversations.axolotl.devicelist+notify",
    "urn:xmpp:omemo:2:devices+notify",
];

fn identity(category: &str, kind: &str) -> El {
    El::new("identity", INFO).attr("category", category).attr("type", kind)
}

fn feature(name: &str) -> Element {
    El::new("feature", INFO).attr("var", name).build()
}

/// What a node of commands is (XEP-0050 section 2.1); `None` for any other node.
fn command_info(author: &Author, node: Option<&str>) -> Option<Element> {
    let node = node.filter(|_| *author == Author::Bridge)?;
    let query = El::new("query", INFO).attr("node", node);
    if node == COMMANDS {
        return Some(query.child(identity("automation", "command-list")).build());
    }
    let command =
        identity("automation", "command-node").attr("name", Command::parse(node)?.title());
    Some(query.child(command).children([COMMANDS, DATA_FORMS].map(feature)).build())
}

/// Who we are. The node of capabilities (XEP-0115) is answered like none.
pub(super) fn info(author: &Author, node: Option<&str>) -> Element {
    if let Some(info) = command_info(author, node) {
        return info;
    }
    let first = match author {
        Author::Person(_) => identity("account", "registered"),
        Author::Bridge => identity("gateway", "matrix").attr("name", "Gephyra"),
    };
    El::new("query", INFO)
        .attr_if("node", node)
        .child(first)
        .child(identity("pubsub", "pep"))
        .children(FEATURES.map(feature))
        .children((*author == Author::Bridge).then(|| feature(COMMANDS)))
        .build()
}

/// The nodes whose names are the same for everybody.
pub(super) fn items(own: &BareJid, author: &Author, node: Option<&str>) -> Element {
    if (author, node) == (&Author::Bridge, Some(COMMANDS)) {
        return commands(own);
    }
    let nodes: &[&str] = match (author, node) {
        (_, Some(_)) => &[],
        _ => &[
            "eu.siacs.conversations.axolotl.devicelist",
            "urn:xmpp:omemo:2:devices",
            "urn:xmpp:omemo:2:bundles",
            NICK,
            vcard::NODE,
        ],
    };
    let items = nodes
        .iter()
        .map(|node| El::new("item", ITEMS).attr("jid", own.as_str()).attr("node", *node).build());
    El::new("query", ITEMS).attr_if("node", node).children(items).build()
}

/// The commands that there are (XEP-0050 section 2.2).
fn commands(own: &BareJid) -> Element {
    let items = Command::all().map(|command| {
        El::new("item", ITEMS)
            .attr("jid", own.as_str())
            .attr("node", command.node())
            .attr("name", command.title())
            .build()
    });
    El::new("query", ITEMS).attr("node", COMMANDS).children(items).build()
}

/// What answers.
pub(super) fn version() -> Element {
    El::new("query", VERSION)
        .child(El::new("name", VERSION).text("Gephyra"))
        .child(El::new("version", VERSION).text(env!("CARGO_PKG_VERSION")))
        .build()
}
