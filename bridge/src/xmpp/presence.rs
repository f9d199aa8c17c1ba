//! Presence subscriptions (RFC 6121 section 3): given to whoever asks, and asked for in return,
//! because some clients show their bundles only to contacts.

use minidom::Element;

use super::{
    core::Core,
    pep::caps,
    stanza::Head,
    xml::{self, El, NICK},
};
use crate::{
    error_chain,
    network::ChatKey,
    store::{Asked, StoreError},
};

impl Core {
    pub(super) async fn receive_presence(&self, head: &Head<'_>, chat: &ChatKey) {
        let done = match head.kind {
            Some("subscribe") => self.grant(chat).await,
            Some("subscribed") => self.granted(chat).await,
            Some("probe") => {
                self.send_presence(chat, None).await;
                Ok(())
            }
            Some("unsubscribe") => {
                self.send_presence(chat, Some("unsubscribed")).await;
                Ok(())
            }
            None => self.came_online(head, chat).await,
            // It was lost on its way: the next message asks again.
            Some("error") => self.has_become(chat, Asked::Yes, Asked::No).await,
            Some("unsubscribed") => self.has_become(chat, Asked::Yes, Asked::Declined).await,
            Some("unavailable") => {
                self.seen.went_offline(head.from.as_str());
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = done {
            tracing::error!(error = error_chain(&error), "xmpp.presence: the store failed");
        }
    }

    /// A client of somebody we know has come online: it is told of our devices, as a PEP service
    /// tells subscribers (XEP-0163 section 4.3.4). Clients rely on it and do not ask.
    async fn came_online(&self, head: &Head<'_>, chat: &ChatKey) -> Result<(), StoreError> {
        let client = head.from.as_str();
        if !self.seen.is_newly_online(chat, client)
            || !self.db.read().await?.xmpp_roster().has_met(chat).await?
        {
            return Ok(());
        }
        self.announce_to(&chat.local, client).await;
        Ok(())
    }

    async fn grant(&self, chat: &ChatKey) -> Result<(), StoreError> {
        self.send_presence(chat, Some("subscribed")).await;
        self.send_presence(chat, None).await;
        // Who asks in their turn may be asked again.
        self.has_become(chat, Asked::Declined, Asked::No).await?;
        self.ask_for_presence(chat).await?;
        self.announce(chat).await;
        Ok(())
    }

    /// What was hidden from us may be visible now.
    async fn granted(&self, chat: &ChatKey) -> Result<(), StoreError> {
        if !self.db.read().await?.xmpp_roster().has_met(chat).await? {
            return Ok(());
        }
        self.send_presence(chat, None).await;
        self.announce(chat).await;
        self.seen.forget(chat);
        self.events.unblocked(chat);
        Ok(())
    }

    /// Something has become of our question for a presence subscription.
    async fn has_become(&self, chat: &ChatKey, from: Asked, to: Asked) -> Result<(), StoreError> {
        if self.db.read().await?.xmpp_roster().asked(chat).await? != from {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        tx.xmpp_roster().set_asked(chat, to).await?;
        tx.commit().await
    }

    /// Asks for a presence subscription, once until the question is lost, or the contact asks in their turn.
    pub(super) async fn ask_for_presence(&self, chat: &ChatKey) -> Result<(), StoreError> {
        if self.db.read().await?.xmpp_roster().asked(chat).await? != Asked::No {
            return Ok(());
        }
        let Some(stanza) = self.presence(chat, Some("subscribe")).await else { return Ok(()) };
        let mut tx = self.db.begin().await?;
        let first = tx.xmpp_roster().first_ask(chat).await?;
        if first {
            tx.xmpp_outbox().insert(chat, None, &xml::to_bytes(&stanza)).await?;
        }
        tx.commit().await?;
        if first {
            self.outbox_bell.notify_one();
        }
        Ok(())
    }

    /// Presence is not kept: after a reconnect the contact's server probes.
    async fn send_presence(&self, chat: &ChatKey, kind: Option<&str>) {
        if let Some(presence) = self.presence(chat, kind).await {
            let _ = self.link.write(&presence).await;
        }
    }

    async fn presence(&self, chat: &ChatKey, kind: Option<&str>) -> Option<Element> {
        let (own, contact) = self.jids(chat).ok()?;
        let nick = match kind {
            Some("subscribe") => self.name_of(&chat.local).await,
            _ => None,
        };
        let presence = El::stanza("presence")
            .attr("from", own.as_str())
            .attr("to", contact.as_str())
            .attr_if("type", kind)
            .children(kind.is_none().then(|| caps(&chat.local)).flatten())
            .children(nick.map(|name| El::new("nick", NICK).text(&name).build()))
            .build();
        Some(presence)
    }
}
