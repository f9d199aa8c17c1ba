use assert_matches::assert_matches;
use e2ee::omemo::Namespace;
use minidom::Element;

use super::{
    contact::{BOB, Contact},
    world::{Pings, World, chat},
};
use crate::{
    network::{
        Author, ChatKey, Hold, IdentityTrust, LegSecurity, MessageContent, OutgoingMessage,
        PlaintextPolicy, RemoteEventKind, RemoteMessageId, SendError, Sent,
    },
    xmpp::{
        convert::from_stanza,
        worker::STORE_PAUSE,
        xml::{self, COMPONENT, EME, El, HINTS, RECEIPTS, STANZA_ID, STANZAS},
    },
};

const PINNED: LegSecurity = LegSecurity::Encrypted { identity: IdentityTrust::Pinned };

fn text(body: &str) -> MessageContent {
    MessageContent::Text { body: body.to_owned() }
}

fn refusal(id: &str, condition: &str) -> Element {
    let error = El::stanza("error").attr("type", "cancel").child(El::new(condition, STANZAS));
    El::stanza("message")
        .attr("type", "error")
        .attr("from", BOB)
        .attr("to", super::contact::ALICE)
        .attr("id", id)
        .child(error)
        .build()
}

#[tokio::test]
async fn alice_writes_first_in_either_namespace() {
    for namespace in Namespace::ALL {
        let mut bob = Contact::new(1);
        bob.announced = vec![namespace];
        let mut world = World::new(bob).await;
        let sent = world.alice_says("m1", "hello Bob", PlaintextPolicy::Refuse).await;
        assert_eq!(sent, Ok(Sent { security: PINNED }));

        let message = world.next_message().await;
        assert_eq!(world.bob.decrypt(&message).as_deref(), Some("hello Bob"));
        assert!(!String::from(&message).contains("hello Bob"));
        let eme = message.get_child("encryption", EME).unwrap();
        assert_eq!(eme.attr("namespace"), Some(namespace.uri()));
        assert!(message.has_child("store", HINTS) && message.has_child("request", RECEIPTS));
        assert_eq!(message.get_child("origin-id", STANZA_ID).unwrap().attr("id"), Some("m1"));

        let id = RemoteMessageId::new("m1");
        assert!(world.next_event().await == RemoteEventKind::Accepted { id, security: PINNED });

        // The answer comes on the same session, and a later one too.
        for (id, words) in [("b1", "hello Alice"), ("b2", "and again")] {
            let answer = world.bob_says(id, words, namespace).await;
            world.deliver(&answer).await;
            let id = Some(RemoteMessageId::new(id));
            let content = text(words);
            assert!(
                world.next_event().await
                    == RemoteEventKind::Message { id, content, security: PINNED }
            );
        }
    }
}

#[tokio::test]
async fn what_came_in_the_clear_on_matrix_is_marked_when_it_is_encrypted() {
    let mut world = World::new(Contact::new(1)).await;
    let message = |id: &str, content, security, local| OutgoingMessage {
        inbox: None,
        chat: ChatKey { local, ..chat() },
        id: RemoteMessageId::new(id),
        content,
        security,
        plaintext: PlaintextPolicy::Allow,
    };
    let wave = MessageContent::Emote { body: "waves".to_owned() };
    let (plain, alice) = (LegSecurity::Plaintext, chat().local);
    let mut marked = 0;
    for (id, content, security, shown) in [
        ("m1", text("hi"), plain, "⚠️ not encrypted on Matrix: hi"),
        ("m2", wave, plain, "/me ⚠️ not encrypted on Matrix: waves"),
        ("m3", text("hi"), PINNED, "hi"),
    ] {
        world.send(message(id, content, security, alice.clone())).await.unwrap();
        let sent = world.next_message().await;
        let said = world.bob.decrypt(&sent).unwrap();
        assert_eq!(said, shown);
        marked += usize::from(security == plain && said.contains("not encrypted"));
    }
    println!("safety: plaintext_into_omemo: {} of 2 messages unmarked", 2 - marked);

    // The bridge's own words came from nowhere, and who gets no encryption was told so.
    world.send(message("m4", text("I am the bridge"), plain, Author::Bridge)).await.unwrap();
    let sent = world.next_message().await;
    assert_eq!(sent.attr("from"), Some("bridge.example.net"));
    let mut world = World::new(Contact::without_omemo()).await;
    world.send(message("m5", text("hi"), plain, alice)).await.unwrap();
    assert!(String::from(&world.next_message().await).contains("<body>hi</body>"));
}

#[tokio::test]
async fn a_client_with_a_name_newer_than_the_profile_of_such_names_is_heard() {
    const CLIENT: &str = "bob@example.org/📱";
    let mut world = World::new(Contact::new(1)).await;
    let body = El::stanza("body").text("hi").build();
    let request = El::new("request", RECEIPTS).build();
    world.deliver(&World::message(CLIENT, "b1", vec![body, request])).await;
    let event = world.next_event().await;
    assert!(matches!(event, RemoteEventKind::Message { content, .. } if content == text("hi")));
    let receipt = world.next_where(|stanza| stanza.has_child("received", RECEIPTS)).await;
    assert_eq!(receipt.attr("to"), Some(CLIENT));
}

#[tokio::test]
async fn bob_writes_first_in_either_namespace() {
    for namespace in Namespace::ALL {
        let mut world = World::new(Contact::new(1)).await;
        let first = world.bob_says("b1", "hello Alice", namespace).await;
        world.deliver(&first).await;
        let id = Some(RemoteMessageId::new("b1"));
        let content = text("hello Alice");
        let expected = RemoteEventKind::Message { id, content, security: PINNED };
        assert!(world.next_event().await == expected);

        // His session is answered by an empty message without anything that a client shows.
        let is_empty = |stanza: &Element| stanza.has_child("encrypted", namespace.uri());
        let empty = world.next_where(is_empty).await;
        assert!(!empty.has_child("body", COMPONENT) && !empty.has_child("encryption", EME));
        assert_eq!(world.bob.decrypt(&empty), None);
    }
}

#[tokio::test]
async fn the_matrix_event_is_done_with_its_stanza_and_only_once() {
    let mut world = World::new(Contact::new(1)).await;
    let inbox = world.matrix_event().await;
    world.alice_says_for(Some(inbox), "m1", "once", PlaintextPolicy::Refuse).await.unwrap();
    assert!(world.pending_matrix_events().await.is_empty());
    assert_eq!(world.next_message().await.attr("id"), Some("m1"));
    assert!(matches!(world.next_event().await, RemoteEventKind::Accepted { .. }));

    // The same event again, as after a crash of whoever called: nothing leaves a second time.
    let again = world.alice_says_for(Some(inbox), "m1", "once", PlaintextPolicy::Refuse).await;
    assert_eq!(again, Err(SendError::Temporary));
    let left = world.db.read().await.unwrap().xmpp_outbox().load_pending(10).await.unwrap();
    assert!(left.is_empty());

    // What is held keeps its event.
    let mut world = World::new(Contact::without_omemo()).await;
    let inbox = world.matrix_event().await;
    let held = world.alice_says_for(Some(inbox), "m2", "held", PlaintextPolicy::Refuse).await;
    assert_eq!(held, Err(SendError::Held(Hold::NoEncryption)));
    assert_eq!(world.pending_matrix_events().await, [inbox]);
}

#[tokio::test]
async fn a_receipt_is_sent_only_after_the_commit() {
    let mut world = World::new(Contact::new(1)).await;
    let first = world.bob_says("b1", "hello", Namespace::V2).await;
    world.deliver(&first).await;
    let receipt = world.next_where(|stanza| stanza.has_child("received", RECEIPTS)).await;
    assert_eq!(receipt.get_child("received", RECEIPTS).unwrap().attr("id"), Some("b1"));
    assert_eq!(receipt.attr("to"), Some("bob@example.org/phone"));
    // When it leaves, the message is there already, and its stanza is gone.
    assert!(matches!(world.take_event().await.unwrap().kind, RemoteEventKind::Message { .. }));
    let pending = world.db.read().await.unwrap().xmpp_inbox().pending_chats().await.unwrap();
    assert!(pending.is_empty());
}

#[tokio::test]
async fn a_repeated_stanza_is_one_message() {
    let mut world = World::new(Contact::new(1)).await;
    let encrypted = world.bob_says("b1", "once", Namespace::V2).await;
    let plain = World::plain("bob@example.org/phone", "b2", "twice?");
    for stanza in [&encrypted, &encrypted, &plain, &plain] {
        world.deliver(stanza).await;
    }
    world.settle().await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { security: PINNED, .. }));
    let plaintext = RemoteEventKind::Message {
        id: Some(RemoteMessageId::new("b2")),
        content: text("twice?"),
        security: LegSecurity::Plaintext,
    };
    assert!(world.next_event().await == plaintext);
    let more = usize::from(world.take_event().await.is_some());
    println!("safety: stanzas: 4 stanzas, {} messages", 2 + more);
    assert_eq!(more, 0);
}

#[tokio::test]
async fn a_stanza_whose_commit_was_not_confirmed_is_worked_on_when_it_is_stored_again() {
    let mut world = World::new(Contact::new(1)).await;
    let stanza = world.bob_says("b1", "once", Namespace::V2).await;
    let (hash, repetition) = world.core.repetition(&chat(), &from_stanza::read(&stanza));
    let mut tx = world.db.begin().await.unwrap();
    let bytes = xml::to_bytes(&stanza);
    tx.xmpp_inbox().insert(&chat(), &hash, repetition, &bytes, 1).await.unwrap();
    tx.commit().await.unwrap();
    world.deliver(&stanza).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { security: PINNED, .. }));
}

#[tokio::test]
async fn an_unconfirmed_stanza_leaves_again_byte_for_byte() {
    let mut world = World::new(Contact::new(1)).await;
    // The first message goes out behind the question for presence.
    world.alice_says("m0", "zero", PlaintextPolicy::Refuse).await.unwrap();
    world.next_message().await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Accepted { .. }));
    world.pings = Pings::Swallowed;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let first = xml::to_bytes(&world.next_message().await);
    world.disconnect().await;
    assert!(world.take_event().await.is_none(), "nobody has confirmed it");

    world.connect().await;
    let again = xml::to_bytes(&world.next_message().await);
    assert_eq!(first, again);
    world.disconnect().await;

    world.pings = Pings::Answered;
    world.connect().await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Accepted { .. }));
    let left = world.db.read().await.unwrap().xmpp_outbox().load_pending(10).await.unwrap();
    assert!(left.is_empty());
}

#[tokio::test]
async fn what_the_server_has_leaves_once_however_long_the_store_takes_no_writes() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m0", "zero", PlaintextPolicy::Refuse).await.unwrap();
    world.next_message().await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Accepted { .. }));
    let refuse = "CREATE TRIGGER refuse BEFORE DELETE ON xmpp_outbox \
        BEGIN SELECT RAISE(ABORT, 'no space'); END";
    world.execute(refuse).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    world.next_message().await;
    let again = tokio::time::timeout(2 * STORE_PAUSE, world.next_message()).await;
    let times = 1 + usize::from(again.is_ok());

    world.execute("DROP TRIGGER refuse").await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Accepted { .. }));
    println!("safety: no_writes: the stanza left {times} time");
    assert_eq!(times, 1);
}

#[tokio::test]
async fn of_a_receipt_nothing_stays() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    assert!(matches!(world.next_event().await, RemoteEventKind::Accepted { .. }));
    let message = world.bob_says("b1", "one", Namespace::V2).await;
    let received = El::new("received", RECEIPTS).attr("id", "m1").build();
    let receipt = World::message("bob@example.org/phone", "r1", vec![received]);
    for (stanza, stay) in [(&message, 1), (&receipt, 1), (&receipt, 1), (&message, 1)] {
        world.deliver(stanza).await;
        world.settle().await;
        assert_eq!(world.count("xmpp_inbox").await, stay);
    }
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
    for _ in 0..2 {
        assert!(matches!(world.next_event().await, RemoteEventKind::Delivered { .. }));
    }
    assert!(world.take_event().await.is_none());
}

#[tokio::test]
async fn messages_leave_in_order_after_an_outage() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m0", "0", PlaintextPolicy::Refuse).await.unwrap();
    assert!(matches!(world.next_event().await, RemoteEventKind::Accepted { .. }));
    world.disconnect().await;
    for n in 1..=5 {
        let client = world.client.clone();
        let message = crate::network::OutgoingMessage {
            inbox: None,
            chat: chat(),
            id: RemoteMessageId::new(format!("m{n}")),
            content: text(&n.to_string()),
            security: PINNED,
            plaintext: PlaintextPolicy::Refuse,
        };
        crate::network::NetworkClient::send(&*client, message).await.unwrap();
    }
    world.connect().await;
    for n in 1..=5 {
        let message = world.next_message().await;
        assert_eq!(message.attr("id"), Some(format!("m{n}").as_str()));
        assert_eq!(world.bob.decrypt(&message), Some(n.to_string()));
    }
}

#[tokio::test]
async fn what_became_of_a_message_is_told_after_its_acceptance() {
    let mut world = World::new(Contact::new(1)).await;
    world.pings = Pings::Swallowed;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    world.alice_says("m2", "two", PlaintextPolicy::Refuse).await.unwrap();
    let received = El::new("received", RECEIPTS).attr("id", "m1").build();
    world.deliver(&World::message("bob@example.org/phone", "r1", vec![received])).await;
    world.deliver(&refusal("m2", "service-unavailable")).await;
    world.settle().await;
    let kinds = [
        world.next_event().await,
        world.next_event().await,
        world.next_event().await,
        world.next_event().await,
    ];
    let ids = |id: &str| RemoteMessageId::new(id);
    assert!(kinds[0] == RemoteEventKind::Accepted { id: ids("m1"), security: PINNED });
    assert!(kinds[1] == RemoteEventKind::Delivered { id: ids("m1") });
    assert!(kinds[2] == RemoteEventKind::Accepted { id: ids("m2"), security: PINNED });
    assert!(matches!(&kinds[3], RemoteEventKind::Failed { id, .. } if *id == ids("m2")));
}

#[tokio::test]
async fn a_contact_without_omemo_gets_nothing_until_plaintext_is_allowed() {
    let mut world = World::new(Contact::without_omemo()).await;
    let held = world.alice_says("m1", "secret", PlaintextPolicy::Refuse).await;
    assert_eq!(held, Err(SendError::Held(Hold::NoEncryption)));
    let sent = world.alice_says("m1", "open", PlaintextPolicy::Allow).await;
    assert_eq!(sent, Ok(Sent { security: LegSecurity::Plaintext }));
    let message = world.next_message().await;
    assert_eq!(message.get_child("body", COMPONENT).unwrap().text(), "open");
}

#[tokio::test]
async fn plaintext_is_not_a_way_around_devices_that_cannot_be_used() {
    let mut bob = Contact::new(1);
    bob.bundles = false;
    let mut world = World::new(bob).await;
    let held = world.alice_says("m1", "secret", PlaintextPolicy::Allow).await;
    assert_eq!(held, Err(SendError::Held(Hold::NoUsableDevice)));
}

#[tokio::test]
async fn a_text_that_is_too_long_is_rejected() {
    let mut world = World::new(Contact::new(1)).await;
    let long = "x".repeat(crate::xmpp::MAX_TEXT_BYTES + 1);
    let rejected = world.alice_says("m1", &long, PlaintextPolicy::Refuse).await;
    assert_matches!(rejected, Err(SendError::Rejected(_)));
    let longest = "x".repeat(crate::xmpp::MAX_TEXT_BYTES);
    world.alice_says("m1", &longest, PlaintextPolicy::Refuse).await.unwrap();
    assert_eq!(world.next_message().await.attr("id"), Some("m1"));
}
