//! What the hub decides, in rooms that are not encrypted: no homeserver answers here.

mod backlog;
mod contact_trust;
mod downgrade;
mod expiry;
mod legs;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use assert_matches::assert_matches;
use async_trait::async_trait;
use ruma::{OwnedRoomId, UserId, owned_room_id, owned_user_id, user_id};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;
use zeroize::Zeroizing;

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
    queue::Drain,
    store::{
        NewInboxEvent, NewPortal, Portal, PortalState, RoomEncryption,
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
#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl TestClock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

/// A network that notes what it is asked.
struct Remote {
    db: Database,
    takes: Mutex<Takes>,
    sent: Mutex<Vec<(ChatKey, String)>>,
    decided: Mutex<Vec<(DeviceDecision, Vec<String>)>>,
    devices: Mutex<Vec<RemoteDevice>>,
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
        tx.commit().await.unwrap();
        self.sent.lock().unwrap().push((message.chat, body));
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
        let clock = Arc::new(TestClock::default());
        let remote = Arc::new(Remote {
            db: db.clone(),
            takes: Mutex::new(Takes::Everything),
            sent: Mutex::default(),
            decided: Mutex::default(),
            devices: Mutex::default(),
        });
        let hub = Self::hub(&db, &clock, &remote, policy);
        let world = Self { hub, remote, clock, db, _files: files };
        world.make_portal().await;
        world
    }

    /// As after a restart: what is in memory is gone.
    fn restart(&mut self) {
        let policy = self.hub.parts.policy;
        self.hub = Self::hub(&self.db, &self.clock, &self.remote, policy);
    }

    fn hub(
        db: &Database,
        clock: &Arc<TestClock>,
        remote: &Arc<Remote>,
        policy: PolicyConfig,
    ) -> Arc<Hub> {
        let nowhere = Url::parse("http://127.0.0.1:9/").unwrap();
        let http = reqwest::Client::builder().build().unwrap();
        let client = MatrixClient::new(http, &nowhere, Zeroizing::new("token".to_owned()))
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
        let mut tx = self.db.begin().await.unwrap();
        let portal = NewPortal {
            room_id: room(),
            network: "any".to_owned(),
            local: alice().to_owned(),
            contact: chat().contact,
            ghost: owned_user_id!("@any_bob=40example.net:example.org"),
            encryption: RoomEncryption::Plain,
            state: PortalState::Active,
        };
        tx.portals().insert(&portal).await.unwrap();
        tx.portals().set_plaintext(&room(), PlaintextPolicy::Allow).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn portal(&self) -> Portal {
        let mut tx = self.db.read().await.unwrap();
        tx.portals().find_by_room(&room()).await.unwrap().unwrap()
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
        let json =
            json!({ "type": "m.room.message", "content": { "msgtype": "m.text", "body": text } });
        let event = NewInboxEvent {
            event_id: id.try_into().unwrap(),
            room_id: room(),
            sender: sender.to_owned(),
            event_type: "m.room.message".to_owned(),
            state_key: None,
            origin_ts: 0,
            json: json.to_string(),
        };
        let mut tx = self.db.begin().await.unwrap();
        let now_ms = i64::try_from(self.clock.now_ms()).unwrap();
        tx.matrix_inbox().insert(&[event], now_ms).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Something comes from Bob, and his chat is worked on.
    async fn bob(&self, chat: &ChatKey, kind: RemoteEventKind) {
        let event = RemoteEvent { chat: chat.clone(), sent_at_ms: None, kind };
        let mut tx = self.db.begin().await.unwrap();
        tx.remote_inbox().insert(&event).await.unwrap();
        tx.commit().await.unwrap();
        Drain::<ChatKey>::drain(&*self.hub, chat).await;
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

#[tokio::test]
async fn consent_to_plaintext_ends_with_the_first_encrypted_message_of_either_side() {
    let world = World::new().await;
    world.bob(&chat(), message(LegSecurity::Plaintext)).await;
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Allow);
    world.bob(&chat(), message(ENCRYPTED)).await;
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Refuse);

    world.command(IdentityTrust::Pinned, "plaintext allow").await;
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Allow);
    world.alice_says("$1", "hi").await;
    assert!(world.remote.sent.lock().unwrap().iter().any(|(_, text)| text == "hi"));
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Refuse);
}

#[tokio::test]
async fn a_changed_identity_decides_nothing_about_others() {
    let world = World::new().await;
    world.command(IdentityTrust::Pinned, "plaintext refuse").await;
    world.command(IdentityTrust::Changed, "plaintext allow").await;
    assert_eq!(world.portal().await.plaintext, PlaintextPolicy::Refuse);
    let fingerprint = "00".repeat(32);
    *world.remote.devices.lock().unwrap() = vec![device("7", &fingerprint)];
    for command in [
        "approve".to_owned(),
        format!("trust {fingerprint}"),
        format!("distrust {fingerprint}"),
        "rotate".to_owned(),
        "qr xmpp:bob@example.net".to_owned(),
    ] {
        let answer = world.command(IdentityTrust::Changed, &command).await;
        assert!(answer.starts_with("Approve your own identity first"), "{command}: {answer}");
    }
    assert!(world.remote.decided.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_new_fingerprint_is_said_once_and_only_those_are_approved() {
    let world = World::new().await;
    for fingerprint in ["aaaa", "bbbb", "aaaa"] {
        let hold = Hold::IdentityChanged { fingerprints: vec![fingerprint.to_owned()] };
        world.bob(&chat(), RemoteEventKind::Held(hold)).await;
    }
    for _ in 0..2 {
        let hold = Hold::NewDevices { fingerprints: vec!["cccc".to_owned()] };
        world.bob(&chat(), RemoteEventKind::Held(hold)).await;
    }
    let said = world.said().await;
    assert_eq!(said.len(), 3, "{said:?}");
    for (text, fingerprint) in said.iter().zip(["aaaa", "bbbb", "cccc"]) {
        assert!(text.contains(fingerprint), "{said:?}");
    }
    world.command(IdentityTrust::Pinned, "approve").await;
    let all = ["aaaa", "bbbb", "cccc"].map(str::to_owned).to_vec();
    assert_eq!(*world.remote.decided.lock().unwrap(), [(DeviceDecision::Approve, all)]);
    world.command(IdentityTrust::Pinned, "approve").await;
    assert!(world.remote.decided.lock().unwrap()[1].1.is_empty(), "said and settled");
}

#[tokio::test]
async fn a_device_is_trusted_by_its_whole_fingerprint_only() {
    let world = World::new().await;
    let fingerprint = "0123abcd ".repeat(8).trim().to_owned();
    *world.remote.devices.lock().unwrap() = vec![device("7", &fingerprint)];
    for (command, words) in [
        ("trust", "Usage"),
        ("trust 0123abcd", "whole fingerprint"),
        ("trust 4567ef01", "no device"),
        ("distrust 0123", "at least the first 8 digits"),
        ("distrust", "Usage"),
    ] {
        let answer = world.command(IdentityTrust::Pinned, command).await;
        assert!(answer.contains(words), "{command}: {answer}");
    }
    assert!(world.remote.decided.lock().unwrap().is_empty());
    let typed = format!("trust {}", fingerprint.to_uppercase());
    world.command(IdentityTrust::Pinned, &typed).await;
    let decided = world.remote.decided.lock().unwrap().clone();
    assert_eq!(decided, [(DeviceDecision::Verify, vec![fingerprint])]);
}

#[tokio::test]
async fn a_key_that_does_not_match_is_said_loudly() {
    let world = World::new().await;
    let answer = world.command(IdentityTrust::Pinned, "qr xmpp:bob@example.net").await;
    assert!(answer.contains("DO NOT MATCH") && answer.contains('7'), "{answer}");
    assert!(world.remote.decided.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_waits_is_told_with_its_reason_and_age() {
    let world = World::new().await;
    *world.remote.devices.lock().unwrap() = vec![device("7", "0123abcd")];
    *world.remote.takes.lock().unwrap() = Takes::Nothing;
    world.alice_says("$1", "hi").await;
    world.alice_says("$2", "are you there?").await;
    // What the bot has said comes back from the homeserver.
    world.writes(user_id!("@gephyra:example.org"), "$3", "Your messages wait").await;
    let told = world.command(IdentityTrust::Pinned, "pending").await;
    for words in [
        "bob@example.net:",
        "2 messages, since 1970-01-01T00:00:00Z of yours",
        "2 messages, since 1970-01-01T00:00:01Z of your contact",
        "Device 7: new, waits for you",
        "0123abcd",
    ] {
        assert!(told.contains(words), "{words} is not in: {told}");
    }
}

#[tokio::test]
async fn what_was_shown_of_one_device_is_still_approved_after_a_word_about_another() {
    let world = World::new().await;
    let (one, other) = ("01".repeat(32), "02".repeat(32));
    let fingerprints = vec![one.clone(), other.clone()];
    world.bob(&chat(), RemoteEventKind::Held(Hold::NewDevices { fingerprints })).await;
    *world.remote.devices.lock().unwrap() = vec![device("7", &one), device("8", &other)];
    world.command(IdentityTrust::Pinned, &format!("distrust {one}")).await;
    world.command(IdentityTrust::Pinned, "approve").await;
    let decided = world.remote.decided.lock().unwrap().clone();
    assert_eq!(decided[1], (DeviceDecision::Approve, vec![other]));
}

#[tokio::test]
async fn a_refused_device_is_told_of_once() {
    let world = World::new().await;
    for fingerprint in ["aaaa", "aaaa", "bbbb"] {
        let fingerprint = fingerprint.to_owned();
        world.bob(&chat(), RemoteEventKind::Refused { fingerprint }).await;
    }
    assert_eq!(world.said().await.len(), 2);
}

#[tokio::test]
async fn approving_a_contact_approves_nothing_of_ones_own() {
    let world = World::new().await;
    let mut tx = world.db.begin().await.unwrap();
    let _ = tx.pins().pin_or_check(alice(), "master key", 1).await.unwrap();
    let _ = tx.pins().pin_or_check(alice(), "another key", 2).await.unwrap();
    tx.commit().await.unwrap();
    let pinned = async || {
        let mut tx = world.db.read().await.unwrap();
        tx.pins().find(alice()).await.unwrap().unwrap().master_key
    };

    world.command(IdentityTrust::Pinned, "approve").await;
    assert_eq!(pinned().await, "master key");
    assert!(world.remote.sent.lock().unwrap().is_empty());
    world.command(IdentityTrust::Pinned, "approve me").await;
    assert_eq!(pinned().await, "another key");
    let sent = world.remote.sent.lock().unwrap();
    assert_matches!(sent.as_slice(), [(chat, text)]
        if chat.local == Author::Bridge && text.contains("has changed"));
}

#[tokio::test]
async fn a_command_behind_many_waiting_messages_is_carried_out() {
    let world = World::new().await;
    *world.remote.takes.lock().unwrap() = Takes::Nothing;
    for number in 0..520 {
        world.alice_writes(&format!("$waits{number}"), "waits").await;
    }
    world.alice_says("$command", "!xmpp version").await;
    let said = world.said().await;
    assert!(said.iter().any(|text| text.starts_with("Gephyra")), "{said:?}");
    assert!(world.remote.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_failure_of_no_message_is_not_told() {
    let world = World::new().await;
    let id = RemoteMessageId::new("made up");
    world.bob(&chat(), RemoteEventKind::Failed { id, reason: "because".to_owned() }).await;
    assert!(world.said().await.is_empty());
}

#[tokio::test]
async fn who_writes_to_somebody_that_does_not_use_the_bridge_is_told_once() {
    let world = World::new().await;
    for _ in 0..2 {
        world.bob(&chat_with(user_id!("@eve:example.org")), message(ENCRYPTED)).await;
    }
    let sent = world.remote.sent.lock().unwrap();
    assert_matches!(sent.as_slice(), [(chat, text)]
        if chat.local == Author::Bridge && text.contains("not delivered"));
}
