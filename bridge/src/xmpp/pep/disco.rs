//! Service discovery (XEP-0030) and version (XEP-0092).

use jid::Jid;
use minidom::Element;

use super::vcard;
use crate::{
    network::Author,
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

/// Who we are. The node of capabilities (XEP-0115) is answered like none.
pub(super) fn info(author: &Author, node: Option<&str>) -> Element {
    let identity =
        |category, kind| El::new("identity", INFO).attr("category", category).attr("type", kind);
    let first = match author {
        Author::Person(_) => identity("account", "registered"),
        Author::Bridge => identity("gateway", "matrix").attr("name", "Gephyra"),
    };
    El::new("query", INFO)
        .attr_if("node", node)
        .child(first)
        .child(identity("pubsub", "pep"))
        .children(FEATURES.map(|feature| El::new("feature", INFO).attr("var", feature).build()))
        .build()
}

/// The nodes whose names are the same for everybody.
pub(super) fn items(own: &Jid, author: &Author, node: Option<&str>) -> Element {
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
    let jid = own.to_bare();
    let items = nodes
        .iter()
        .map(|node| El::new("item", ITEMS).attr("jid", jid.as_str()).attr("node", *node).build());
    El::new("query", ITEMS).attr_if("node", node).children(items).build()
}

/// What answers.
pub(super) fn version() -> Element {
    El::new("query", VERSION)
        .child(El::new("name", VERSION).text("Gephyra"))
        .child(El::new("version", VERSION).text(env!("CARGO_PKG_VERSION")))
        .build()
}
