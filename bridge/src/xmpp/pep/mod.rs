//! The account that a Matrix user appears to have on XMPP: IQ requests to it are answered here.
//!
//! Specs: XEP-0030 (disco), XEP-0060 and XEP-0163 (PEP), XEP-0092 (version), XEP-0199 (ping),
//! XEP-0054 and XEP-0292 (vCard). Nothing is stored as an item: items are made from the account
//! on demand.

mod caps;
mod disco;
mod nodes;
mod push;
pub(super) mod vcard;

use minidom::Element;

pub(super) use self::{caps::caps, nodes::Node};
use super::{
    adhoc::COMMANDS,
    core::{AccountError, Core},
    stanza::{self, Address, Head, Refusal},
    xml::{El, PING, PUBSUB},
};
use crate::{error_chain, network::Author, store::StoreError};

/// Subscribers of one node. Whoever was met is told of changes without it, so only strangers need it, and each of them
/// costs a stanza for every change.
const MAX_SUBSCRIBERS: u64 = 1000;

/// Why a request gets no result.
#[derive(Debug, thiserror::Error)]
enum IqError {
    #[error("the request is refused")]
    Refused(Refusal),
    #[error("an OMEMO device cannot be used")]
    Account(#[from] AccountError),
    #[error("the store failed")]
    Store(#[from] StoreError),
}

impl From<Refusal> for IqError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Core {
    /// Answers a request to one of our JIDs; `author` is `None` for a JID that is nobody's.
    pub(super) async fn answer_iq(
        &self,
        head: &Head<'_>,
        author: Option<&Author>,
        stanza: &Element,
    ) {
        if head.id.is_none() || !matches!(head.kind, Some("get" | "set")) {
            return;
        }
        let payload = stanza.children().next();
        if let (Some(Author::Bridge), Some("set"), Some(command)) = (author, head.kind, payload)
            && command.is("command", COMMANDS)
        {
            return self.take_command(head, command).await;
        }
        let result = match (author, payload) {
            (Some(author), Some(payload)) => self.iq_result(head, author, payload).await,
            (None, _) => Err(Refusal::ItemNotFound.into()),
            (_, None) => Err(Refusal::BadRequest.into()),
        };
        let refusal = match result {
            Ok(payload) => {
                // Whoever waits for it will ask again when the stream is up again.
                let _ = self.link.write(&stanza::result(head, payload)).await;
                return;
            }
            Err(IqError::Refused(refusal)) => refusal,
            Err(error) => {
                tracing::error!(
                    error = error_chain(&error),
                    "xmpp.pep: a request could not be answered"
                );
                Refusal::InternalServerError
            }
        };
        self.refuse("iq", head.from.as_str(), head.to.as_str(), head.id, refusal).await;
    }

    async fn iq_result(
        &self,
        head: &Head<'_>,
        author: &Author,
        payload: &Element,
    ) -> Result<Option<Element>, IqError> {
        let is_get = head.kind == Some("get");
        match (payload.name(), payload.ns().as_str(), is_get) {
            ("query", disco::INFO, true) => Ok(Some(disco::info(author, payload.attr("node")))),
            ("query", disco::ITEMS, true) => {
                Ok(Some(disco::items(head.to.bare(), author, payload.attr("node"))))
            }
            ("pubsub", PUBSUB, _) => self.pubsub(head, author, payload, is_get).await,
            ("ping", PING, true) => Ok(None),
            ("query", disco::VERSION, true) => Ok(Some(disco::version())),
            ("vCard", vcard::TEMP, true) => {
                Ok(Some(vcard::temp(self.name_of(author).await.as_deref())))
            }
            ("vcard", vcard::V4, true) => {
                Ok(Some(vcard::v4(self.name_of(author).await.as_deref())))
            }
            _ => Err(Refusal::ServiceUnavailable.into()),
        }
    }

    async fn pubsub(
        &self,
        head: &Head<'_>,
        author: &Author,
        pubsub: &Element,
        is_get: bool,
    ) -> Result<Option<Element>, IqError> {
        if !self.admits(head.from.bare(), author).await? {
            return Err(Refusal::ResourceConstraint.into());
        }
        let child = |name| pubsub.get_child(name, PUBSUB);
        if is_get {
            let items = child("items").ok_or(Refusal::ServiceUnavailable)?;
            return self.items(author, items).await.map(Some);
        }
        if let Some(subscribe) = child("subscribe") {
            return self.subscribe(head, author, subscribe).await.map(Some);
        }
        if let Some(unsubscribe) = child("unsubscribe") {
            self.unsubscribe(head, author, unsubscribe).await?;
            return Ok(None);
        }
        // Nobody but the bridge publishes here.
        Err(Refusal::NotAllowed.into())
    }

    async fn items(&self, author: &Author, request: &Element) -> Result<Element, IqError> {
        let node = Node::parse(request.attr("node").ok_or(Refusal::BadRequest)?);
        let node = node.ok_or(Refusal::ItemNotFound)?;
        let (id, content) = self.item(author, node).await?.ok_or(Refusal::ItemNotFound)?;
        let mut wanted = request.children().filter(|child| child.name() == "item").peekable();
        let is_wanted = wanted.peek().is_none() || wanted.any(|item| item.attr("id") == Some(&id));
        let item = is_wanted.then(|| El::new("item", PUBSUB).attr("id", id).child(content).build());
        let items = El::new("items", PUBSUB).attr("node", node_name(request)).children(item);
        Ok(El::new("pubsub", PUBSUB).child(items).build())
    }

    async fn subscribe(
        &self,
        head: &Head<'_>,
        author: &Author,
        request: &Element,
    ) -> Result<Element, IqError> {
        let (node, name) = known_node(request)?;
        let jid = own_jid(head, request)?;
        // Bundle nodes have numbers in their names: only the one that exists counts.
        if matches!(node, Node::Bundles(..)) {
            self.item(author, node).await?.ok_or(Refusal::ItemNotFound)?;
        }
        // One for all clients of an account: headlines reach them all.
        let subscriber = head.from.bare().to_string();
        let mut tx = self.db.begin().await?;
        tx.xmpp_roster().subscribe(author, &name, &subscriber).await?;
        if tx.xmpp_roster().count_subscribers(author, &name).await? > MAX_SUBSCRIBERS {
            return Err(Refusal::ResourceConstraint.into());
        }
        tx.commit().await?;
        self.push_to(author, node, &[subscriber]).await;
        let subscription = El::new("subscription", PUBSUB)
            .attr("node", name)
            .attr("jid", jid)
            .attr("subscription", "subscribed");
        Ok(El::new("pubsub", PUBSUB).child(subscription).build())
    }

    async fn unsubscribe(
        &self,
        head: &Head<'_>,
        author: &Author,
        request: &Element,
    ) -> Result<(), IqError> {
        let (_, name) = known_node(request)?;
        own_jid(head, request)?;
        let subscriber = head.from.bare();
        let mut tx = self.db.begin().await?;
        let was_subscribed =
            tx.xmpp_roster().unsubscribe(author, &name, subscriber.as_str()).await?;
        tx.commit().await?;
        if was_subscribed { Ok(()) } else { Err(Refusal::NotSubscribed.into()) }
    }
}

fn node_name(request: &Element) -> &str {
    request.attr("node").unwrap_or_default()
}

fn known_node(request: &Element) -> Result<(Node, String), Refusal> {
    let name = node_name(request);
    Node::parse(name).map(|node| (node, name.to_owned())).ok_or(Refusal::ItemNotFound)
}

/// Everybody subscribes only themselves (XEP-0060 section 6.1.3.1).
fn own_jid(head: &Head<'_>, request: &Element) -> Result<String, Refusal> {
    match request.attr("jid").and_then(Address::parse) {
        Some(jid) if jid.bare() == head.from.bare() => Ok(jid.as_str().to_owned()),
        _ => Err(Refusal::InvalidJid),
    }
}
