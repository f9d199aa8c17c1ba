//! What the hub decides, in rooms that are not encrypted, beside a homeserver that does next to nothing.

mod backlog;
mod contact_trust;
mod decisions;
mod downgrade;
mod expiry;
mod homeserver;
mod legs;
mod membership;
mod undelivered;
mod verification;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use assert_matches::assert_matches;
use async_trait::async_trait;
use ruma::{OwnedRoomId, UserId, owned_room_id, owned_user_id, user_id};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zeroize::Zeroizing;

use self::homeserver::Homeserver;
use super::*;
use crate::{
    clock::Clock,
    commands::{self, Call},
    config::{Permission, Subject},
    matrix::{DeviceLimits, DevicesParts},
    network::{
        Author, Capabilities, Decider, DeviceDecision, DeviceTrust, Held, Hold, IdentityTrust,
        InvalidContact, LegSecurity, MessageContent, OutgoingMessage, OwnDevice, PlaintextPolicy,
        RemoteDevice, RemoteEvent, RemoteEventKind, RemoteMessageId, RemoteUserId, SendError, Sent,
        Undecided, VerifyUriError,
    },
    queue::{Drain, Drained},
    store::{
        Lane, NewInboxEvent, NewPortal, Portal, PortalState, RoomEncryption,
        testing::{TestDatabase, sqlite},
    },
};

const ENCRYPTED: LegSecurity = LegSecurity::Encrypted { identity: IdentityTrust::Pinned };

/// A network where every text is an address.
struct AnyNetwork;

impl Network for AnyNetwork {
    fn name(&self) -> &'static str {
        "any"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { max_text_bytes: 1000, encryption: "ANY", emotes: true }
    }

    fn parse_contact(&self, text: &str) -> Result<RemoteUserId, InvalidContact> {
        Ok(RemoteUserId::new(text))
    }
}

/// What the network does with people's messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Everything,
    /// And the bridge's own words.
    Nothing,
    /// The contact's server is away: not even the bridge's own words go.
    Outage,
}

/// A clock that stands still until it is moved, and begins in 1970.
struct TestClock {
    began: Instant,
    passed_ms: AtomicU64,
    set_ahead_ms: AtomicU64,
    was_set_of_late: AtomicBool,
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        let ahead = Duration::from_millis(self.set_ahead_ms.load(Ordering::SeqCst));
        SystemTime::UNIX_EPOCH + self.passed() + ahead
    }

    fn moment(&self) -> Instant {
        self.began + self.passed()
    }

    fn is_settled(&self) -> bool {
        !self.was_set_of_late.load(Ordering::SeqCst)
    }
}

impl TestClock {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            passed_ms: AtomicU64::default(),
            set_ahead_ms: AtomicU64::default(),
            was_set_of_late: AtomicBool::default(),
        }
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }

    fn pass(&self, time: Duration) {
        self.passed_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Somebody sets it, while no time passes.
    fn set_ahead(&self, time: Duration) {
        self.set_ahead_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        self.was_set_of_late.store(true, Ordering::SeqCst);
    }

    /// Nobody has set it for long.
    fn settles(&self) {
        self.was_set_of_late.store(false, Ordering::SeqCst);
    }
}

/// A network that notes what it is asked.
struct Remote {
    db: Database,
    takes: Mutex<Takes>,
    sent: Mutex<Vec<(ChatKey, String)>>,
    has_sent: Notify,
    /// What the bridge itself has said, and Alice's identity that counted then.
    told_under: Mutex<Vec<(String, Option<String>)>>,
    decided: Mutex<Vec<(DeviceDecision, Vec<String>)>>,
    devices: Mutex<Vec<RemoteDevice>>,
    /// Whether Alice has verified a device of Bob's, now or earlier.
    was_verified: AtomicBool,
}

#[async_trait]
impl NetworkClient for Remote {
    async fn run(&self, _: CancellationToken) {}

    async fn send(&self, message: OutgoingMessage) -> Result<Sent, SendError> {
        match (*self.takes.lock().unwrap(), &message.chat.local) {
            (Takes::Outage, _) => return Err(SendError::Temporary),
            (Takes::Nothing, Author::Person(_)) => {
                return Err(SendError::Held(Hold::NoUsableDevice));
            }
            (Takes::Nothing, Author::Bridge) | (Takes::Everything, _) => {}
        }
        let MessageContent::Text { body } = message.content else { panic!("no text") };
        let mut tx = self.db.begin().await.unwrap();
        if tx.contact_decisions().is_distrusted(&message.chat).await.unwrap() {
            return Err(SendError::Held(Hold::DistrustedByContact));
        }
        if let Some(inbox) = message.inbox {
            // Two may be at it: the queue and the test.
            if tx.matrix_inbox().mark_done(inbox).await.is_err() {
                return Err(SendError::Temporary);
            }
            tx.portals().encryption_was_used("any", &message.chat).await.unwrap();
        }
        if message.chat.local == Author::Bridge {
            let pin = tx.pins().find(alice()).await.unwrap();
            let told = (body.clone(), pin.map(|pin| pin.master_key));
            self.told_under.lock().unwrap().push(told);
        }
        tx.commit().await.unwrap();
        self.sent.lock().unwrap().push((message.chat, body));
        self.has_sent.notify_one();
        Ok(Sent { security: ENCRYPTED })
    }

    async fn decide(
        &self,
        _: &ChatKey,
        fingerprints: &[String],
        decision: DeviceDecision,
        decided_by: &Decider,
    ) -> Result<usize, SendError> {
        assert!(*decided_by == Decider::Person(alice().to_owned()));
        self.decided.lock().unwrap().push((decision, fingerprints.to_vec()));
        Ok(fingerprints.len())
    }

    async fn own_uri(&self, _: &Author) -> Result<String, SendError> {
        Err(SendError::Temporary)
    }

    async fn own_device(&self, _: &Author) -> Result<OwnDevice, SendError> {
        Err(SendError::Temporary)
    }

    async fn match_uri(&self, _: &ChatKey, _: &str) -> Result<Vec<String>, VerifyUriError> {
        Err(VerifyUriError::Mismatch { devices: vec!["7".to_owned()] })
    }

    async fn undecided(&self, _: &ChatKey) -> Result<Undecided, SendError> {
        let devices = self.devices.lock().unwrap().clone();
        Ok(Undecided { held: Held { messages: 2, since_ms: Some(1000) }, devices })
    }

    async fn new_devices_wait(&self, _: &ChatKey) -> Result<bool, SendError> {
        Ok(self.was_verified.load(Ordering::SeqCst))
    }

    async fn contact_name(&self, _: &RemoteUserId) -> Option<String> {
        None
    }

    async fn publish_name(&self, _: &UserId, _: &str) {}

    async fn devices(&self, _: &ChatKey) -> Result<Vec<RemoteDevice>, SendError> {
        Ok(self.devices.lock().unwrap().clone())
    }
}

struct World {
    hub: Arc<Hub>,
    remote: Arc<Remote>,
    clock: Arc<TestClock>,
    homeserver: Homeserver,
    db: Database,
    _files: TestDatabase,
}

fn room() -> OwnedRoomId {
    owned_room_id!("!room:example.org")
}

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

fn chat() -> ChatKey {
    chat_with(alice())
}

fn chat_with(user: &UserId) -> ChatKey {
    let contact = RemoteUserId::new("bob@example.net");
    ChatKey { local: Author::Person(user.to_owned()), contact }
}

impl World {
    /// Alice's chat with Bob, in a room that is not encrypted.
    async fn new() -> Self {
        Self::with_policy(PolicyConfig::default()).await
    }

    async fn with_policy(policy: PolicyConfig) -> Self {
        let files = sqlite();
        let db = files.open().await;
        let clock = Arc::new(TestClock::new());
        let remote = Arc::new(Remote {
            db: db.clone(),
            takes: Mutex::new(Takes::Everything),
            sent: Mutex::default(),
            has_sent: Notify::new(),
            told_under: Mutex::default(),
            decided: Mutex::default(),
            devices: Mutex::default(),
            was_verified: AtomicBool::default(),
        });
        let homeserver = Homeserver::start().await;
        let hub = Self::hub(&db, &clock, &remote, &homeserver, policy);
        let world = Self { hub, remote, clock, homeserver, db, _files: files };
        world.make_portal().await;
        world
    }

    /// As after a restart: what is in memory is gone.
    fn restart(&mut self) {
        let policy = self.hub.parts.policy;
        self.hub = Self::hub(&self.db, &self.clock, &self.remote, &self.homeserver, policy);
    }

    fn hub(
        db: &Database,
        clock: &Arc<TestClock>,
        remote: &Arc<Remote>,
        homeserver: &Homeserver,
        policy: PolicyConfig,
    ) -> Arc<Hub> {
        let http = reqwest::Client::builder().build().unwrap();
        let client = MatrixClient::new(http, homeserver.url(), Zeroizing::new("token".to_owned()))
            .with_first_wait(Duration::from_millis(1));
        let namespace = Namespace::new("any", owned_user_id!("@gephyra:example.org"));
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let doorbells = Doorbells::new(tracker.clone());
        let devices = Devices::new(DevicesParts {
            client: client.clone(),
            db: db.clone(),
            clock: clock.clone(),
            namespace: namespace.clone(),
            events: doorbells.clone(),
            tracker: tracker.clone(),
            stop: stop.clone(),
            limits: DeviceLimits::default(),
        });
        let outbox =
            Outbox::new(doorbells, db.clone(), client.clone(), tracker.clone(), stop.clone());
        let parts = Parts {
            db: db.clone(),
            clock: clock.clone(),
            client,
            devices,
            outbox,
            network: Arc::new(AnyNetwork),
            remote: remote.clone(),
            namespace,
            permissions: [(Subject::User(alice().to_owned()), Permission::User)]
                .into_iter()
                .collect(),
            policy,
        };
        Hub::new(parts, tracker, stop)
    }

    async fn make_portal(&self) {
        self.make_portal_with(&chat().contact, room()).await;
        let mut tx = self.db.begin().await.unwrap();
        tx.portals().set_plaintext(&room(), PlaintextPolicy::Allow).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn make_portal_with(&self, contact: &RemoteUserId, room_id: OwnedRoomId) {
        let mut tx = self.db.begin().await.unwrap();
        let portal = NewPortal {
            room_id,
            network: "any".to_owned(),
            local: alice().to_owned(),
            contact: contact.clone(),
            ghost: owned_user_id!("@any_bob=40example.net:example.org"),
            encryption: RoomEncryption::Plain,
            state: PortalState::Active,
        };
        tx.portals().insert(&portal).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn portal(&self) -> Portal {
        let mut tx = self.db.read().await.unwrap();
        tx.portals().find_by_room(&room()).await.unwrap().unwrap()
    }

    /// Alice has left the room.
    async fn close_portal(&self) {
        let mut tx = self.db.begin().await.unwrap();
        tx.portals().set_state(&room(), PortalState::Closed).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// An event of Alice's comes, and the room is worked on.
    async fn alice_says(&self, id: &str, text: &str) {
        self.alice_writes(id, text).await;
        Drain::<OwnedRoomId>::drain(&*self.hub, &room()).await;
    }

    /// An event of Alice's comes.
    async fn alice_writes(&self, id: &str, text: &str) {
        self.writes(alice(), id, text).await;
    }

    async fn writes(&self, sender: &UserId, id: &str, text: &str) {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.pushed(event(sender, id, "m.room.message", content)).await;
    }

    /// The homeserver pushes an event.
    async fn pushed(&self, event: NewInboxEvent) {
        let mut tx = self.db.begin().await.unwrap();
        let now_ms = i64::try_from(self.clock.now_ms()).unwrap();
        tx.matrix_inbox().insert(&[event], now_ms).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Something comes from Bob, and his chat is worked on.
    async fn bob(&self, chat: &ChatKey, kind: RemoteEventKind) {
        self.comes(chat, kind).await;
        self.drain(chat).await;
    }

    /// Works on a chat: on what lane nothing is left, and on what not.
    async fn drain(&self, chat: &ChatKey) -> [Drained; 2] {
        let [messages, reports] = Lane::ALL.map(|lane| (chat.clone(), lane));
        [
            Drain::<(ChatKey, Lane)>::drain(&*self.hub, &messages).await,
            Drain::<(ChatKey, Lane)>::drain(&*self.hub, &reports).await,
        ]
    }

    /// Something comes from the other network.
    async fn comes(&self, chat: &ChatKey, kind: RemoteEventKind) {
        let event = RemoteEvent { chat: chat.clone(), sent_at_ms: None, kind };
        let mut tx = self.db.begin().await.unwrap();
        tx.remote_inbox().insert(&event).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// What the bot and the ghosts have said.
    async fn said(&self) -> Vec<String> {
        let mut tx = self.db.read().await.unwrap();
        let rows = tx.matrix_outbox().load_pending(&room(), 100).await.unwrap();
        let body = |content: &str| {
            let content: Value = serde_json::from_str(content).unwrap();
            content["body"].as_str().unwrap().to_owned()
        };
        rows.iter().map(|row| body(&row.event.content)).collect()
    }

    async fn command(&self, identity: IdentityTrust, command: &str) -> String {
        let portal = self.portal().await;
        let call = Call {
            hub: &self.hub,
            sender: alice(),
            room: &portal.room_id,
            encryption: portal.encryption,
            portal: Some(&portal),
            security: LegSecurity::Encrypted { identity },
            identity: Some("master key"),
        };
        commands::run(&call, command).await
    }
}

/// An event of the room.
fn event(sender: &UserId, id: &str, event_type: &str, content: Value) -> NewInboxEvent {
    NewInboxEvent {
        event_id: id.try_into().unwrap(),
        room_id: room(),
        sender: sender.to_owned(),
        event_type: event_type.to_owned(),
        state_key: None,
        origin_ts: 0,
        json: json!({ "type": event_type, "content": content }).to_string(),
    }
}

/// A device that waits.
fn device(id: &str, fingerprint: &str) -> RemoteDevice {
    RemoteDevice {
        id: id.to_owned(),
        fingerprint: fingerprint.to_owned(),
        trust: DeviceTrust::Waiting,
        since_ms: Some(1000),
    }
}

fn message(security: LegSecurity) -> RemoteEventKind {
    let content = MessageContent::Text { body: "hi".to_owned() };
    RemoteEventKind::Message { id: None, content, security }
}
