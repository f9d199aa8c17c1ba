//! Where a stanza goes that came over the stream.

use jid::BareJid;
use minidom::Element;
use sha2::{Digest as _, Sha256};

use super::{
    convert::from_stanza::{self, Body, Incoming},
    core::Core,
    reader::{Reason, Refused},
    stanza::{self, Head, Refusal},
    xml::{self, COMPONENT, PUBSUB_EVENT},
};
use crate::{
    error_chain,
    network::{Author, ChatKey, RemoteUserId},
    store::{Lane, Repetition, StoreError, Transaction},
};

/// Messages of a contact that may wait in a chat, for a decision or for the homeserver. A server keeps no more for
/// somebody who is away either; the author of one more message is told that it was not taken.
const MAX_WAITING_MESSAGES: u32 = 1000;

/// Receipts and errors that may wait there, with what our own server has confirmed: the homeserver may be behind with
/// telling the person. One more is dropped.
const MAX_WAITING_REPORTS: u32 = 10_000;

/// And how much room each of these may take in the store.
const MAX_WAITING_BYTES: u64 = 16 * 1024 * 1024;

/// How long a message in the clear with the same id and text is taken for the same message.
const PLAIN_REPETITION_MS: i64 = 60 * 60 * 1000;

/// What became of a stanza that is to be stored.
enum Taken {
    /// It is stored, now or already: a repetition may be of a commit that was not confirmed.
    Stored,
    /// As much waits in its chat as may.
    Full,
}

impl Core {
    /// Takes a stanza from the stream. Returns when whatever must not be lost is committed.
    pub(super) async fn receive(&self, stanza: Element) {
        let Some(head) = Head::read(&stanza) else { return self.turn_back(&stanza).await };
        let (from, to) = (head.from.bare(), head.to.bare());
        if self.addresses.is_ours(from) {
            // Only our own pings may come from our own domain.
            if stanza.name() == "iq" {
                self.link.answer(head.from.as_str(), &stanza);
            }
            return;
        }
        let author = self.addresses.is_ours(to).then(|| self.addresses.find_author(to));
        let Some(author) = author else { return };
        if stanza.ns() != COMPONENT {
            return;
        }
        match (stanza.name(), head.kind) {
            ("iq", Some("result" | "error")) => {
                self.link.answer(head.from.as_str(), &stanza);
            }
            ("iq", _) => self.answer_iq(&head, author.as_ref(), &stanza).await,
            (name @ ("presence" | "message"), _) => match author {
                Some(local) => {
                    let chat = ChatKey { local, contact: RemoteUserId::new(from.as_str()) };
                    self.receive_from(&head, from, &chat, &stanza).await;
                }
                None if name == "message" => {
                    self.refuse_message(&head, Refusal::ItemNotFound).await
                }
                None => {}
            },
            _ => {}
        }
    }

    async fn receive_from(
        &self,
        head: &Head<'_>,
        contact: &BareJid,
        chat: &ChatKey,
        stanza: &Element,
    ) {
        // While the store does not answer, what follows waits for it, or does nothing.
        let admitted = self.admits(contact, &chat.local).await.unwrap_or(true);
        match (stanza.name(), admitted) {
            ("presence", true) => self.receive_presence(head, chat).await,
            ("message", true) => self.receive_message(head, chat, stanza).await,
            ("message", false) => self.refuse_message(head, Refusal::ResourceConstraint).await,
            _ => {}
        }
    }

    async fn receive_message(&self, head: &Head<'_>, chat: &ChatKey, stanza: &Element) {
        // An error may carry back a push of ours.
        let is_error = head.kind == Some("error");
        if let Some(event) = stanza.get_child("event", PUBSUB_EVENT).filter(|_| !is_error) {
            return self.receive_push(chat, event).await;
        }
        let incoming = from_stanza::read(stanza);
        if incoming == Incoming::Ignored {
            return;
        }
        let lane = match incoming {
            Incoming::Message(_) => Lane::Messages,
            _ => Lane::Reports,
        };
        let (hash, repetition) = self.repetition(chat, &incoming);
        let bytes = xml::to_bytes(stanza);
        loop {
            match self.commit_stanza((chat, lane), &hash, repetition, &bytes).await {
                Ok(Taken::Stored) => return self.inbox.ring(chat.clone()),
                Ok(Taken::Full) => return self.turn_away(head, lane).await,
                Err(error) => {
                    tracing::error!(error = error_chain(&error), "xmpp.inbox: a stanza waits")
                }
            }
            // The stream is not read on meanwhile, so nothing is lost.
            if self.pause().await.is_break() {
                return;
            }
        }
    }

    /// Refuses what has no room in its chat. A receipt or an error is worth no answer.
    async fn turn_away(&self, head: &Head<'_>, lane: Lane) {
        if lane == Lane::Reports {
            tracing::warn!("xmpp.inbox: too much waits in a chat: a receipt was dropped");
            return;
        }
        tracing::warn!("xmpp.inbox: too much waits in a chat: a message was refused");
        self.refuse_message(head, Refusal::ResourceConstraint).await;
    }

    async fn commit_stanza(
        &self,
        (chat, lane): (&ChatKey, Lane),
        hash: &str,
        repetition: Repetition,
        bytes: &[u8],
    ) -> Result<Taken, StoreError> {
        let mut tx = self.db.begin().await?;
        let inserted = tx.xmpp_inbox().insert(chat, hash, repetition, bytes, self.now_ms()).await?;
        if inserted.is_none() {
            tracing::debug!("xmpp.inbox: a repetition was dropped");
            return Ok(Taken::Stored);
        }
        if is_too_much(&mut tx, chat, lane).await? {
            return Ok(Taken::Full);
        }
        failpoint!("w01_stanza_received");
        tx.commit().await?;
        failpoint!("w02_stanza_committed");
        Ok(Taken::Stored)
    }

    pub(super) fn repetition(&self, chat: &ChatKey, incoming: &Incoming) -> (String, Repetition) {
        let Incoming::Message(message) = incoming else {
            return (String::new(), Repetition::Never);
        };
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        part(chat.contact.as_str());
        let repetition = match (&message.body, &message.id) {
            (Body::Omemo(elements), _) => {
                elements.iter().for_each(|element| part(&String::from(element)));
                Repetition::Always
            }
            (Body::Plain(text), Some(id)) => {
                part(id.as_str());
                part(text);
                Repetition::Since(self.now_ms().saturating_sub(PLAIN_REPETITION_MS))
            }
            _ => Repetition::Never,
        };
        (hex::encode(hash.finalize()), repetition)
    }

    async fn refuse_message(&self, head: &Head<'_>, why: Refusal) {
        if head.kind == Some("error") {
            return;
        }
        let (from, to) = (head.from.as_str(), head.to.as_str());
        self.refuse("message", from, to, head.id, why).await;
    }

    /// Refuses a stanza with an address that names nobody. The server has let it through, so whoever wrote it would
    /// wait for an answer.
    async fn turn_back(&self, stanza: &Element) {
        if stanza.ns() != COMPONENT {
            return;
        }
        let known = |name: &str| stanza.attr(name).map(str::to_owned);
        let refused = Refused {
            name: stanza.name().to_owned(),
            from: known("from"),
            to: known("to"),
            id: known("id"),
            kind: known("type"),
            reason: Reason::Address,
        };
        self.bounce(&refused).await;
    }

    /// Refuses a stanza that is not looked into any further.
    pub(super) async fn bounce(&self, refused: &Refused) {
        tracing::warn!(reason = ?refused.reason, "xmpp.stream: a stanza was refused");
        let kind = refused.kind.as_deref();
        let answer = match refused.name.as_str() {
            "iq" => matches!(kind, Some("get" | "set")),
            "message" => !matches!(kind, Some("error" | "headline" | "groupchat")),
            _ => false,
        };
        let (Some(from), Some(to), true) = (&refused.from, &refused.to, answer) else { return };
        let why = match refused.reason {
            Reason::Address => Refusal::JidMalformed,
            _ => Refusal::NotAcceptable,
        };
        self.refuse(&refused.name, from, to, refused.id.as_deref(), why).await;
    }

    pub(super) async fn refuse(
        &self,
        name: &str,
        from: &str,
        to: &str,
        id: Option<&str>,
        why: Refusal,
    ) {
        // Whoever waits for it will ask again when the stream is up again.
        let _ = self.link.write(&stanza::refuse(name, from, to, id, why)).await;
    }

    /// The account of the bridge itself is not a person's.
    pub(super) fn is_bridge(author: &Author) -> bool {
        matches!(author, Author::Bridge)
    }
}

/// Whether more waits in a chat than may, with what this transaction has put there. What a stanza is that nobody has
/// looked into yet is not known, so all of those count.
async fn is_too_much(tx: &mut Transaction, chat: &ChatKey, lane: Lane) -> Result<bool, StoreError> {
    let most = match lane {
        Lane::Messages => MAX_WAITING_MESSAGES,
        Lane::Reports => MAX_WAITING_REPORTS,
    };
    let limit = most.saturating_add(1);
    let open = tx.xmpp_inbox().measure(chat, limit).await?;
    let waiting = open.and(tx.remote_inbox().measure((chat, lane), limit).await?);
    Ok(waiting.rows > u64::from(most) || waiting.bytes > MAX_WAITING_BYTES)
}
