use std::time::Duration;

use assert_matches::assert_matches;
use e2ee::omemo::{DeviceId, Namespace, limits::SIGNED_PREKEY_PERIOD};

use super::{
    contact::Contact,
    world::{World, chat},
};
use crate::network::{
    ChatKey, DeviceDecision, DeviceTrust, Hold, NetworkClient as _, PlaintextPolicy,
    RemoteEventKind, RemoteUserId, SendError,
};
use crate::store::Remedy;

async fn approve(world: &mut World, fingerprints: &[String]) -> Result<usize, SendError> {
    world.decide(fingerprints, DeviceDecision::Approve).await
}

#[tokio::test]
async fn a_changed_identity_is_held_told_once_and_released_by_approval() {
    let mut world = World::new(Contact::new(1)).await;
    let first = world.bob_says("b1", "it is me", Namespace::V2).await;
    world.deliver(&first).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));

    world.bob.reinstall_under_the_same_number(7);
    let fingerprint = world.bob.account.identity_key().fingerprint();
    for (id, text) in [("b2", "me again"), ("b3", "and again")] {
        let stanza = world.bob_says(id, text, Namespace::V2).await;
        world.deliver(&stanza).await;
    }
    let held = Hold::IdentityChanged { fingerprints: vec![fingerprint.clone()] };
    assert!(world.next_event().await == RemoteEventKind::Held(held.clone()));
    world.settle().await;
    assert!(world.take_event().await.is_none(), "told once, and nothing bridged");

    // The other direction waits for the same word.
    let sent = world.alice_says("m1", "who are you?", PlaintextPolicy::Allow).await;
    assert_eq!(sent, Err(SendError::Held(held)));
    let devices = world.client.devices(&chat()).await.unwrap();
    assert_matches!(devices.as_slice(), [device] if device.trust == DeviceTrust::Changed
        && device.fingerprint == fingerprint);

    world.settle().await;
    world.bells.unblocked.lock().unwrap().clear();
    assert_eq!(approve(&mut world, &[fingerprint]).await, Ok(1));
    assert_eq!(world.bells.unblocked.lock().unwrap().len(), 1);
    for id in ["b2", "b3"] {
        assert!(
            matches!(world.next_event().await, RemoteEventKind::Message { id: Some(found), .. }
            if found.as_str() == id)
        );
    }
    world.alice_says("m1", "welcome back", PlaintextPolicy::Refuse).await.unwrap();
    let message = world.next_where(|stanza| stanza.attr("id") == Some("m1")).await;
    assert_eq!(world.bob.decrypt(&message).as_deref(), Some("welcome back"));
}

#[tokio::test]
async fn what_was_held_is_read_though_its_prekeys_are_gone_when_it_is_approved() {
    let mut world = World::new(Contact::new(1)).await;
    let first = world.bob_says("b1", "it is me", Namespace::V2).await;
    world.deliver(&first).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
    world.bob.reinstall_under_the_same_number(7);
    let fingerprint = world.bob.fingerprint();
    for id in ["b2", "b3"] {
        let stanza = world.bob_says(id, "me again", Namespace::V2).await;
        world.deliver(&stanza).await;
    }
    assert!(matches!(world.next_event().await, RemoteEventKind::Held(_)));
    world.settle().await;

    // Both signed prekeys of then are replaced.
    for id in ["2", "3"] {
        world.clock.pass(SIGNED_PREKEY_PERIOD);
        let (_, bundle) = world.fetch_alice(Namespace::V2).await;
        let bundle = bundle.to_element();
        assert_eq!(bundle.get_child("spk", "urn:xmpp:omemo:2").unwrap().attr("id"), Some(id));
    }
    // It may be held again.
    assert_eq!(approve(&mut world, &["another".to_owned()]).await, Ok(0));
    let mut tx = world.db.begin().await.unwrap();
    assert_eq!(tx.xmpp_inbox().release(&chat()).await.unwrap(), 2);
    tx.commit().await.unwrap();
    world.core.inbox.ring(chat());
    world.settle().await;
    assert!(world.take_event().await.is_none());

    assert_eq!(approve(&mut world, &[fingerprint]).await, Ok(1));
    for id in ["b2", "b3"] {
        assert!(
            matches!(world.next_event().await, RemoteEventKind::Message { id: Some(found), .. }
            if found.as_str() == id)
        );
    }
}

#[tokio::test]
async fn a_held_message_under_two_numbers_is_read_once() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let phone = world.bob.fingerprint();
    assert_eq!(world.decide(&[phone], DeviceDecision::Verify).await, Ok(1));
    world.bob_gets_a_laptop(5).await;
    let (number, key) = {
        let laptop = world.bob.laptop.as_ref().unwrap();
        (laptop.device().to_string(), laptop.fingerprint())
    };
    for namespace in Namespace::ALL {
        let stanza = world.laptop_says("l1", "once", namespace).await;
        let again = String::from(&stanza).replace(&format!("'{number}'"), "'999'");
        let again = again.replace(&format!("\"{number}\""), "\"999\"");
        assert_ne!(again, String::from(&stanza));
        world.deliver(&stanza).await;
        world.deliver_raw(&again.replace("l1", "l2")).await;
    }
    world.settle().await;
    while world.take_event().await.is_some() {}
    assert_eq!(approve(&mut world, &[key]).await, Ok(2));
    world.settle().await;
    let (mut messages, mut refused) = (0, 0);
    while let Some(event) = world.take_event().await {
        match event.kind {
            RemoteEventKind::Message { .. } => messages += 1,
            RemoteEventKind::Undecryptable { .. } => refused += 1,
            _ => {}
        }
    }
    assert_eq!((messages, refused), (2, 2), "once in each namespace");
}

#[tokio::test]
async fn a_bundle_with_another_identity_holds_the_message() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    world.bob.reinstall_under_the_same_number(7);
    // His client publishes its list when it starts.
    let push = world.bob.push(Namespace::V2, &[world.bob.device()]);
    world.deliver(&World::message("bob@example.org", "p1", vec![push])).await;
    world.settle().await;
    let held = world.alice_says("m2", "two", PlaintextPolicy::Refuse).await;
    assert_matches!(held, Err(SendError::Held(Hold::IdentityChanged { .. })));
    let fingerprint = world.bob.account.identity_key().fingerprint();
    assert_eq!(approve(&mut world, &[fingerprint]).await, Ok(1));
    world.alice_says("m2", "two", PlaintextPolicy::Refuse).await.unwrap();
    let message = world.next_where(|stanza| stanza.attr("id") == Some("m2")).await;
    assert_eq!(world.bob.decrypt(&message).as_deref(), Some("two"));
}

#[tokio::test]
async fn an_approval_without_a_change_changes_nothing() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let fingerprint = world.bob.account.identity_key().fingerprint();
    assert_eq!(approve(&mut world, &[fingerprint]).await, Ok(0));
}

#[tokio::test]
async fn only_an_identity_that_was_shown_is_approved() {
    let mut world = World::new(Contact::new(1)).await;
    let first = world.bob_says("b1", "it is me", Namespace::V2).await;
    world.deliver(&first).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
    let mut fingerprints = Vec::new();
    for (seed, id) in [(7, "b2"), (8, "b3")] {
        world.bob.reinstall_under_the_same_number(seed);
        fingerprints.push(world.bob.account.identity_key().fingerprint());
        let stanza = world.bob_says(id, "me again", Namespace::V2).await;
        world.deliver(&stanza).await;
        if let [given_up, _] = fingerprints.as_slice() {
            let fingerprint = given_up.clone();
            assert!(world.next_event().await == RemoteEventKind::GivenUp { fingerprint });
        }
        let held =
            Hold::IdentityChanged { fingerprints: vec![fingerprints.last().unwrap().clone()] };
        assert!(world.next_event().await == RemoteEventKind::Held(held), "each one is told");
    }
    let [shown, presented] = fingerprints.as_slice() else { panic!("two identities") };
    assert_eq!(approve(&mut world, std::slice::from_ref(shown)).await, Ok(0));
    world.settle().await;
    assert!(world.take_event().await.is_none(), "still held");
    assert_eq!(approve(&mut world, std::slice::from_ref(presented)).await, Ok(1));
    // What came under the identity in between is held for a word of its own.
    let held = Hold::IdentityChanged { fingerprints: vec![shown.clone()] };
    assert!(world.next_event().await == RemoteEventKind::Held(held));
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { id: Some(id), .. }
        if id.as_str() == "b3"));
}

#[tokio::test]
async fn a_new_device_in_a_push_unblocks_the_chat() {
    let mut world = World::new(Contact::without_omemo()).await;
    let held = world.alice_says("m1", "secret", PlaintextPolicy::Refuse).await;
    assert_eq!(held, Err(SendError::Held(Hold::NoEncryption)));
    world.bob = Contact::new(1);
    let push = world.bob.push(Namespace::Legacy, &[world.bob.device()]);
    world.deliver(&World::message("bob@example.org", "p1", vec![push])).await;
    world.settle().await;
    assert!(*world.bells.unblocked.lock().unwrap() == [chat()]);
    world.alice_says("m1", "secret", PlaintextPolicy::Refuse).await.unwrap();
}

#[tokio::test]
async fn a_push_that_overtakes_the_answer_hides_no_list() {
    for namespace in Namespace::ALL {
        let mut world = World::new(Contact::new(1)).await;
        world.bob.announced = vec![namespace];
        world.alice_says("m1", "secret", PlaintextPolicy::Refuse).await.unwrap();
    }
}

#[tokio::test]
async fn a_push_counts_only_for_whom_it_comes_from() {
    let mut world = World::new(Contact::without_omemo()).await;
    let held = world.alice_says("m1", "secret", PlaintextPolicy::Refuse).await;
    assert_eq!(held, Err(SendError::Held(Hold::NoEncryption)));
    let mallory = Contact::new(3);
    let push = mallory.push(Namespace::Legacy, &[mallory.device()]);
    world.deliver(&World::message("mallory@example.org", "p1", vec![push])).await;
    world.settle().await;
    assert!(world.bells.unblocked.lock().unwrap().is_empty());
    let held = world.alice_says("m1", "secret", PlaintextPolicy::Refuse).await;
    assert_eq!(held, Err(SendError::Held(Hold::NoEncryption)));
}

#[tokio::test]
async fn a_removed_device_list_does_not_mean_plaintext() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    world.bob.announced.clear();
    for namespace in Namespace::ALL {
        let push = world.bob.push(namespace, &[]);
        world.deliver(&World::message("bob@example.org", "p", vec![push])).await;
    }
    world.settle().await;
    let held = world.alice_says("m2", "two", PlaintextPolicy::Refuse).await;
    println!("safety: removed_list: {} of 1 messages sent", usize::from(held.is_ok()));
    assert_eq!(held, Err(SendError::Held(Hold::NoEncryption)));
}

#[tokio::test]
async fn ten_thousand_devices_are_capped() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let many: Vec<DeviceId> = (1..=10_000).filter_map(DeviceId::new).collect();
    let push = world.bob.push(Namespace::V2, &many);
    world.deliver(&World::message("bob@example.org", "p", vec![push])).await;
    world.settle().await;
    let mut tx = world.db.read().await.unwrap();
    let known = tx.xmpp_omemo().find_devices(&chat(), Namespace::V2).await.unwrap().unwrap();
    assert!(known.devices.len() <= 100, "{}", known.devices.len());
}

#[tokio::test]
async fn a_lost_session_is_told_once_and_replaced() {
    let mut world = World::new(Contact::new(1)).await;
    let first = world.bob_says("b1", "hello", Namespace::V2).await;
    world.deliver(&first).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
    let answer = world.next_where(|stanza| stanza.has_child("encrypted", "urn:xmpp:omemo:2")).await;
    world.bob.decrypt(&answer);

    // The bridge loses the session; Bob goes on in it.
    let forgotten = world.lose_sessions().await;
    assert_eq!(forgotten, 1);
    for id in ["b2", "b3"] {
        let lost = world.bob_says(id, "lost", Namespace::V2).await;
        world.deliver(&lost).await;
        assert!(matches!(world.next_event().await, RemoteEventKind::Undecryptable { .. }));
    }
    let is_omemo = |stanza: &minidom::Element| stanza.has_child("encrypted", "urn:xmpp:omemo:2");
    let empty = world.next_where(is_omemo).await;
    assert_eq!(world.bob.decrypt(&empty), None);
    let first = world.last_heal().await;
    let healed = world.bob_says("b4", "readable", Namespace::V2).await;
    world.deliver(&healed).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
    let healings = world.count_buffered(is_omemo);
    assert_eq!(healings, 0, "one replacement in an hour is enough");

    assert_eq!(world.lose_sessions().await, 1);
    world.clock.pass(Duration::from_secs(60 * 60 - 1));
    bob_is_not_understood(&mut world, "b5").await;
    assert!(world.core.healing().is_empty());
    // An attempt that fails does not count.
    world.clock.pass(Duration::from_secs(1));
    world.bob.bundles = false;
    bob_is_not_understood(&mut world, "b6").await;
    while !world.core.healing().is_empty() {
        world.settle().await;
    }
    assert_eq!(world.last_heal().await, first);
    world.bob.bundles = true;
    bob_is_not_understood(&mut world, "b7").await;
    let empty = world.next_where(is_omemo).await;
    assert_eq!(world.bob.decrypt(&empty), None);
    assert!(world.last_heal().await > first);
}

#[tokio::test]
async fn a_device_that_is_not_understood_and_has_another_identity_is_told() {
    let mut world = World::new(Contact::new(1)).await;
    let first = world.bob_says("b1", "hello", Namespace::V2).await;
    world.deliver(&first).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Message { .. }));
    assert_eq!(world.lose_sessions().await, 1);
    let lost = world.bob_says("b2", "lost", Namespace::V2).await;
    world.bob.reinstall_under_the_same_number(7);
    world.deliver(&lost).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Undecryptable { .. }));
    world.settle().await;
    let fingerprints = vec![world.bob.fingerprint()];
    let told = world.next_event().await;
    assert!(told == RemoteEventKind::Held(Hold::IdentityChanged { fingerprints }));
    assert_eq!(world.last_heal().await, None, "there is no session with it");
}

#[tokio::test]
async fn whoever_makes_up_devices_keeps_few_replacements_busy() {
    let world = World::new(Contact::new(1)).await;
    let begun = |contact: &str, devices: std::ops::Range<u32>| {
        let chat = ChatKey { contact: RemoteUserId::new(contact), ..chat() };
        let broken = devices.filter_map(DeviceId::new).map(|id| (chat.clone(), id, Namespace::V2));
        broken.filter(|broken| world.core.may_heal(broken)).count()
    };
    assert_eq!(begun("mallory@evil.example", 1..1000), 4);
    let others = (0..1000).map(|number| begun(&format!("m{number}@evil.example"), 1..10));
    assert_eq!(others.sum::<usize>(), 60, "64 with hers");
    assert_eq!(begun("bob@example.org", 1..2), 1, "nobody else waits for them");
    assert_eq!(begun("bob@example.org", 1..2), 0, "it is under way");
}

async fn bob_is_not_understood(world: &mut World, id: &str) {
    let lost = world.bob_says(id, "lost", Namespace::V2).await;
    world.deliver(&lost).await;
    assert!(matches!(world.next_event().await, RemoteEventKind::Undecryptable { .. }));
    world.settle().await;
}

#[tokio::test]
async fn telling_a_client_of_our_device_leaves_its_broken_session_to_be_replaced() {
    let mut world = World::new(Contact::new(1)).await;
    world.alice_says("m1", "one", PlaintextPolicy::Refuse).await.unwrap();
    let (device, bundle) = world.fetch_alice(Namespace::V2).await;
    let another = DeviceId::new(device.value() ^ 1).unwrap();
    let for_another = world.bob.encrypt(another, Some(bundle), "not for us", Namespace::V2);
    let stanza = World::message("bob@example.org/phone", "b1", vec![for_another]);
    world.deliver(&stanza).await;
    loop {
        match world.next_event().await {
            RemoteEventKind::Undecryptable { reason } => {
                assert!(reason.contains("did not encrypt it for you"), "{reason}");
                break;
            }
            event => assert!(matches!(event, RemoteEventKind::Accepted { .. })),
        }
    }
    let mut tx = world.db.read().await.unwrap();
    let remedy = Remedy::NewSession(Namespace::V2);
    let device = world.bob.device();
    assert!(tx.xmpp_omemo().is_remedy_due(&chat(), device, remedy, 0).await.unwrap());
    assert!(
        !tx.xmpp_omemo().is_remedy_due(&chat(), device, Remedy::Announcement, 0).await.unwrap()
    );
}
