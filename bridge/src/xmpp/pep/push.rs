//! Notifications of changed nodes (XEP-0163 section 4.3).

use std::collections::BTreeSet;

use e2ee::omemo::Namespace;
use minidom::Element;

use super::{IqError, Node};
use crate::{
    error_chain,
    network::{Author, ChatKey},
    store::StoreError,
    xmpp::{
        core::Core,
        xml::{El, PUBSUB_EVENT},
    },
};

impl Core {
    /// Tells one contact of our devices and name, whether they asked or not: their client may
    /// never fetch the list of somebody it has a subscription with.
    pub(in crate::xmpp) async fn announce(&self, chat: &ChatKey) {
        self.announce_to(&chat.local, chat.contact.as_str()).await;
    }

    /// As [`Self::announce`], to one JID.
    pub(in crate::xmpp) async fn announce_to(&self, author: &Author, jid: &str) {
        let to = [jid.to_owned()];
        for namespace in Namespace::ALL {
            self.push_to(author, Node::Devices(namespace), &to).await;
        }
        self.push_to(author, Node::Nick, &to).await;
    }

    /// Tells everyone who subscribed to the bundles that they have changed.
    pub(in crate::xmpp) async fn publish_bundles(&self, author: &Author) {
        for namespace in Namespace::ALL {
            let node = Node::Bundles(namespace, None);
            if let Err(error) = self.publish(author, node).await {
                tracing::warn!(
                    error = error_chain(&error),
                    "xmpp.pep: a bundle could not be published"
                );
            }
        }
    }

    /// Tells everyone who subscribed to a node what is in it now.
    pub(in crate::xmpp) async fn publish(
        &self,
        author: &Author,
        node: Node,
    ) -> Result<(), crate::xmpp::core::AccountError> {
        let own = self.ensure_account(author).await?.device_id();
        let name = node.name(own);
        let subscribers = self.db.read().await?.xmpp_roster().subscribers(author, &name).await?;
        self.push_to(author, node, &subscribers).await;
        Ok(())
    }

    /// Tells everyone ever met, and every subscriber, what is in a node now.
    pub(in crate::xmpp) async fn publish_to_all(
        &self,
        author: &Author,
        node: Node,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.read().await?;
        let contacts = tx.xmpp_roster().contacts(author).await?;
        let mut all: BTreeSet<String> =
            contacts.iter().map(|contact| contact.as_str().to_owned()).collect();
        if let Node::Nick | Node::Vcard | Node::Devices(_) = node
            && let Some(name) = fixed_name(node)
        {
            all.extend(tx.xmpp_roster().subscribers(author, &name).await?);
        }
        drop(tx);
        self.push_to(author, node, &all.into_iter().collect::<Vec<_>>()).await;
        Ok(())
    }

    /// Best effort: a client that misses a push asks.
    pub(super) async fn push_to(&self, author: &Author, node: Node, to: &[String]) {
        if to.is_empty() || !self.link.is_up() {
            return;
        }
        let event = match self.event(author, node).await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "xmpp.pep: a node could not be pushed");
                return;
            }
        };
        let Ok(from) = self.addresses.jid(author) else { return };
        for jid in to {
            let message = El::stanza("message")
                .attr("type", "headline")
                .attr("from", from.as_str())
                .attr("to", jid)
                .attr("id", self.random_id())
                .child(event.clone())
                .build();
            if self.link.write(&message).await.is_err() {
                return;
            }
        }
    }

    async fn event(&self, author: &Author, node: Node) -> Result<Option<Element>, IqError> {
        let own = self.ensure_account(author).await?.device_id();
        let Some((id, content)) = self.item(author, node).await? else { return Ok(None) };
        let item = El::new("item", PUBSUB_EVENT).attr("id", id).child(content);
        let items = El::new("items", PUBSUB_EVENT).attr("node", node.name(own)).child(item);
        Ok(Some(El::new("event", PUBSUB_EVENT).child(items).build()))
    }
}

/// The name of a node that is called the same for everybody.
fn fixed_name(node: Node) -> Option<String> {
    match node {
        Node::Bundles(..) => None,
        other => Some(other.name(e2ee::omemo::DeviceId::new(1)?)),
    }
}
