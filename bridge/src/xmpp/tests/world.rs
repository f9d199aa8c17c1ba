//! A component with a database, and the server at the other end of its stream.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use e2ee::omemo::{Bundle, DeviceId, DeviceList, Namespace};
use jid::BareJid;
use minidom::Element;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use ruma::{OwnedUserId, UserId, owned_event_id, owned_room_id, owned_user_id};
use tokio::{io::AsyncWriteExt as _, sync::Notify};

use super::{
    contact::{ALICE, BOB, Contact, now},
    server::{Server, answer_for},
};
use crate::{
    clock::Clock,
    network::{
        Answer, Author, ChatKey, Decider, DeviceDecision, IdentityTrust, Inquiries, Inquiry,
        LegSecurity, MessageContent, NetworkClient as _, NoAnswer, OutgoingMessage,
        PlaintextPolicy, RemoteEvent, RemoteEventKind, RemoteEvents, RemoteMessageId, RemoteUserId,
        SendError, Sent,
    },
    store::{
        Database, InboxId, Lane, NewInboxEvent, PendingRemoteEvent,
        testing::{self, TestDatabase},
    },
    xmpp::{
        XmppClient, XmppConfig,
        core::Core,
        reader::{Limits, StreamReader},
        xml::{self, El, PING, PUBSUB},
    },
};

/// Nothing in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long stanzas are held.
pub(super) const HOLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Stands still until it is moved.
#[derive(Default)]
pub(super) struct TestClock {
    passed: Mutex<Duration>,
    was_set_of_late: AtomicBool,
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        now() + *self.passed.lock().unwrap()
    }

    fn is_settled(&self) -> bool {
        !self.was_set_of_late.load(Ordering::SeqCst)
    }
}

impl TestClock {
    pub(super) fn pass(&self, time: Duration) {
        *self.passed.lock().unwrap() += time;
    }

    /// Somebody sets it, while no time passes.
    pub(super) fn set_ahead(&self, time: Duration) {
        self.pass(time);
        self.was_set_of_late.store(true, Ordering::SeqCst);
    }

    /// Nobody has set it for long.
    pub(super) fn settles(&self) {
        self.was_set_of_late.store(false, Ordering::SeqCst);
    }
}

/// The portal's doorbell.
#[derive(Default)]
pub(super) struct Bells {
    committed: Notify,
    pub rung: AtomicUsize,
    pub unblocked: Mutex<Vec<ChatKey>>,
}

impl RemoteEvents for Bells {
    fn committed(&self, _: &ChatKey) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        self.committed.notify_one();
    }

    fn accepted(&self, chat: &ChatKey) {
        self.committed(chat);
    }

    fn unblocked(&self, chat: &ChatKey) {
        self.unblocked.lock().unwrap().push(chat.clone());
    }
}

/// Who answers what is asked in forms, and notes it.
#[derive(Default)]
pub(super) struct Desk {
    /// The people whom everybody has chats with.
    pub people: Mutex<Vec<OwnedUserId>>,
    pub asked: Mutex<Vec<(RemoteUserId, Inquiry, Option<OwnedUserId>)>>,
}

#[async_trait]
impl Inquiries for Desk {
    async fn inquire(
        &self,
        contact: &RemoteUserId,
        inquiry: Inquiry,
        about: Option<&UserId>,
    ) -> Result<Answer, NoAnswer> {
        let asked = (contact.clone(), inquiry, about.map(ToOwned::to_owned));
        self.asked.lock().unwrap().push(asked);
        let people = self.people.lock().unwrap().clone();
        if about.is_none() && people.len() > 1 && inquiry != Inquiry::Help {
            return Ok(Answer::Whom(people));
        }
        let about = about.map_or("nobody", UserId::as_str);
        Ok(Answer::Text(match inquiry {
            Inquiry::Verify => format!("asked {about}"),
            _ => format!("one\ntwo {about}"),
        }))
    }
}

/// How the server treats the pings that confirm our stanzas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pings {
    Answered,
    Swallowed,
}

pub(super) struct World {
    pub client: Arc<XmppClient>,
    pub core: Arc<Core>,
    pub db: Database,
    pub bells: Arc<Bells>,
    pub clock: Arc<TestClock>,
    pub desk: Arc<Desk>,
    pub bob: Contact,
    pub pings: Pings,
    files: TestDatabase,
    server: Option<Server>,
}

pub(super) fn chat() -> ChatKey {
    ChatKey {
        local: Author::Person(owned_user_id!("@alice:example.com")),
        contact: RemoteUserId::new(BOB),
    }
}

impl World {
    /// A component whose stream is up, and Bob.
    pub(super) async fn new(bob: Contact) -> Self {
        let files = testing::sqlite();
        let db = files.open().await;
        let config = XmppConfig {
            component: BareJid::new("bridge.example.net").unwrap(),
            server: "localhost:5347".to_owned(),
            secret: "secret".to_owned().into(),
            hold: HOLD,
        };
        let bells = Arc::new(Bells::default());
        let clock = Arc::new(TestClock::default());
        let rng = Box::new(ChaCha20Rng::seed_from_u64(1));
        let desk = Arc::new(Desk::default());
        let parts = (bells.clone(), desk.clone());
        let client = XmppClient::new(config, db.clone(), clock.clone(), rng, parts.0, parts.1);
        let core = client.core();
        let mut world = Self {
            client,
            core,
            db,
            bells,
            clock,
            desk,
            bob,
            pings: Pings::Answered,
            files,
            server: None,
        };
        world.connect().await;
        world
    }

    /// Brings a stream up, after the one before has ended.
    pub(super) async fn connect(&mut self) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let core = Arc::clone(&self.core);
        let serving = self.core.tasks.spawn(async move { core.serve(ours).await });
        let mut server = Server {
            io: theirs,
            reader: StreamReader::new(Limits::default()),
            buffer: VecDeque::new(),
            serving,
        };
        server.open().await;
        self.server = Some(server);
    }

    /// Cuts the stream.
    pub(super) async fn disconnect(&mut self) {
        let server = self.server.take().expect("a stream is up");
        drop(server.io);
        server.serving.await.expect("the stream's task ends").unwrap_err();
    }

    /// Gives the component a stanza from the server.
    pub(super) async fn deliver(&mut self, stanza: &Element) {
        self.deliver_raw(&String::from(stanza)).await;
    }

    pub(super) async fn deliver_raw(&mut self, xml: &str) {
        let io = &mut self.server.as_mut().expect("a stream is up").io;
        io.write_all(xml.as_bytes()).await.unwrap();
    }

    /// A message to Alice.
    pub(super) fn message(from: &str, id: &str, children: Vec<Element>) -> Element {
        El::stanza("message")
            .attr("type", "chat")
            .attr("from", from)
            .attr("to", ALICE)
            .attr("id", id)
            .children(children)
            .build()
    }

    /// A text in the clear, to Alice.
    pub(super) fn plain(from: &str, id: &str, text: &str) -> Element {
        Self::message(from, id, vec![El::stanza("body").text(text).build()])
    }

    /// Encrypts Bob's text for Alice's device, whose bundle comes from the component itself.
    pub(super) async fn bob_says(&mut self, id: &str, text: &str, namespace: Namespace) -> Element {
        let (device, bundle) = self.fetch_alice(namespace).await;
        let encrypted = self.bob.encrypt(device, Some(bundle), text, namespace);
        let request = El::new("request", xml::RECEIPTS).build();
        let fallback = El::stanza("body").text("fallback").build();
        Self::message("bob@example.org/phone", id, vec![encrypted, request, fallback])
    }

    /// As [`Self::bob_says`], from his other device.
    pub(super) async fn laptop_says(
        &mut self,
        id: &str,
        text: &str,
        namespace: Namespace,
    ) -> Element {
        let (device, bundle) = self.fetch_alice(namespace).await;
        let laptop = self.bob.laptop.as_mut().expect("Bob has a laptop");
        let encrypted = laptop.encrypt(device, Some(bundle), text, namespace);
        Self::message("bob@example.org/laptop", id, vec![encrypted])
    }

    /// Bob gets another device, and his server says so.
    pub(super) async fn bob_gets_a_laptop(&mut self, seed: u64) {
        self.bob.laptop = Some(Box::new(Contact::new(seed)));
        for namespace in Namespace::ALL {
            let push = self.bob.push(namespace, &self.bob.devices());
            self.deliver(&Self::message(BOB, "pushed", vec![push])).await;
        }
        self.settle().await;
    }

    /// Alice's device and bundle, as Bob's client fetches them.
    pub(super) async fn fetch_alice(&mut self, namespace: Namespace) -> (DeviceId, Bundle) {
        let list = self.query_items(namespace.device_list_node()).await;
        let list = DeviceList::from_element(namespace, &list).unwrap();
        let device = list.devices[0];
        let (node, _) = Bundle::node_and_item(namespace, device);
        let bundle = self.query_items(&node).await;
        (device, Bundle::from_element(namespace, &bundle).unwrap())
    }

    async fn query_items(&mut self, node: &str) -> Element {
        let items = El::new("items", PUBSUB).attr("node", node);
        let answer = self.query("get", El::new("pubsub", PUBSUB).child(items).build()).await;
        let items = answer.get_child("pubsub", PUBSUB).unwrap().get_child("items", PUBSUB).unwrap();
        items.children().next().unwrap().children().next().unwrap().clone()
    }

    /// Bob's client asks Alice's account, and gets this answer.
    pub(super) async fn query(&mut self, kind: &str, payload: Element) -> Element {
        self.query_at(ALICE, kind, payload).await
    }

    pub(super) async fn query_at(&mut self, to: &str, kind: &str, payload: Element) -> Element {
        let iq = El::stanza("iq")
            .attr("type", kind)
            .attr("id", "query")
            .attr("from", "bob@example.org/phone")
            .attr("to", to)
            .child(payload)
            .build();
        self.deliver(&iq).await;
        self.next_where(|stanza| stanza.name() == "iq" && stanza.attr("id") == Some("query")).await
    }

    /// Alice says something; Bob's server answers meanwhile.
    pub(super) async fn alice_says(
        &mut self,
        id: &str,
        text: &str,
        plaintext: PlaintextPolicy,
    ) -> Result<Sent, SendError> {
        self.alice_says_for(None, id, text, plaintext).await
    }

    /// As [`Self::alice_says`], for an event of the Matrix inbox.
    pub(super) async fn alice_says_for(
        &mut self,
        inbox: Option<InboxId>,
        id: &str,
        text: &str,
        plaintext: PlaintextPolicy,
    ) -> Result<Sent, SendError> {
        let security = LegSecurity::Encrypted { identity: IdentityTrust::Pinned };
        let message = OutgoingMessage {
            inbox,
            chat: chat(),
            id: RemoteMessageId::new(id),
            content: MessageContent::Text { body: text.to_owned() },
            security,
            plaintext,
        };
        self.send(message).await
    }

    /// As [`Self::alice_says`], in the bridge's own name.
    pub(super) async fn bridge_says(
        &mut self,
        id: &str,
        text: &str,
        plaintext: PlaintextPolicy,
    ) -> Result<Sent, SendError> {
        self.send(OutgoingMessage {
            inbox: None,
            chat: ChatKey { local: Author::Bridge, ..chat() },
            id: RemoteMessageId::new(id),
            content: MessageContent::Text { body: text.to_owned() },
            security: LegSecurity::Plaintext,
            plaintext,
        })
        .await
    }

    /// Something goes to Bob, whose server answers meanwhile.
    pub(super) async fn send(&mut self, message: OutgoingMessage) -> Result<Sent, SendError> {
        let client = Arc::clone(&self.client);
        let send = client.send(message);
        tokio::pin!(send);
        loop {
            tokio::select! {
                sent = &mut send => return sent,
                () = self.serve_one() => {}
            }
        }
    }

    /// The next message stanza with content for Bob's device or in the clear; not pushes.
    pub(super) async fn next_message(&mut self) -> Element {
        self.next_where(|stanza| {
            stanza.name() == "message" && stanza.attr("type") != Some("headline")
        })
        .await
    }

    /// The oldest stanza of a kind that nobody has looked at; others are kept.
    pub(super) async fn next_where(&mut self, wanted: impl Fn(&Element) -> bool) -> Element {
        let found = async {
            loop {
                let buffer = &mut self.server.as_mut().expect("a stream is up").buffer;
                if let Some(at) = buffer.iter().position(&wanted) {
                    return buffer.remove(at).expect("it was found");
                }
                self.serve_one().await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the stanza comes in time")
    }

    /// Reads one stanza and does what a server does.
    async fn serve_one(&mut self) {
        let server = self.server.as_mut().expect("a stream is up");
        let stanza = server.read().await;
        let own_ping = stanza.get_child("ping", PING).is_some();
        if own_ping {
            match self.pings {
                Pings::Answered => server.write(&stanza).await,
                Pings::Swallowed => server.buffer.push_back(stanza),
            }
            return;
        }
        let to_bob = stanza.attr("to") == Some(BOB);
        if stanza.name() == "iq" && to_bob && stanza.attr("type") == Some("get") {
            let answer = answer_for(&self.bob, &stanza);
            server.write(&answer).await;
            return;
        }
        // A server sends the last item to whoever subscribes.
        if let Some(push) = self.bob.push_for_subscriber(&stanza) {
            server.write(&Self::message(BOB, "pushed", vec![push])).await;
        }
        server.buffer.push_back(stanza);
    }

    /// Alice decides about Bob's devices.
    pub(super) async fn decide(
        &mut self,
        fingerprints: &[String],
        decision: DeviceDecision,
    ) -> Result<usize, SendError> {
        let alice = Decider::Person(owned_user_id!("@alice:example.com"));
        let client = Arc::clone(&self.client);
        let chat = chat();
        let decide = client.decide(&chat, fingerprints, decision, &alice);
        tokio::pin!(decide);
        loop {
            tokio::select! {
                decided = &mut decide => return decided,
                () = self.serve_one() => {}
            }
        }
    }

    /// Waits for the next event of the portal's inbox, and ends it.
    pub(super) async fn next_event(&mut self) -> RemoteEventKind {
        let found = async {
            loop {
                if let Some(event) = self.take_event().await {
                    return event.kind;
                }
                tokio::select! {
                    () = self.bells.committed.notified() => {}
                    () = serve_pings(self.server.as_mut(), self.pings) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the event comes in time")
    }

    /// The oldest event of the portal's inbox, if there is one.
    pub(super) async fn take_event(&self) -> Option<RemoteEvent> {
        let mut tx = self.db.begin().await.unwrap();
        let mut oldest: Option<PendingRemoteEvent> = None;
        for lane in [Lane::Messages, Lane::Reports] {
            let pending = tx.remote_inbox().load_pending((&chat(), lane), None, 1).await.unwrap();
            oldest = oldest.into_iter().chain(pending).min_by_key(|row| row.id);
        }
        let pending = oldest?;
        tx.remote_inbox().mark_done(pending.id).await.unwrap();
        tx.commit().await.unwrap();
        Some(pending.event)
    }

    /// Returns when everything that was delivered so far has been worked on.
    pub(super) async fn settle(&mut self) {
        self.query("get", El::new("ping", PING).build()).await;
        let settled = async {
            while !self
                .db
                .read()
                .await
                .unwrap()
                .xmpp_inbox()
                .pending_chats()
                .await
                .unwrap()
                .is_empty()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("the inbox empties in time");
    }
}

impl World {
    /// An event in the Matrix inbox.
    pub(super) async fn matrix_event(&self) -> InboxId {
        let event = NewInboxEvent {
            event_id: owned_event_id!("$one"),
            room_id: owned_room_id!("!room:example.com"),
            sender: owned_user_id!("@alice:example.com"),
            event_type: "m.room.encrypted".to_owned(),
            state_key: None,
            origin_ts: 0,
            json: "{}".to_owned(),
        };
        let mut tx = self.db.begin().await.unwrap();
        let inserted = tx.matrix_inbox().insert(&[event], 0).await.unwrap();
        tx.commit().await.unwrap();
        inserted[0].expect("it is new")
    }

    pub(super) async fn pending_matrix_events(&self) -> Vec<InboxId> {
        let room = owned_room_id!("!room:example.com");
        let mut tx = self.db.read().await.unwrap();
        let pending = tx.matrix_inbox().load_pending(&room, None, 10).await.unwrap();
        pending.iter().map(|row| row.id).collect()
    }

    /// The bridge forgets all sessions with Bob. Returns how many there were.
    pub(super) async fn lose_sessions(&self) -> u64 {
        let mut connection = self.files.raw_connection().await;
        let result = sqlx::query("DELETE FROM xmpp_sessions").execute(&mut connection).await;
        result.unwrap().rows_affected()
    }

    /// Does something to the database behind the component's back.
    pub(super) async fn execute(&self, sql: &'static str) {
        let mut raw = self.files.raw_connection().await;
        sqlx::query(sql).execute(&mut raw).await.unwrap();
    }

    /// How many rows a table has.
    pub(super) async fn count(&self, table: &str) -> i64 {
        let mut raw = self.files.raw_connection().await;
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(&mut raw).await.unwrap()
    }

    /// When a session was last replaced, in milliseconds since 1970.
    pub(super) async fn last_heal(&self) -> Option<i64> {
        let mut raw = self.files.raw_connection().await;
        let newest = sqlx::query_scalar("SELECT MAX(healed_ms) FROM xmpp_heals");
        newest.fetch_one(&mut raw).await.unwrap()
    }

    /// How many stanzas of a kind have come and were not looked at.
    pub(super) fn count_buffered(&self, wanted: impl Fn(&Element) -> bool) -> usize {
        let server = self.server.as_ref().expect("a stream is up");
        server.buffer.iter().filter(|stanza| wanted(stanza)).count()
    }

    /// The next ping that is to confirm something.
    pub(super) async fn next_ping(&mut self) -> Element {
        self.next_where(|stanza| stanza.has_child("ping", PING)).await
    }
}

/// Keeps the confirmation of stanzas going; everything else is kept for later.
async fn serve_pings(server: Option<&mut Server>, pings: Pings) {
    let Some(server) = server else { return std::future::pending().await };
    let stanza = server.read().await;
    if stanza.get_child("ping", PING).is_none() {
        server.buffer.push_back(stanza);
    } else if pings == Pings::Answered {
        server.write(&stanza).await;
    }
}
