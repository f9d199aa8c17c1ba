//! What follows when people verify, approve and distrust a contact's devices.

use e2ee::omemo::Namespace;
use minidom::Element;

use super::{
    contact::{BOB, Contact},
    world::{World, chat},
};
use crate::network::{
    DeviceDecision, DeviceTrust, Hold, IdentityTrust, LegSecurity, NetworkClient as _,
    PlaintextPolicy, RemoteEventKind, SendError, Undecided, VerifyUriError,
};
use crate::store::PinTrust;

const VERIFIED: LegSecurity = LegSecurity::Encrypted { identity: IdentityTrust::Verified };
const PINNED: LegSecurity = LegSecurity::Encrypted { identity: IdentityTrust::Pinned };

/// Alice has verified Bob's phone; then he gets a laptop.
async fn bob_is_verified_and_gets_a_laptop() -> World {
    let mut world = World::new(Contact::new(1)).await;
    let sent = world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    assert_eq!(sent.security, PINNED);
    let phone = world.bob.fingerprint();
    assert_eq!(world.decide(&[phone], DeviceDecision::Verify).await, Ok(1));
    world.bob_gets_a_laptop(5).await;
    world
}

fn laptop(world: &World) -> &Contact {
    world.bob.laptop.as_ref().expect("Bob has a laptop")
}

fn new_devices(world: &World) -> Hold {
    Hold::NewDevices { fingerprints: vec![laptop(world).fingerprint()] }
}

/// The next event that is not about a message of Alice's.
pub(super) async fn next_event(world: &mut World) -> RemoteEventKind {
    loop {
        match world.next_event().await {
            RemoteEventKind::Accepted { .. } => {}
            event => return event,
        }
    }
}

async fn nothing_more(world: &World) -> bool {
    while let Some(event) = world.take_event().await {
        if !matches!(event.kind, RemoteEventKind::Accepted { .. }) {
            return false;
        }
    }
    true
}

async fn next_sent(world: &mut World, id: &str) -> Element {
    world.next_where(|stanza| stanza.attr("id") == Some(id)).await
}

fn is_message(event: &RemoteEventKind, expected_id: &str, expected: LegSecurity) -> bool {
    matches!(event, RemoteEventKind::Message { id: Some(id), security, .. }
        if id.as_str() == expected_id && *security == expected)
}

#[tokio::test]
async fn a_new_device_of_a_verified_contact_gets_nothing_and_is_not_heard_until_approved() {
    let mut world = bob_is_verified_and_gets_a_laptop().await;
    for (id, text) in [("m2", "two"), ("m3", "three")] {
        let sent = world.alice_says(id, text, PlaintextPolicy::Refuse).await.unwrap();
        assert_eq!(sent.security, VERIFIED, "all who can read it are verified");
        let message = next_sent(&mut world, id).await;
        assert!(!laptop(&world).is_addressed_by(&message));
        assert_eq!(world.bob.decrypt(&message).as_deref(), Some(text), "the phone goes on");
    }
    assert!(next_event(&mut world).await == RemoteEventKind::Held(new_devices(&world)));
    for (id, text) in [("l1", "from the laptop"), ("l2", "and more")] {
        let stanza = world.laptop_says(id, text, Namespace::V2).await;
        world.deliver(&stanza).await;
    }
    let phone = world.bob_says("b1", "from the phone", Namespace::V2).await;
    world.deliver(&phone).await;
    assert!(is_message(&next_event(&mut world).await, "b1", VERIFIED), "others do not wait for it");
    world.settle().await;
    assert!(nothing_more(&world).await, "told once, and nothing bridged");
    let Undecided { held, devices } = world.client.undecided(&chat()).await.unwrap();
    assert_eq!((held.messages, devices.len()), (2, 1));
    assert_eq!(devices[0].trust, DeviceTrust::Waiting);

    let fingerprint = laptop(&world).fingerprint();
    assert_eq!(world.decide(&[fingerprint], DeviceDecision::Approve).await, Ok(1));
    for id in ["l1", "l2"] {
        assert!(is_message(&next_event(&mut world).await, id, PINNED), "in order");
    }
    let sent = world.alice_says("m4", "four", PlaintextPolicy::Refuse).await.unwrap();
    assert_eq!(sent.security, PINNED, "one of them was not compared");
    let message = next_sent(&mut world, "m4").await;
    assert!(laptop(&world).is_addressed_by(&message));
}

#[tokio::test]
async fn a_device_that_gets_no_key_does_not_count() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let phone = world.bob.fingerprint();
    assert_eq!(world.decide(&[phone], DeviceDecision::Verify).await, Ok(1));
    let mut laptop = Contact::new(5);
    laptop.bundles = false;
    world.bob.laptop = Some(Box::new(laptop));
    for namespace in Namespace::ALL {
        let push = world.bob.push(namespace, &world.bob.devices());
        world.deliver(&World::message("bob@example.org", "p1", vec![push])).await;
    }
    world.settle().await;
    let sent = world.alice_says("m2", "two", PlaintextPolicy::Refuse).await.unwrap();
    assert_eq!(sent.security, VERIFIED, "all who can read it are verified");
}

#[tokio::test]
async fn a_new_device_that_is_heard_first_waits_too() {
    let mut world = bob_is_verified_and_gets_a_laptop().await;
    for namespace in Namespace::ALL {
        let stanza = world.laptop_says("l1", "it is me", namespace).await;
        world.deliver(&stanza).await;
    }
    assert!(next_event(&mut world).await == RemoteEventKind::Held(new_devices(&world)));
    world.settle().await;
    assert!(nothing_more(&world).await);
    let to_laptop = |stanza: &Element| laptop(&world).is_addressed_by(stanza);
    assert_eq!(world.count_buffered(to_laptop), 0, "not even an empty message");
    // Whoever presents another key in its place waits as well, under that key.
    let given_up = RemoteEventKind::GivenUp { fingerprint: laptop(&world).fingerprint() };
    world.bob.laptop.as_mut().unwrap().reinstall_under_the_same_number(6);
    let stanza = world.laptop_says("l2", "and again", Namespace::V2).await;
    world.deliver(&stanza).await;
    assert!(next_event(&mut world).await == given_up);
    assert!(next_event(&mut world).await == RemoteEventKind::Held(new_devices(&world)));
    let fingerprint = laptop(&world).fingerprint();
    assert_eq!(world.decide(&[fingerprint], DeviceDecision::Verify).await, Ok(1));
    // What came under the first key is asked about once more.
    let first = next_event(&mut world).await;
    assert!(matches!(first, RemoteEventKind::Held(Hold::IdentityChanged { .. })));
    assert!(is_message(&next_event(&mut world).await, "l2", VERIFIED));
}

#[tokio::test]
async fn without_a_trusted_device_the_message_waits_and_is_not_sent_in_the_clear() {
    let mut world = bob_is_verified_and_gets_a_laptop().await;
    let phone = world.bob.fingerprint();
    assert_eq!(world.decide(&[phone], DeviceDecision::Distrust).await, Ok(1));
    let held = world.alice_says("m2", "two", PlaintextPolicy::Allow).await;
    assert_eq!(held, Err(SendError::Held(new_devices(&world))));
    let fingerprint = laptop(&world).fingerprint();
    assert_eq!(world.decide(&[fingerprint], DeviceDecision::Distrust).await, Ok(1));
    let held = world.alice_says("m2", "two", PlaintextPolicy::Allow).await;
    assert_eq!(held, Err(SendError::Held(Hold::NoTrustedDevice)));
}

#[tokio::test]
async fn a_distrusted_device_gets_nothing_and_is_refused_until_it_is_trusted_again() {
    let mut world = World::new(Contact::new(1)).await;
    world.bob_gets_a_laptop(5).await;
    world.alice_says("m1", "to both", PlaintextPolicy::Refuse).await.unwrap();
    let both = next_sent(&mut world, "m1").await;
    assert!(laptop(&world).is_addressed_by(&both));
    let first = world.laptop_says("l1", "hello", Namespace::V2).await;
    world.deliver(&first).await;
    assert!(is_message(&next_event(&mut world).await, "l1", PINNED));

    let fingerprint = laptop(&world).fingerprint();
    let distrusted =
        world.decide(std::slice::from_ref(&fingerprint), DeviceDecision::Distrust).await;
    assert_eq!(distrusted, Ok(1));
    world.settle().await;
    let before = world.count_buffered(|stanza| laptop(&world).is_addressed_by(stanza));
    world.alice_says("m2", "to the phone", PlaintextPolicy::Refuse).await.unwrap();
    for id in ["l2", "l3"] {
        let stanza = world.laptop_says(id, "let me in", Namespace::V2).await;
        world.deliver(&stanza).await;
        let refused = RemoteEventKind::Refused { fingerprint: fingerprint.clone() };
        assert!(next_event(&mut world).await == refused);
    }
    world.settle().await;
    assert!(nothing_more(&world).await);
    let after = world.count_buffered(|stanza| laptop(&world).is_addressed_by(stanza));
    assert_eq!(after, before, "it was written to");

    assert_eq!(world.decide(&[fingerprint], DeviceDecision::Verify).await, Ok(1));
    let stanza = world.laptop_says("l4", "thank you", Namespace::V2).await;
    world.deliver(&stanza).await;
    assert!(is_message(&next_event(&mut world).await, "l4", VERIFIED));
    world.alice_says("m3", "to both", PlaintextPolicy::Refuse).await.unwrap();
    let both = next_sent(&mut world, "m3").await;
    assert!(laptop(&world).is_addressed_by(&both));
}

#[tokio::test]
async fn what_came_under_an_identity_that_is_given_up_again_is_ended_with_a_word() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let own = world.bob.account.clone();
    world.bob.reinstall_under_the_same_number(7);
    let strange = world.bob_says("b1", "it is me", Namespace::V2).await;
    world.deliver(&strange).await;
    assert!(matches!(next_event(&mut world).await, RemoteEventKind::Held(_)));
    let held = world.alice_says("m2", "two", PlaintextPolicy::Refuse).await;
    assert!(matches!(held, Err(SendError::Held(Hold::IdentityChanged { .. }))));

    let given_up = RemoteEventKind::GivenUp { fingerprint: world.bob.fingerprint() };
    world.bob.account = own;
    let push = world.bob.push(Namespace::V2, &world.bob.devices());
    world.deliver(&World::message("bob@example.org", "p1", vec![push])).await;
    world.settle().await;
    world.alice_says("m2", "two", PlaintextPolicy::Refuse).await.unwrap();
    assert!(next_event(&mut world).await == given_up, "what was shown of it counts no more");
    assert!(matches!(next_event(&mut world).await, RemoteEventKind::Undecryptable { .. }));
    let undecided = world.client.undecided(&chat()).await.unwrap();
    assert_eq!((undecided.held.messages, undecided.devices.len()), (0, 0));
}

#[tokio::test]
async fn only_a_fingerprint_that_was_named_is_decided_about() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    for decision in [DeviceDecision::Verify, DeviceDecision::Distrust, DeviceDecision::Approve] {
        let other = Contact::new(9).fingerprint();
        assert_eq!(world.decide(&[other], decision).await, Ok(0));
        assert_eq!(world.decide(&[], decision).await, Ok(0));
    }
    let devices = world.client.devices(&chat()).await.unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].trust, DeviceTrust::Pinned);
    assert_eq!(devices[0].since_ms, Some(1_700_000_000_000));
}

#[tokio::test]
async fn a_uri_matches_when_the_devices_present_all_that_it_names() {
    let mut world = World::new(Contact::new(1)).await;
    world.bob_gets_a_laptop(5).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let uri = |jid: &str, contacts: &[&Contact]| {
        let devices: Vec<String> = contacts
            .iter()
            .map(|of| {
                let key = hex::encode(of.account.identity_key().to_bytes());
                format!("omemo-sid-{}={key}", of.device())
            })
            .collect();
        format!("xmpp:{jid}?{}", devices.join(";"))
    };
    let (phone, stranger) = (&world.bob, Contact::new(9));
    let mut forged = Contact::new(1);
    forged.reinstall_under_the_same_number(9);
    let other = |device: &Contact| vec![format!("device {}", device.device())];
    for (uri, refusal) in [
        (uri("carol@example.org", &[phone]), VerifyUriError::OtherContact),
        (
            uri("bob@example.org", &[phone, &stranger]),
            VerifyUriError::Mismatch { devices: other(&stranger) },
        ),
        (
            uri("bob@example.org", &[laptop(&world), &forged]),
            VerifyUriError::Mismatch { devices: other(&forged) },
        ),
    ] {
        let refused = world.client.match_uri(&chat(), &uri).await;
        assert_eq!(refused, Err(refusal), "{uri}");
    }
    let fingerprints = vec![phone.fingerprint(), laptop(&world).fingerprint()];
    let uri = uri("bob@example.org", &[phone, laptop(&world)]);
    assert_eq!(world.client.match_uri(&chat(), &uri).await, Ok(fingerprints.clone()));
    let devices = world.client.devices(&chat()).await.unwrap();
    assert!(devices.iter().all(|device| device.trust == DeviceTrust::Pinned), "nothing decided");
    for newly in [2, 0] {
        assert_eq!(world.decide(&fingerprints, DeviceDecision::Verify).await, Ok(newly));
    }
}

#[tokio::test]
async fn what_only_the_server_presents_takes_the_identity_from_nobody() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    next_sent(&mut world, "m1").await;
    let own = world.bob.account.clone();
    world.bob.reinstall_under_the_same_number(7);
    let strange = world.bob_says("b1", "it is me", Namespace::V2).await;
    world.deliver(&strange).await;
    assert!(matches!(next_event(&mut world).await, RemoteEventKind::Held(_)));
    let presented = world.bob.fingerprint();
    assert_eq!(world.decide(&[presented], DeviceDecision::Distrust).await, Ok(1));

    let pins = world.db.read().await.unwrap().xmpp_omemo().load_pins(&chat()).await.unwrap();
    let [pin] = pins.as_slice() else { panic!("one device") };
    assert_eq!((pin.identity, pin.trust), (own.identity_key(), PinTrust::Pinned));

    world.bob.account = own;
    let push = world.bob.push(Namespace::V2, &world.bob.devices());
    world.deliver(&World::message("bob@example.org", "p1", vec![push])).await;
    world.settle().await;
    let sent = world.alice_says("m2", "to the real one", PlaintextPolicy::Refuse).await.unwrap();
    assert_eq!(sent.security, PINNED);
}

#[tokio::test]
async fn a_key_is_distrusted_and_verified_under_every_number() {
    for (decision, expected) in [
        (DeviceDecision::Verify, DeviceTrust::Verified),
        (DeviceDecision::Distrust, DeviceTrust::Distrusted),
    ] {
        let mut world = World::new(Contact::new(1)).await;
        world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
        world.bob_gets_a_laptop(5).await;
        let both = [world.bob.fingerprint(), laptop(&world).fingerprint()];
        assert_eq!(world.decide(&both, decision).await, Ok(2), "one was pinned, the other not");
        let devices = world.client.devices(&chat()).await.unwrap();
        assert!(devices.iter().all(|device| device.trust == expected));
        assert_eq!(devices.len(), 2);
    }
}

/// Alice has written to both devices of Bob's and distrusted the laptop; gives its fingerprint.
async fn distrusted_laptop() -> (World, String) {
    let mut world = World::new(Contact::new(1)).await;
    world.bob_gets_a_laptop(5).await;
    world.alice_says("m1", "to both", PlaintextPolicy::Refuse).await.unwrap();
    let key = laptop(&world).fingerprint();
    assert_eq!(world.decide(std::slice::from_ref(&key), DeviceDecision::Distrust).await, Ok(1));
    (world, key)
}

#[tokio::test]
async fn an_approval_brings_no_distrusted_device_back() {
    let (mut world, _) = distrusted_laptop().await;
    world.bob.laptop.as_mut().unwrap().reinstall_under_the_same_number(6);
    let stanza = world.laptop_says("l1", "somebody new", Namespace::V2).await;
    world.deliver(&stanza).await;
    assert!(matches!(next_event(&mut world).await, RemoteEventKind::Refused { .. }));
    let presented = laptop(&world).fingerprint();
    let approved = world.decide(std::slice::from_ref(&presented), DeviceDecision::Approve).await;
    assert_eq!(approved, Ok(0));
    world.alice_says("m2", "to the phone", PlaintextPolicy::Refuse).await.unwrap();
    let message = next_sent(&mut world, "m2").await;
    assert!(!laptop(&world).is_addressed_by(&message));
    assert_eq!(world.decide(&[presented], DeviceDecision::Verify).await, Ok(1));
}

#[tokio::test]
async fn a_distrusted_key_is_kept_out_under_a_number_that_nobody_had() {
    let (mut world, key) = distrusted_laptop().await;

    let mut renumbered = Contact::new(9);
    renumbered.reinstall_under_the_same_number(5);
    assert_eq!(renumbered.fingerprint(), key);
    world.bob.laptop = Some(Box::new(renumbered));
    let stanza = world.laptop_says("l1", "I am new", Namespace::V2).await;
    world.deliver(&stanza).await;
    let told = next_event(&mut world).await;
    assert!(matches!(told, RemoteEventKind::Refused { fingerprint } if fingerprint == key));
    world.settle().await;
    assert!(world.take_event().await.is_none());

    // Nor is it written to when it is listed.
    for namespace in Namespace::ALL {
        let push = world.bob.push(namespace, &world.bob.devices());
        world.deliver(&World::message(BOB, "pushed", vec![push])).await;
    }
    world.settle().await;
    world.alice_says("m2", "to the phone", PlaintextPolicy::Refuse).await.unwrap();
    let message = next_sent(&mut world, "m2").await;
    assert!(world.bob.is_addressed_by(&message) && !laptop(&world).is_addressed_by(&message));
    assert!(nothing_more(&world).await, "who has said so needs no word");
}

/// Whoever has the laptop gives it another key, and uses it under the laptop's number.
async fn laptop_is_reinstalled(world: &mut World) -> String {
    world.bob.laptop.as_mut().unwrap().reinstall_under_the_same_number(6);
    let stanza = world.laptop_says("x1", "somebody new", Namespace::V2).await;
    world.deliver(&stanza).await;
    assert!(matches!(next_event(world).await, RemoteEventKind::Refused { .. }));
    laptop(world).fingerprint()
}

/// The laptop's first key comes back under a number that nobody had.
async fn first_key_comes_back(world: &mut World, key: &str) -> RemoteEventKind {
    let mut renumbered = Contact::new(9);
    renumbered.reinstall_under_the_same_number(5);
    assert_eq!(renumbered.fingerprint(), key);
    world.bob.laptop = Some(Box::new(renumbered));
    let stanza = world.laptop_says("x2", "I am new", Namespace::V2).await;
    world.deliver(&stanza).await;
    next_event(world).await
}

#[tokio::test]
async fn a_distrusted_key_is_kept_out_when_its_device_has_another_by_then() {
    for decision in [DeviceDecision::Distrust, DeviceDecision::Verify] {
        let (mut world, key) = distrusted_laptop().await;
        let presented = laptop_is_reinstalled(&mut world).await;
        assert_eq!(world.decide(&[presented], decision).await, Ok(1), "{decision:?}");
        let told = first_key_comes_back(&mut world, &key).await;
        let is_refused =
            matches!(&told, RemoteEventKind::Refused { fingerprint } if *fingerprint == key);
        assert!(is_refused, "{decision:?}");
        for namespace in Namespace::ALL {
            let push = world.bob.push(namespace, &world.bob.devices());
            world.deliver(&World::message(BOB, "pushed", vec![push])).await;
        }
        world.settle().await;
        world.alice_says("m2", "to the phone", PlaintextPolicy::Refuse).await.unwrap();
        let message = next_sent(&mut world, "m2").await;
        assert!(!laptop(&world).is_addressed_by(&message), "{decision:?}");
        assert!(world.decide(&[key], DeviceDecision::Verify).await.unwrap() > 0, "{decision:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_only_presented_is_distrusted_under_every_number() {
    let mut world = World::new(Contact::new(1)).await;
    world.bob_gets_a_laptop(3).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    next_sent(&mut world, "m1").await;
    let own = world.bob.account.clone();
    world.bob.reinstall_under_the_same_number(5);
    let strange = world.bob_says("b1", "it is me", Namespace::V2).await;
    world.deliver(&strange).await;
    assert!(matches!(next_event(&mut world).await, RemoteEventKind::Held(_)));
    let key = world.bob.fingerprint();
    let named = std::slice::from_ref(&key);
    assert_eq!(world.decide(named, DeviceDecision::Distrust).await, Ok(1));
    assert!(matches!(next_event(&mut world).await, RemoteEventKind::Refused { .. }), "what waited");
    assert_eq!(world.decide(named, DeviceDecision::Distrust).await, Ok(0), "it is so already");
    assert_eq!(world.decide(named, DeviceDecision::Approve).await, Ok(0));
    let devices = world.client.devices(&chat()).await.unwrap();
    let known = devices.iter().find(|device| device.fingerprint == key).unwrap();
    assert_eq!(known.trust, DeviceTrust::Distrusted);
    world.alice_says("m2", "to the laptop", PlaintextPolicy::Refuse).await.unwrap();
    let message = next_sent(&mut world, "m2").await;
    assert!(laptop(&world).is_addressed_by(&message) && !world.bob.is_addressed_by(&message));

    world.bob.account = own;
    let told = first_key_comes_back(&mut world, &key).await;
    assert!(matches!(told, RemoteEventKind::Refused { fingerprint } if fingerprint == key));
}

#[tokio::test]
async fn a_distrusted_key_is_kept_out_under_the_number_of_a_trusted_device() {
    let (mut world, key) = distrusted_laptop().await;

    // Whoever has the laptop publishes its key as the phone's.
    world.bob.reinstall_under_the_same_number(5);
    assert_eq!(world.bob.fingerprint(), key);
    let stanza = world.bob_says("b1", "I am the phone", Namespace::V2).await;
    world.deliver(&stanza).await;
    let told = next_event(&mut world).await;
    let is_refused = matches!(&told, RemoteEventKind::Refused { .. });
    let approve = world.decide(std::slice::from_ref(&key), DeviceDecision::Approve);
    let approved = approve.await.unwrap();
    world.settle().await;
    let is_delivered = world.take_event().await.is_some();
    println!(
        "safety: distrusted_key_elsewhere: refused {}, approved {}, delivered {}",
        u8::from(is_refused),
        approved,
        u8::from(is_delivered)
    );
    assert!(is_refused && approved == 0 && !is_delivered);
    assert!(
        world.decide(&[key], DeviceDecision::Verify).await.unwrap() > 0,
        "by its name it comes back"
    );
}
