//! Many contacts in little memory: a component of the XMPP server, each of whose accounts is a [`Member`].

use anyhow::{Context, Result};
use e2ee::omemo::Namespace;
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tokio_xmpp::Component;
use tokio_xmpp::connect::{DnsConfig, TcpServerConnector};
use tokio_xmpp::xmlstream::Timeouts;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::Jid;
use xmpp_parsers::message::{Id, Message, MessageType};
use xmpp_parsers::presence::{Presence, Type};
use xmpp_parsers::receipts::{Received, Request};
use xmpp_parsers::stanza::Stanza;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use super::member::{Member, PUBSUB};
use crate::journal::{Journal, Writer, journal};
use crate::xmpp_server::{COMPONENT_SECRET, CROWD, XmppServer};

/// What happens to the contacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// One of them was shown a text.
    Text(String),
    /// One of them could not open a message.
    Unreadable,
    /// A message of theirs came back.
    Bounced,
}

/// The contacts. They leave when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    orders: mpsc::Sender<Order>,
    heard: Journal<Heard>,
    _end: DropGuard,
}

/// A contact is to write something.
struct Order {
    member: usize,
    text: String,
    written: oneshot::Sender<Result<()>>,
}

impl Crowd {
    /// So many contacts, every second of whom speaks the older form of OMEMO, and who write to `partner` (a bare JID).
    ///
    /// # Errors
    /// When the server does not let them in.
    pub async fn join(server: &XmppServer, number: usize, partner: String) -> Result<Self> {
        let members = (0..number).map(|index| {
            let namespace = if index.is_multiple_of(2) { Namespace::V2 } else { Namespace::Legacy };
            Member::new(jid_of(index), namespace)
        });
        let members = members.collect::<Result<Vec<_>>>()?;
        let server = DnsConfig::addr(&format!("127.0.0.1:{}", server.component_port()));
        let stream =
            Component::new_plaintext(CROWD, COMPONENT_SECRET, server, Timeouts::default()).await;
        let stream = stream.context("joining as a component")?;
        let (orders, to_write) = mpsc::channel(1);
        let (writer, heard) = journal();
        let end = CancellationToken::new();
        let ended = end.clone();
        let theirs = Theirs { members, partner, stream, heard: writer, written: 0 };
        TaskTracker::new()
            .spawn(async move { ended.run_until_cancelled(theirs.live(to_write)).await });
        Ok(Self { orders, heard, _end: end.drop_guard() })
    }

    /// A contact writes to the partner. Returns when the server has it.
    ///
    /// # Errors
    /// When the partner has not written to them before, or the stream has ended.
    pub async fn says(&self, member: usize, text: String) -> Result<()> {
        let (written, answer) = oneshot::channel();
        let order = Order { member, text, written };
        self.orders.send(order).await.ok().context("the contacts have gone")?;
        answer.await.context("the contacts have gone")?
    }

    /// What has happened to them.
    pub fn heard(&self) -> &Journal<Heard> {
        &self.heard
    }
}

/// The bare JID of a contact.
pub fn jid_of(member: usize) -> String {
    format!("c{member}@{CROWD}")
}

/// All that the one task of the contacts owns.
struct Theirs {
    members: Vec<Member>,
    partner: String,
    stream: Component<TcpServerConnector>,
    heard: Writer<Heard>,
    written: u64,
}

impl Theirs {
    /// Lives until the stream ends: whoever waits for the contacts then hears of it.
    async fn live(mut self, mut orders: mpsc::Receiver<Order>) -> Result<()> {
        loop {
            tokio::select! {
                stanza = self.stream.next() => {
                    self.take(stanza.context("the stream of the contacts has ended")?).await?;
                }
                Some(order) = orders.recv() => {
                    let said = self.say(order.member, &order.text).await;
                    // Whoever asked may have stopped waiting.
                    let _ = order.written.send(said);
                }
            }
        }
    }

    async fn say(&mut self, member: usize, text: &str) -> Result<()> {
        let member = self.members.get_mut(member).context("no such contact")?;
        let sealed = member.seal(&self.partner, text)?;
        let mut message = Message::new_with_type(MessageType::Chat, Jid::new(&self.partner)?);
        message.from = Some(Jid::new(member.jid())?);
        self.written += 1;
        message.id = Some(Id(format!("m{}", self.written)));
        message.payloads = vec![sealed, Request.into()];
        Ok(self.stream.send_stanza(message.into()).await?)
    }

    async fn take(&mut self, stanza: Stanza) -> Result<()> {
        match stanza {
            Stanza::Iq(request) => self.take_iq(request).await,
            Stanza::Presence(presence) => self.take_presence(presence).await,
            Stanza::Message(message) => self.take_message(message).await,
        }
    }

    async fn take_iq(&mut self, request: Iq) -> Result<()> {
        let (from, to, id, payload) = match request {
            Iq::Get { from, to, id, payload } => (from, to, id, Some(payload)),
            Iq::Set { from, to, id, .. } => (from, to, id, None),
            Iq::Result { .. } | Iq::Error { .. } => return Ok(()),
        };
        let items = payload.filter(|payload| payload.is("pubsub", PUBSUB)).and_then(|request| {
            let member = find(&mut self.members, to.as_ref())?;
            member.items(&request)
        });
        let answer = match items {
            Some(items) => Iq::Result { from: to, to: from, id, payload: Some(items) },
            None => {
                let condition = DefinedCondition::ItemNotFound;
                let error = StanzaError::new(ErrorType::Cancel, condition, "en", "");
                Iq::Error { from: to, to: from, id, payload: None, error }
            }
        };
        Ok(self.stream.send_stanza(answer.into()).await?)
    }

    /// Grants what is asked for, as people do.
    async fn take_presence(&mut self, presence: Presence) -> Result<()> {
        if let (Type::Subscribe, Some(from), Some(to)) =
            (presence.type_, presence.from, presence.to)
        {
            let granted = Presence::new(Type::Subscribed).with_from(to).with_to(from);
            self.stream.send_stanza(granted.into()).await?;
        }
        Ok(())
    }

    async fn take_message(&mut self, message: Message) -> Result<()> {
        if message.type_ == MessageType::Error {
            self.heard.push(Heard::Bounced);
            return Ok(());
        }
        let encrypted = message.payloads.iter().find(|payload| payload.name() == "encrypted");
        let (Some(encrypted), Some(from), Some(to)) = (encrypted, &message.from, &message.to)
        else {
            return Ok(());
        };
        let Some(member) = find(&mut self.members, Some(to)) else { return Ok(()) };
        match member.open(from.to_bare().as_str(), encrypted) {
            Ok(Some(text)) => self.heard.push(Heard::Text(text)),
            Ok(None) => return Ok(()),
            Err(_) => {
                self.heard.push(Heard::Unreadable);
                return Ok(());
            }
        }
        let Some(Id(id)) = message.id else { return Ok(()) };
        let mut receipt = Message::new_with_type(MessageType::Chat, from.clone());
        receipt.from = Some(to.clone());
        Ok(self.stream.send_stanza(receipt.with_payload(Received { id }).into()).await?)
    }
}

/// The contact who is called so.
fn find<'m>(members: &'m mut [Member], jid: Option<&Jid>) -> Option<&'m mut Member> {
    let number = jid?.node()?.as_str().strip_prefix('c')?.parse::<usize>().ok()?;
    members.get_mut(number)
}
