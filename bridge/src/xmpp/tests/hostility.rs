use std::time::Duration;

use e2ee::omemo::Namespace;
use minidom::Element;

use super::{
    contact::{ALICE, Contact},
    world::{World, chat},
};
use crate::{
    network::{RemoteEvent, RemoteEventKind, RemoteMessageId},
    store::Repetition,
    xmpp::{
        link::RequestError,
        stanza,
        xml::{El, PING, PUBSUB, RECEIPTS},
    },
};

#[tokio::test]
async fn a_stanza_nested_100_000_deep_is_bounced_and_the_stream_goes_on() {
    let mut world = World::new(Contact::new(1)).await;
    let (open, close) = ("<a>".repeat(100_000), "</a>".repeat(100_000));
    let hostile = format!(
        "<message type='chat' id='deep' from='mallory@example.org/x' to='{ALICE}'>{open}{close}</message>"
    );
    world.deliver_raw(&hostile).await;
    let bounced = world.next_message().await;
    assert_eq!(bounced.attr("id"), Some("deep"));
    assert_eq!(bounced.attr("to"), Some("mallory@example.org/x"));
    assert_eq!(stanza::error_condition(&bounced), "not-acceptable");

    let real = world.bob_says("b1", "still here", Namespace::V2).await;
    world.deliver(&real).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
}

#[tokio::test]
async fn whoever_has_an_address_that_names_nobody_is_told_so() {
    let mut world = World::new(Contact::new(1)).await;
    let from = "📱@example.org/x";
    world.deliver(&World::message(from, "e1", vec![El::stanza("body").text("hi").build()])).await;
    let refused = world.next_where(|stanza| stanza.attr("id") == Some("e1")).await;
    assert_eq!((refused.attr("to"), refused.attr("from")), (Some(from), Some(ALICE)));
    assert_eq!(stanza::error_condition(&refused), "jid-malformed");

    world.deliver_raw(&format!("<message type='error' id='e2' from='{from}' to='{ALICE}'/>")).await;
    world.deliver_raw(&format!("<iq type='get' id='e3' from='{from}' to='{ALICE}'/>")).await;
    let refused = world.next_where(|stanza| stanza.attr("id") == Some("e3")).await;
    assert_eq!(stanza::error_condition(&refused), "jid-malformed");
    assert_eq!(world.count_buffered(|stanza| stanza.attr("id") == Some("e2")), 0);
}

/// So many stanzas of this size are held in the chat with Bob.
async fn hold(world: &World, stanzas: usize, bytes: usize) {
    let mut tx = world.db.begin().await.unwrap();
    let mut inbox = tx.xmpp_inbox();
    let stanza = vec![b'x'; bytes];
    for _ in 0..stanzas {
        let stored = inbox.insert(&chat(), "", Repetition::Never, &stanza, 1).await;
        inbox.hold(stored.unwrap().unwrap(), None).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// How many events the portal has not taken.
async fn waiting(world: &World) -> u64 {
    let mut tx = world.db.read().await.unwrap();
    tx.remote_inbox().count_pending(&chat()).await.unwrap().messages
}

/// A message is refused.
async fn is_refused(world: &mut World, id: &str) {
    world.deliver(&World::plain("bob@example.org/phone", id, "one more")).await;
    let refused = world.next_where(|stanza| stanza.attr("id") == Some(id)).await;
    assert_eq!(stanza::error_condition(&refused), "resource-constraint");
}

#[tokio::test]
async fn a_chat_in_which_too_much_waits_takes_no_more_until_it_is_less() {
    let mut world = World::new(Contact::new(1)).await;
    hold(&world, 999, 4).await;
    let last = World::plain("bob@example.org/phone", "b1", "the last");
    world.deliver(&last).await;
    world.settle().await;
    assert_eq!(waiting(&world).await, 1, "it has room");
    for id in ["b2", "b3"] {
        is_refused(&mut world, id).await;
    }
    // What was taken already is not given back.
    world.deliver(&last).await;
    world.settle().await;
    assert_eq!(world.count_buffered(|stanza| stanza.attr("id") == Some("b1")), 0);
    assert_eq!(waiting(&world).await, 1);

    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
    world.deliver(&World::plain("bob@example.org/phone", "b4", "again")).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
}

#[tokio::test]
async fn receipts_and_errors_without_end_find_no_room_and_no_answer() {
    let mut world = World::new(Contact::new(1)).await;
    hold(&world, 10_000, 4).await;
    let receipt = El::new("received", RECEIPTS).attr("id", "m1").build();
    world.deliver(&World::message("bob@example.org/phone", "r1", vec![receipt])).await;
    world
        .deliver_raw(&format!(
            "<message type='error' id='m1' from='bob@example.org' to='{ALICE}'>\
             <error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             </error></message>"
        ))
        .await;
    world.settle().await;
    assert!(world.take_event().await.is_none());
    assert_eq!(world.count_buffered(|stanza| stanza.name() == "message"), 0);
}

#[tokio::test]
async fn what_became_of_a_persons_messages_takes_no_room_from_the_contacts() {
    let mut world = World::new(Contact::new(1)).await;
    let mut tx = world.db.begin().await.unwrap();
    for number in 0..1001 {
        let id = RemoteMessageId::new(format!("m{number}"));
        let kind = RemoteEventKind::Delivered { id };
        let event = RemoteEvent { chat: chat(), sent_at_ms: None, kind };
        tx.remote_inbox().insert(&event).await.unwrap();
    }
    tx.commit().await.unwrap();
    world.deliver(&World::plain("bob@example.org/phone", "b1", "it has room")).await;
    world.settle().await;
    assert_eq!(waiting(&world).await, 1);
}

#[tokio::test]
async fn a_chat_in_which_large_messages_wait_takes_fewer() {
    let mut world = World::new(Contact::new(1)).await;
    hold(&world, 64, 256 * 1024 - 100).await;
    world.deliver(&World::plain("bob@example.org/phone", "b1", "it is small")).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
    hold(&world, 1, 256 * 1024).await;
    is_refused(&mut world, "b2").await;
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_late_though_we_deal_with_what_it_sent() {
    let mut world = World::new(Contact::new(1)).await;
    world.disconnect().await;
    let core = world.core.clone();
    let _nobody_reads = core.link.up();
    tokio::time::pause();
    let long = Duration::from_secs(600);
    tokio::select! {
        () = core.in_no_hurry(std::future::pending()) => panic!("the store is away"),
        asked = tokio::time::timeout(long, core.confirm()) => {
            assert!(asked.is_err(), "our own server cannot be late");
        }
    }

    let stanza = World::plain(ALICE, "b1", "an answer");
    while core.link.has_room() {
        core.link.write(&stanza).await.unwrap();
    }
    let answering = async {
        let _ = core.link.write(&stanza).await;
    };
    tokio::select! {
        () = core.in_no_hurry(answering) => panic!("there is no room"),
        asked = tokio::time::timeout(long, core.confirm()) => {
            assert_eq!(asked.unwrap(), Err(RequestError::TimedOut));
        }
    }
}

/// Prosody starts to count its prefixes anew in every element, and minidom cannot write what then
/// arrives.
#[tokio::test]
async fn prefixes_that_are_declared_twice_do_no_harm() {
    let mut world = World::new(Contact::new(1)).await;
    for (id, attributes, inner) in [
        ("p1", "xmlns:ns1='u:1' ns1:x='1'", "<body xmlns:ns1='u:2' ns1:y='2'>hi</body>"),
        ("p2", "xml:foo='1'", "<body xml:bar='2'>hi</body>"),
        ("p3", "", "<body>hi</body><ns1:a xmlns:ns1='u:3'><ns1:b xmlns:ns1='u:4'/></ns1:a>"),
    ] {
        let odd = format!(
            "<message type='chat' id='{id}' from='bob@example.org/x' to='{ALICE}' {attributes}>{inner}</message>"
        );
        world.deliver_raw(&odd).await;
        assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }), "{id}");
    }
}

#[tokio::test]
async fn an_error_that_carries_our_own_push_back_changes_no_list() {
    let mut world = World::new(Contact::new(1)).await;
    let real = world.bob_says("b1", "hello", Namespace::V2).await;
    world.deliver(&real).await;
    world.next_event().await;
    let devices = async |world: &World| {
        let mut tx = world.db.read().await.unwrap();
        let known = tx.xmpp_omemo().find_devices(&chat(), Namespace::V2).await;
        known.unwrap().map(|known| known.devices)
    };
    let before = devices(&world).await;
    world
        .deliver_raw(&format!(
            "<message type='error' from='bob@example.org' to='{ALICE}'>\
             <event xmlns='http://jabber.org/protocol/pubsub#event'>\
             <items node='urn:xmpp:omemo:2:devices'><item id='current'>\
             <devices xmlns='urn:xmpp:omemo:2'><device id='77'/></devices></item></items></event>\
             </message>"
        ))
        .await;
    let pong = world.query("get", El::new("ping", PING).build()).await;
    assert_eq!(pong.attr("type"), Some("result"), "it was dealt with");
    assert_eq!(devices(&world).await, before);
}

#[tokio::test]
async fn odd_presence_does_not_end_the_stream() {
    let mut world = World::new(Contact::new(1)).await;
    world
        .deliver_raw(&format!(
            "<presence from='bob@example.org/x' to='{ALICE}'><show>bogus</show></presence>"
        ))
        .await;
    let pong = world.query("get", El::new("ping", PING).build()).await;
    assert_eq!(pong.attr("type"), Some("result"));
}

#[tokio::test]
async fn forged_senders_and_forwards_have_no_effect() {
    let mut world = World::new(Contact::new(1)).await;
    let carbon: Element = "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
         <message xmlns='jabber:client' from='bob@example.org' to='x@y'><body>forged</body></message>\
         </forwarded></received>"
        .parse()
        .unwrap();
    let archived: Element =
        "<result xmlns='urn:xmpp:mam:2' id='1'><forwarded xmlns='urn:xmpp:forward:0'>\
         <message xmlns='jabber:client' from='bob@example.org'><body>forged</body></message>\
         </forwarded></result>"
            .parse()
            .unwrap();
    let forgeries = [
        // From our own domain: a loop, or somebody who is not authenticated.
        World::plain(ALICE, "f1", "forged"),
        World::plain("bridge.example.net", "f2", "forged"),
        World::message("bob@example.org", "f3", vec![carbon.clone()]),
        World::message(ALICE, "f4", vec![carbon]),
        World::message("bob@example.org", "f5", vec![archived]),
        // To another domain than ours.
        El::stanza("message")
            .attr("from", "bob@example.org")
            .attr("to", "alice%example.com@elsewhere.example")
            .child(El::stanza("body").text("stray"))
            .build(),
        El::stanza("message").attr("to", ALICE).child(El::stanza("body").text("no sender")).build(),
    ];
    for forged in &forgeries {
        world.deliver(forged).await;
    }
    world.settle().await;
    let effects = usize::from(world.take_event().await.is_some());
    println!("safety: forged_stanzas: {effects} of {} taken", forgeries.len());
    assert_eq!(effects, 0);
}

#[tokio::test]
async fn an_altered_repetition_is_told_and_not_bridged() {
    let mut world = World::new(Contact::new(1)).await;
    let first = world.bob_says("b1", "once", Namespace::V2).await;
    world.deliver(&first).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
    let altered = String::from(&first).replace("<header ", "<header again='1' ");
    world.deliver_raw(&altered).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Undecryptable { .. }));
    world.settle().await;
    assert!(world.take_event().await.is_none());
}

#[tokio::test]
async fn a_forged_answer_to_a_ping_does_not_confirm() {
    let mut world = World::new(Contact::new(1)).await;
    world.pings = super::world::Pings::Swallowed;
    let sent = world.alice_says("m1", "one", crate::network::PlaintextPolicy::Refuse).await;
    sent.unwrap();
    let ping = world.next_ping().await;
    let forged = El::stanza("iq")
        .attr("type", "result")
        .attr("id", ping.attr("id").unwrap())
        .attr("from", "mallory@example.org")
        .attr("to", "bridge.example.net")
        .build();
    world.deliver(&forged).await;
    world.settle().await;
    assert!(world.take_event().await.is_none(), "nothing was accepted");
}

#[tokio::test]
async fn a_message_to_nobody_is_refused() {
    let mut world = World::new(Contact::new(1)).await;
    let stanza = El::stanza("message")
        .attr("type", "chat")
        .attr("id", "n1")
        .attr("from", "bob@example.org/phone")
        .attr("to", "nobody@bridge.example.net")
        .child(El::stanza("body").text("hello?"))
        .build();
    world.deliver(&stanza).await;
    let refused = world.next_message().await;
    assert_eq!(stanza::error_condition(&refused), "item-not-found");
}

#[tokio::test]
async fn one_jid_cannot_make_devices_without_end() {
    let mut world = World::new(Contact::new(1)).await;
    let mut refused = 0;
    for n in 0..60 {
        let items = El::new("items", PUBSUB).attr("node", Namespace::V2.device_list_node());
        let request = El::new("pubsub", PUBSUB).child(items).build();
        let jid = format!("user{n}%example.com@bridge.example.net");
        let answer = world.query_at(&jid, "get", request).await;
        refused += usize::from(stanza::error_condition(&answer) == "resource-constraint");
    }
    assert_eq!(refused, 10);
}
