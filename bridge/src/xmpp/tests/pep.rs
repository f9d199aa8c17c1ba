use e2ee::omemo::{Bundle, DeviceList, Namespace};
use minidom::Element;

use super::{
    contact::{ALICE, BOB, Contact},
    world::World,
};
use crate::{
    network::NetworkClient as _,
    xmpp::xml::{El, NICK, PUBSUB, PUBSUB_EVENT},
};

fn items(node: &str) -> El {
    El::new("items", PUBSUB).attr("node", node)
}

fn pubsub(child: El) -> Element {
    El::new("pubsub", PUBSUB).child(child).build()
}

fn show(element: &Element) -> String {
    String::from(element).replace("><", ">\n<")
}

#[tokio::test]
async fn discovery_shows_an_account_with_pep() {
    let mut world = World::new(Contact::new(1)).await;
    let info = El::new("query", "http://jabber.org/protocol/disco#info").build();
    insta::assert_snapshot!("disco_info", show(&world.query("get", info.clone()).await));
    let nodes = El::new("query", "http://jabber.org/protocol/disco#items").build();
    insta::assert_snapshot!("disco_items", show(&world.query("get", nodes).await));
    insta::assert_snapshot!(
        "disco_info_bridge",
        show(&world.query_at("bridge.example.net", "get", info).await)
    );
}

#[tokio::test]
async fn the_device_is_the_same_however_it_is_asked_for() {
    let mut world = World::new(Contact::new(1)).await;
    for namespace in Namespace::ALL {
        let node = namespace.device_list_node();
        let mut answers = Vec::new();
        for request in [
            items(node),
            items(node).attr("max_items", "1"),
            items(node).child(El::new("item", PUBSUB).attr("id", "current")),
        ] {
            answers.push(show(&world.query("get", pubsub(request)).await));
        }
        assert!(answers[0].contains("device"));
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        let other = items(node).child(El::new("item", PUBSUB).attr("id", "other"));
        assert!(!show(&world.query("get", pubsub(other)).await).contains("device id"));
    }
    let (legacy, bundle) = world.fetch_alice(Namespace::Legacy).await;
    let (v2, other) = world.fetch_alice(Namespace::V2).await;
    assert_eq!(legacy, v2);
    assert_eq!(bundle.identity(), other.identity());
}

#[tokio::test]
async fn what_is_not_there_is_refused_in_the_old_way_too() {
    let mut world = World::new(Contact::new(1)).await;
    for node in ["eu.siacs.conversations.axolotl.bundles:1", "urn:xmpp:avatar:data"] {
        let answer = show(&world.query("get", pubsub(items(node))).await);
        assert!(answer.contains("item-not-found") && answer.contains("code='404'"), "{answer}");
    }
    let request = pubsub(items(Namespace::V2.device_list_node()));
    let nobody = world.query_at("nobody@bridge.example.net", "get", request).await;
    assert!(show(&nobody).contains("item-not-found"));
    let publish = pubsub(El::new("publish", PUBSUB).attr("node", NICK));
    assert!(show(&world.query("set", publish).await).contains("not-allowed"));
    let unknown = El::new("query", "urn:example:unknown").build();
    assert!(show(&world.query("get", unknown).await).contains("service-unavailable"));
}

#[tokio::test]
async fn a_subscriber_gets_the_node_at_once_and_every_new_name() {
    let mut world = World::new(Contact::new(1)).await;
    let subscribe =
        |jid: &str| pubsub(El::new("subscribe", PUBSUB).attr("node", NICK).attr("jid", jid));
    let forged = world.query("set", subscribe("carol@example.org")).await;
    assert!(show(&forged).contains("invalid-jid"));
    let foreign = El::new("subscribe", PUBSUB)
        .attr("node", "eu.siacs.conversations.axolotl.bundles:1")
        .attr("jid", BOB);
    assert!(show(&world.query("set", pubsub(foreign)).await).contains("item-not-found"));
    let answer = world.query("set", subscribe(BOB)).await;
    assert!(show(&answer).contains("subscription='subscribed'"));
    world.client.publish_name(ruma::user_id!("@alice:example.com"), "Alice").await;
    let push = world.next_where(|stanza| stanza.has_child("event", PUBSUB_EVENT)).await;
    assert_eq!(push.attr("to"), Some(BOB));
    assert!(show(&push).contains(">Alice<"));
}

#[tokio::test]
async fn a_node_has_so_many_subscribers_and_no_more() {
    let mut world = World::new(Contact::new(1)).await;
    let many = "WITH RECURSIVE number (n) AS (SELECT 1 UNION SELECT n + 1 FROM number WHERE n < 999) \
        INSERT INTO xmpp_subscribers (local_user, node, subscriber) \
        SELECT '@alice:example.com', 'http://jabber.org/protocol/nick', 'c' || n || '@a.example' \
        FROM number";
    world.execute(many).await;
    let subscribe = |jid: &str| {
        let child = El::new("subscribe", PUBSUB).attr("node", NICK).attr("jid", jid);
        let iq = El::stanza("iq").attr("type", "set").attr("id", jid).attr("from", jid);
        iq.attr("to", ALICE).child(pubsub(child)).build()
    };
    for (jid, is_taken) in [(BOB, true), ("carol@a.example", false), (BOB, true)] {
        world.deliver(&subscribe(jid)).await;
        let is_answer = |stanza: &Element| stanza.name() == "iq" && stanza.attr("id") == Some(jid);
        let answer = show(&world.next_where(is_answer).await);
        assert_eq!(answer.contains("subscription='subscribed'"), is_taken, "{answer}");
        assert_eq!(answer.contains("resource-constraint"), !is_taken, "{answer}");
    }
    assert_eq!(world.count("xmpp_subscribers").await, 1000);
}

#[tokio::test]
async fn a_presence_subscription_is_granted_asked_back_and_brings_the_devices() {
    let mut world = World::new(Contact::new(1)).await;
    let presence = |kind: &str| {
        El::stanza("presence").attr("from", BOB).attr("to", ALICE).attr("type", kind).build()
    };
    world.deliver(&presence("subscribe")).await;
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let answer = world.next_where(|stanza| stanza.name() == "presence").await;
        assert_eq!((answer.attr("from"), answer.attr("to")), (Some(ALICE), Some(BOB)));
        kinds.push(answer.attr("type").map(str::to_owned));
    }
    assert_eq!(kinds, [Some("subscribed".to_owned()), None, Some("subscribe".to_owned())]);
    for namespace in Namespace::ALL {
        let push = world.next_where(|stanza| stanza.has_child("event", PUBSUB_EVENT)).await;
        let items = push.get_child("event", PUBSUB_EVENT).unwrap().children().next().unwrap();
        assert_eq!(items.attr("node"), Some(namespace.device_list_node()));
        let list = items.children().next().unwrap().children().next().unwrap();
        assert_eq!(DeviceList::from_element(namespace, list).unwrap().devices.len(), 1);
    }
    world.deliver(&presence("probe")).await;
    let answer = world.next_where(|stanza| stanza.name() == "presence").await;
    assert_eq!(answer.attr("type"), None);
}

#[tokio::test]
async fn a_question_for_presence_that_was_lost_is_asked_again_and_one_that_was_declined_is_not() {
    let mut world = World::new(Contact::new(1)).await;
    let presence = |kind: &str| {
        El::stanza("presence").attr("from", BOB).attr("to", ALICE).attr("type", kind).build()
    };
    let is_question =
        |stanza: &Element| stanza.name() == "presence" && stanza.attr("type") == Some("subscribe");
    let answers = [("m1", "error"), ("m2", "unsubscribed"), ("m3", "nothing")];
    for (id, answer) in answers {
        world.alice_says(id, "hello", crate::network::PlaintextPolicy::Refuse).await.unwrap();
        world.next_where(|stanza| stanza.attr("id") == Some(id)).await;
        let asked = world.count_buffered(is_question);
        assert_eq!(asked, usize::from(id != "m3"), "{id}");
        if asked > 0 {
            world.next_where(is_question).await;
            world.deliver(&presence(answer)).await;
            world.settle().await;
        }
    }
    world.deliver(&presence("subscribe")).await;
    world.next_where(is_question).await;
}

#[tokio::test]
async fn a_client_that_comes_online_is_told_of_the_devices_once() {
    let mut world = World::new(Contact::new(1)).await;
    let presence = |from: &str, kind: Option<&str>| {
        El::stanza("presence").attr("from", from).attr("to", ALICE).attr_if("type", kind).build()
    };
    let is_push = |stanza: &Element| {
        stanza.has_child("event", PUBSUB_EVENT)
            && stanza.attr("to").is_some_and(|to| to.contains('/'))
    };
    // Nobody we know.
    world.deliver(&presence("carol@example.org/pc", None)).await;
    world.alice_says("m1", "hello", crate::network::PlaintextPolicy::Refuse).await.unwrap();
    world.settle().await;
    assert_eq!(world.count_buffered(is_push), 0);

    for _ in 0..3 {
        world.deliver(&presence("bob@example.org/new", None)).await;
    }
    for _ in Namespace::ALL {
        assert_eq!(world.next_where(is_push).await.attr("to"), Some("bob@example.org/new"));
    }
    world.settle().await;
    assert_eq!(world.count_buffered(is_push), 0);
    world.deliver(&presence("bob@example.org/new", Some("unavailable"))).await;
    world.deliver(&presence("bob@example.org/new", None)).await;
    assert_eq!(world.next_where(is_push).await.attr("to"), Some("bob@example.org/new"));
}

#[tokio::test]
async fn a_used_prekey_is_published_away() {
    let mut world = World::new(Contact::new(1)).await;
    let before = world.fetch_alice(Namespace::V2).await.1;
    let first = world.bob_says("b1", "hello", Namespace::V2).await;
    world.deliver(&first).await;
    world.next_event().await;
    let after = world.fetch_alice(Namespace::V2).await.1;
    let count = |bundle: &Bundle| String::from(&bundle.to_element()).matches("<pk ").count();
    assert_eq!(count(&after), count(&before) - 1);
}
