//! What ends consent to plaintext, what is given up, and what goes in the clear.

use std::time::Duration;

use assert_matches::assert_matches;
use e2ee::omemo::Namespace;
use ruma::{owned_room_id, owned_user_id, user_id};

use super::{
    contact::{BOB, Contact},
    world::{HOLD, World, chat},
};
use crate::{
    network::{
        DeviceDecision, Hold, LegSecurity, MessageContent, PlaintextPolicy, RemoteEventKind,
        SendError, Sent,
    },
    store::{
        ContactDecision, ContactTrust, Database, NewPortal, Portal, PortalState, RemoteHistory,
        RoomEncryption,
    },
    xmpp::xml::{COMPONENT, El},
};

const HOUR: Duration = Duration::from_secs(60 * 60);

impl World {
    /// Alice's chat with Bob has a room, and she allows plaintext there.
    async fn allow_plaintext(&self) {
        let room_id = owned_room_id!("!room:example.com");
        let portal = NewPortal {
            room_id: room_id.clone(),
            network: "xmpp".to_owned(),
            local: owned_user_id!("@alice:example.com"),
            contact: chat().contact,
            ghost: owned_user_id!("@xmpp_bob=40example.org:example.com"),
            encryption: RoomEncryption::Encrypted,
            state: PortalState::Active,
        };
        let mut tx = self.db.begin().await.unwrap();
        tx.portals().insert(&portal).await.unwrap();
        tx.portals().set_plaintext(&room_id, PlaintextPolicy::Allow).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn portal(&self) -> Portal {
        let mut tx = self.db.read().await.unwrap();
        let room_id = owned_room_id!("!room:example.com");
        tx.portals().find_by_room(&room_id).await.unwrap().unwrap()
    }

    /// Bob is known, comes back with other keys, and sends under them.
    async fn bob_writes_under_another_identity(&mut self) -> String {
        let first = self.bob_says("b1", "it is me", Namespace::V2).await;
        self.deliver(&first).await;
        assert!(matches!(self.next_event().await, RemoteEventKind::Message { .. }));
        self.bob.reinstall_under_the_same_number(7);
        self.bob.account.identity_key().fingerprint()
    }
}

#[tokio::test]
async fn consent_ends_with_the_commit_of_an_encrypted_message() {
    let mut world = World::new(Contact::without_omemo()).await;
    world.allow_plaintext().await;
    let sent = world.alice_says("m1", "open", PlaintextPolicy::Allow).await;
    assert_eq!(sent, Ok(Sent { security: LegSecurity::Plaintext }));
    let portal = world.portal().await;
    assert_eq!(portal.plaintext, PlaintextPolicy::Allow);
    assert_eq!(portal.history, RemoteHistory::NeverEncrypted);

    world.bob = Contact::new(1);
    let push = world.bob.push(Namespace::Legacy, &[world.bob.device()]);
    world.deliver(&World::message(BOB, "p1", vec![push])).await;
    world.settle().await;
    world.alice_says("m2", "secret", PlaintextPolicy::Allow).await.unwrap();
    let portal = world.portal().await;
    assert_eq!(portal.plaintext, PlaintextPolicy::Refuse);
    assert_eq!(portal.history, RemoteHistory::Encrypted);
}

#[tokio::test]
async fn what_is_held_too_long_is_given_up_once_and_the_rest_is_released_in_order() {
    let mut world = World::new(Contact::new(1)).await;
    let fingerprint = world.bob_writes_under_another_identity().await;
    let mut expired = Vec::new();
    for (id, pause) in [("b2", Duration::ZERO), ("b3", HOUR), ("b4", Duration::ZERO)] {
        world.clock.pass(pause);
        let stanza = world.bob_says(id, "me again", Namespace::V2).await;
        world.deliver(&stanza).await;
        world.settle().await;
        expired.push(stanza);
    }
    assert!(matches!(world.next_event().await, RemoteEventKind::Held(_)));
    world.clock.pass(HOLD - HOUR);
    world.core.expire_held().await.unwrap();
    assert!(world.take_event().await.is_none(), "not yet");

    world.clock.pass(Duration::from_millis(1));
    for _ in 0..2 {
        world.core.expire_held().await.unwrap();
    }
    assert!(world.next_event().await == RemoteEventKind::Expired);
    assert!(world.take_event().await.is_none(), "exactly once");

    // It is not taken anew when somebody repeats it.
    world.deliver(&expired[0]).await;
    world.settle().await;
    assert_eq!(world.decide(&[fingerprint], DeviceDecision::Approve).await, Ok(1));
    let mut delivered = Vec::new();
    for _ in 0..2 {
        let RemoteEventKind::Message { id: Some(id), .. } = world.next_event().await else {
            panic!("no message")
        };
        delivered.push(id.as_str().to_owned());
    }
    world.settle().await;
    let more = usize::from(world.take_event().await.is_some());
    println!("safety: expired_from_xmpp: {more} of 1 messages delivered, told 1 time");
    assert_eq!((delivered.as_slice(), more), (["b3".to_owned(), "b4".to_owned()].as_slice(), 0));
}

#[tokio::test]
async fn nothing_is_given_up_by_a_clock_that_was_set_of_late() {
    let mut world = World::new(Contact::new(1)).await;
    world.bob_writes_under_another_identity().await;
    let held = world.bob_says("b2", "me again", Namespace::V2).await;
    world.deliver(&held).await;
    world.settle().await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Held(_)));
    world.clock.set_ahead(2 * HOLD);
    world.core.expire_held().await.unwrap();
    assert!(world.take_event().await.is_none());
    world.clock.settles();
    world.core.expire_held().await.unwrap();
    assert!(world.next_event().await == RemoteEventKind::Expired);
}

#[tokio::test]
async fn the_bridges_own_words_reach_a_contact_whose_new_keys_nobody_can_approve() {
    let mut world = World::new(Contact::new(1)).await;
    world.bridge_says("w1", "one", PlaintextPolicy::Allow).await.unwrap();
    let message = world.next_where(|stanza| stanza.attr("id") == Some("w1")).await;
    assert!(message.has_child("encrypted", Namespace::V2.uri()));

    world.bob.reinstall_under_the_same_number(7);
    let push = world.bob.push(Namespace::V2, &[world.bob.device()]);
    let push = El::stanza("message").attr("from", BOB).attr("to", "bridge.example.net").child(push);
    world.deliver(&push.build()).await;
    world.settle().await;
    // What belongs to a conversation, such as emoji, is not said in the clear.
    let held = world.bridge_says("w2", "two", PlaintextPolicy::Refuse).await;
    assert_matches!(held, Err(SendError::Held(Hold::IdentityChanged { .. })));
    let sent = world.bridge_says("w3", "three", PlaintextPolicy::Allow).await;
    assert_eq!(sent, Ok(Sent { security: LegSecurity::Plaintext }));
    let message = world.next_where(|stanza| stanza.attr("id") == Some("w3")).await;
    assert_eq!(message.get_child("body", COMPONENT).unwrap().text(), "three");

    // In a person's name nothing does.
    world.alice_says("m1", "before", PlaintextPolicy::Refuse).await.unwrap();
    world.bob.reinstall_under_the_same_number(8);
    let push = world.bob.push(Namespace::V2, &[world.bob.device()]);
    world.deliver(&World::message(BOB, "p2", vec![push])).await;
    world.settle().await;
    let held = world.alice_says("m2", "secret", PlaintextPolicy::Allow).await;
    assert_matches!(held, Err(SendError::Held(Hold::IdentityChanged { .. })));
}

#[tokio::test]
async fn a_correction_is_a_message_of_its_own_with_the_security_it_came_with() {
    let mut world = World::new(Contact::new(1)).await;
    let replace = || El::new("replace", "urn:xmpp:message-correct:0").attr("id", "b1").build();
    let mut secret = world.bob_says("b1", "pay Alice", Namespace::V2).await;
    secret.append_child(replace());
    world.deliver(&secret).await;
    let mut open = World::plain("bob@example.org/phone", "b2", "pay Mallory");
    open.append_child(replace());
    world.deliver(&open).await;
    for (wanted, text, encrypted) in [("b1", "pay Alice", true), ("b2", "pay Mallory", false)] {
        let RemoteEventKind::Message { id: Some(id), content, security } = world.next_event().await
        else {
            panic!("no message")
        };
        assert_eq!(id.as_str(), wanted);
        assert!(content == MessageContent::Text { body: text.to_owned() });
        assert_eq!(security != LegSecurity::Plaintext, encrypted);
    }
}

#[tokio::test]
async fn nothing_of_a_person_whom_the_contact_has_distrusted_is_put_into_the_outbox() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    world.next_where(|stanza| stanza.attr("id") == Some("m1")).await;
    let decide = async |db: &Database, trust| {
        let master_key = "key".to_owned();
        let decision = ContactDecision { trust, master_key, decided_ms: 1 };
        let mut tx = db.begin().await.unwrap();
        let between = (user_id!("@alice:example.com"), &chat().contact);
        tx.contact_decisions().decide(between, &decision).await.unwrap();
        tx.commit().await.unwrap();
    };
    decide(&world.db, ContactTrust::Distrusted).await;
    let held = Err(SendError::Held(Hold::DistrustedByContact));
    for policy in [PlaintextPolicy::Refuse, PlaintextPolicy::Allow] {
        assert_eq!(world.alice_says("m2", "two", policy).await, held);
    }
    // Nor in the clear, where the contact has no encryption any more.
    world.bob = Contact::without_omemo();
    let push = world.bob.push(Namespace::V2, &[]);
    world.deliver(&World::message(BOB, "p1", vec![push])).await;
    let push = world.bob.push(Namespace::Legacy, &[]);
    world.deliver(&World::message(BOB, "p2", vec![push])).await;
    world.settle().await;
    assert_eq!(world.alice_says("m2", "two", PlaintextPolicy::Allow).await, held);
    let mut tx = world.db.read().await.unwrap();
    assert!(tx.xmpp_outbox().load_pending(100).await.unwrap().is_empty());
    drop(tx);
    world.bridge_says("w1", "This is the bridge", PlaintextPolicy::Allow).await.unwrap();
    world.next_where(|stanza| stanza.attr("id") == Some("w1")).await;

    decide(&world.db, ContactTrust::Fingerprint).await;
    world.alice_says("m2", "two", PlaintextPolicy::Allow).await.unwrap();
    world.next_where(|stanza| stanza.attr("id") == Some("m2")).await;
}
