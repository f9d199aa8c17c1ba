//! Which devices of a contact are known, and what comes from others.

use std::sync::{Arc, Weak, atomic::Ordering};

use async_trait::async_trait;
use e2ee::omemo::{DeviceId, Namespace};
use minidom::Element;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    contact::Contact,
    decisions::next_event,
    world::{World, chat},
};
use crate::{
    network::{
        ChatKey, Decider, DeviceDecision, Hold, NetworkClient as _, PlaintextPolicy,
        RemoteEventKind, RemoteUserId, SendError,
    },
    queue::{Drain, Drained, Queues},
    store::{DevicePin, PinChange, PinTrust, Repetition},
    xmpp::{
        core::{Core, SLOTS},
        trust::changed_fingerprints,
        xml::{El, PUBSUB_EVENT},
    },
};

/// So many devices of Bob were heard before.
async fn heard(devices: u32) -> World {
    let world = World::new(Contact::new(1)).await;
    let another = Contact::new(2).account.identity_key();
    let mut tx = world.db.begin().await.unwrap();
    for device in 0..devices {
        let device = DeviceId::new(1_000_000 + device).unwrap();
        tx.xmpp_omemo().pin(&chat(), device, another, 1).await.unwrap();
    }
    tx.commit().await.unwrap();
    world
}

#[tokio::test]
async fn a_contact_whose_devices_were_all_replaced_is_still_heard_and_not_without_end() {
    // As many as a device list holds, and so many again.
    for (devices, is_delivered) in [(127, true), (128, false)] {
        let mut world = heard(devices).await;
        let stanza = world.bob_says("b1", "with another device", Namespace::V2).await;
        world.deliver(&stanza).await;
        let event = world.next_event().await;
        assert_eq!(matches!(event, RemoteEventKind::Message { .. }), is_delivered, "{devices}");
        assert_eq!(matches!(event, RemoteEventKind::Undecryptable { .. }), !is_delivered);
    }
}

#[tokio::test]
async fn a_bundle_makes_a_device_wait_only_where_there_is_room() {
    for (devices, is_room) in [(127, true), (128, false)] {
        let world = heard(devices).await;
        let (verified, new) = (DeviceId::new(1_000_000).unwrap(), DeviceId::new(7).unwrap());
        let [his, another] = [2, 3].map(|seed| Contact::new(seed).account.identity_key());
        let mut tx = world.db.begin().await.unwrap();
        let verify = DeviceDecision::Verify;
        let mut omemo = tx.xmpp_omemo();
        omemo.decide(&chat(), (verified, his), verify, &Decider::Nobody, 2).await.unwrap();
        world.core.take_presented(&mut tx, &chat(), new, another).await.unwrap();
        let pin = tx.xmpp_omemo().find_pin(&chat(), new).await.unwrap();
        assert_eq!(pin.is_some(), is_room, "{devices}");
    }
}

#[tokio::test]
async fn a_device_that_cannot_be_pinned_gets_nothing() {
    for (devices, is_verified) in [(126, false), (127, false), (127, true)] {
        let mut world = heard(devices).await;
        world.alice_says("m1", "to the phone", PlaintextPolicy::Refuse).await.unwrap();
        let phone = world.bob.fingerprint();
        if is_verified {
            assert_eq!(world.decide(&[phone], DeviceDecision::Verify).await, Ok(1));
        }
        world.bob_gets_a_laptop(5).await;
        world.alice_says("m2", "to all", PlaintextPolicy::Refuse).await.unwrap();
        let message = world.next_where(|stanza| stanza.attr("id") == Some("m2")).await;
        assert!(world.bob.is_addressed_by(&message));
        let laptop = world.bob.laptop.as_ref().unwrap();
        assert_eq!(laptop.is_addressed_by(&message), devices == 126, "{devices} {is_verified}");
    }
}

#[tokio::test]
async fn a_device_that_no_push_has_told_of_is_written_to_once_it_was_heard() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    world.bob.laptop = Some(Box::new(Contact::new(2)));
    for (id, is_heard) in [("m2", false), ("m3", true)] {
        if is_heard {
            let stanza = world.laptop_says("l1", "it is me", Namespace::V2).await;
            world.deliver(&stanza).await;
            assert!(matches!(next_event(&mut world).await, RemoteEventKind::Message { .. }));
        }
        world.alice_says(id, "to all", PlaintextPolicy::Refuse).await.unwrap();
        let message = world.next_where(|stanza| stanza.attr("id") == Some(id)).await;
        let laptop = world.bob.laptop.as_ref().unwrap();
        assert_eq!(laptop.is_addressed_by(&message), is_heard, "{id}");
    }
}

/// A message whose key was altered on its way: what it encrypts, which stands last in it.
fn altered(stanza: &Element) -> Element {
    let text = String::from(stanza);
    let (before, after) = text.split_once("</key>").unwrap();
    let (kept, last) = before.split_at(before.len() - 8);
    let other = if last.starts_with('A') { 'B' } else { 'A' };
    let last: String = [other].into_iter().chain(last.chars().skip(1)).collect();
    format!("{kept}{last}</key>{after}").parse().unwrap()
}

#[tokio::test]
async fn a_session_with_a_listed_device_is_replaced_though_it_was_never_heard() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    world.bob_gets_a_laptop(2).await;
    let stanza = world.laptop_says("l1", "it is me", Namespace::V2).await;
    world.deliver(&altered(&stanza)).await;
    assert!(matches!(next_event(&mut world).await, RemoteEventKind::Undecryptable { .. }));
    let laptop = Contact::new(2);
    world.next_where(|stanza| laptop.is_addressed_by(stanza)).await;
}

#[tokio::test]
async fn a_device_that_anybody_made_up_costs_no_session() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    // It is on no list.
    world.bob.laptop = Some(Box::new(Contact::new(2)));
    let stanza = world.laptop_says("l1", "it is me", Namespace::V2).await;
    world.deliver(&altered(&stanza)).await;
    assert!(matches!(next_event(&mut world).await, RemoteEventKind::Undecryptable { .. }));
    world.settle().await;
    assert!(world.core.healing().is_empty());
    assert_eq!(world.last_heal().await, None);
}

#[tokio::test]
async fn a_stanza_of_whom_no_address_can_be_made_is_ended() {
    let mut world = World::new(Contact::new(1)).await;
    let stanza = world.bob_says("b1", "hello", Namespace::V2).await;
    let nobody = ChatKey { contact: RemoteUserId::new("@@"), ..chat() };
    let mut tx = world.db.begin().await.unwrap();
    let bytes = String::from(&stanza).into_bytes();
    let stored = tx.xmpp_inbox().insert(&nobody, "", Repetition::Never, &bytes, 1).await.unwrap();
    assert!(stored.is_some());
    tx.commit().await.unwrap();
    assert!(world.core.take_next(&nobody).await.unwrap());
    assert!(!world.core.take_next(&nobody).await.unwrap(), "nothing of it is left");
}

#[tokio::test]
async fn a_known_device_can_be_decided_about_though_the_contacts_server_is_silent() {
    let mut known = heard(1).await;
    known.disconnect().await;
    assert_eq!(known.client.devices(&chat()).await.unwrap().len(), 1);
    let mut unknown = heard(0).await;
    unknown.disconnect().await;
    let devices = unknown.client.devices(&chat()).await;
    assert_eq!(devices.err(), Some(SendError::Temporary), "nobody knows whether there are any");
}

#[test]
fn only_a_change_of_a_listed_and_trusted_device_holds_messages() {
    let [first, second] = [1, 2].map(|seed| Contact::new(seed).account.identity_key());
    let change_that = |trust| Some(PinChange { identity: second, since_ms: 2, trust });
    let change = change_that(PinTrust::Waiting);
    let pin = |device: u32, trust, change| DevicePin {
        device: DeviceId::new(device).unwrap(),
        identity: first,
        trust,
        since_ms: 1,
        change,
    };
    let pins = [
        pin(1, PinTrust::Pinned, change),
        pin(2, PinTrust::Pinned, None),
        pin(3, PinTrust::Distrusted, change),
        pin(4, PinTrust::Verified, change),
        pin(5, PinTrust::Verified, change_that(PinTrust::Distrusted)),
    ];
    let listed = [1, 2, 3, 5].map(|device| DeviceId::new(device).unwrap()).into();
    assert_eq!(changed_fingerprints(&pins, &listed), [second.fingerprint()]);
}

#[tokio::test]
async fn our_device_is_announced_to_a_contact_with_the_first_message() {
    let mut world = World::new(Contact::new(1)).await;
    // The stream is up.
    world.settle().await;
    let is_announcement = |stanza: &Element| stanza.has_child("event", PUBSUB_EVENT);
    for (id, announcements) in [("m1", Namespace::ALL.len()), ("m2", 0)] {
        world.alice_says(id, "hello", PlaintextPolicy::Refuse).await.unwrap();
        for _ in 0..announcements {
            world.next_where(is_announcement).await;
        }
        world.next_where(|stanza| stanza.attr("id") == Some(id)).await;
        assert_eq!(world.count_buffered(is_announcement), 0);
    }
}

#[tokio::test]
async fn what_a_bundle_has_given_up_is_told_at_once() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    world.bob.reinstall_under_the_same_number(7);
    let given_up = RemoteEventKind::GivenUp { fingerprint: world.bob.fingerprint() };
    for (id, seed) in [("m2", 7), ("m3", 8)] {
        world.bob.reinstall_under_the_same_number(seed);
        // His client publishes its list when it starts.
        let push = world.bob.push(Namespace::V2, &[world.bob.device()]);
        world.deliver(&World::message("bob@example.org", id, vec![push])).await;
        world.settle().await;
        while world.take_event().await.is_some() {}
        let rung = world.bells.rung.load(Ordering::SeqCst);
        let held = world.alice_says(id, "still you?", PlaintextPolicy::Refuse).await;
        assert!(matches!(held, Err(SendError::Held(Hold::IdentityChanged { .. }))), "{id}");
        assert!(world.bells.rung.load(Ordering::SeqCst) > rung, "{id}");
    }
    assert!(world.take_event().await.unwrap().kind == given_up);
}

#[tokio::test]
async fn a_device_of_one_namespace_that_cannot_be_used_does_not_stop_the_message_in_the_other() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let mut laptop = Contact::new(2);
    laptop.bundles = false;
    world.bob.laptop = Some(Box::new(laptop));
    let push = world.bob.push(Namespace::Legacy, &world.bob.devices());
    world.deliver(&World::message("bob@example.org", "p1", vec![push])).await;
    world.settle().await;
    world.alice_says("m2", "two", PlaintextPolicy::Refuse).await.unwrap();
    let message = world.next_where(|stanza| stanza.attr("id") == Some("m2")).await;
    assert!(world.bob.is_addressed_by(&message));
}

#[tokio::test]
async fn who_has_only_the_other_namespace_and_no_bundle_does_not_stop_the_message() {
    let mut phone = Contact::new(1);
    phone.announced = vec![Namespace::Legacy];
    let mut world = World::new(phone).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let laptop = Contact::new(2).device();
    let push = world.bob.push(Namespace::V2, &[laptop]);
    world.deliver(&World::message("bob@example.org", "p1", vec![push])).await;
    world.settle().await;
    world.alice_says("m2", "two", PlaintextPolicy::Refuse).await.unwrap();
    let message = world.next_where(|stanza| stanza.attr("id") == Some("m2")).await;
    assert!(world.bob.is_addressed_by(&message));
}

/// Asks a contact's server something, in a queue's turn.
struct Asks(Arc<Core>);

#[async_trait]
impl Drain<String> for Asks {
    async fn drain(&self, jid: &String) -> Drained {
        let chat = ChatKey { contact: RemoteUserId::new(jid.clone()), ..chat() };
        let _ = self.0.ask(&chat, "get", El::new("query", "x").build()).await;
        Drained::Empty
    }
}

#[tokio::test]
async fn a_slow_server_is_asked_so_much_at_a_time_and_delays_no_other() {
    let mut world = World::new(Contact::new(1)).await;
    let asks = Arc::new(Asks(world.core.clone()));
    let work: Weak<Asks> = Arc::downgrade(&asks);
    let queues = Queues::new(work, TaskTracker::new(), CancellationToken::new());
    let ask = |jid: String| queues.ring(jid);
    // More than there are turns.
    (0..=SLOTS).for_each(|number| ask(format!("c{number}@slow.example")));
    ask("carol@other.example".to_owned());
    let is_to = |domain: &'static str| {
        move |stanza: &Element| stanza.attr("to").is_some_and(|to| to.ends_with(domain))
    };
    let asked = world.next_where(is_to("@slow.example")).await;
    for _ in 1..SLOTS {
        world.next_where(is_to("@slow.example")).await;
    }
    world.next_where(is_to("@other.example")).await;
    world.settle().await;
    let more = world.count_buffered(is_to("@slow.example"));
    let asked_at_a_time = SLOTS + more;
    println!("safety: slow_server: {asked_at_a_time} of {} questions at a time", SLOTS + 1);
    assert_eq!(more, 0, "one waits");

    let answer = ["id", "from", "to"].map(|name| asked.attr(name).unwrap());
    let [id, own, contact] = answer;
    let answer = El::stanza("iq").attr("type", "result").attr("id", id);
    world.deliver(&answer.attr("from", contact).attr("to", own).build()).await;
    world.next_where(is_to("@slow.example")).await;
}
