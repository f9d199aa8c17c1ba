//! Opening what people write: what is asked for first, whose identity counts, what was there before.

use super::{
    two_bridges::{World, alice},
    *,
};

#[tokio::test]
async fn what_has_not_come_yet_is_fetched_before_an_event_is_judged() {
    let world = World::start().await;
    let event = world.alice_writes("$1").await;
    world.homeserver.take_queries(alice());
    let opened = world.ghosts.read(&event).await.unwrap();
    assert_eq!(opened.sender_trust, SenderTrust::Pinned, "room key and sender were unknown");
    assert_eq!(opened.identity, Some(world.master_key()));
    assert_eq!(world.homeserver.take_queries(alice()), 1);
    let event = world.alice_writes("$2").await;
    world.homeserver.state().requests.clear();
    world.ghosts.read(&event).await.unwrap();
    assert!(world.homeserver.state().requests.is_empty(), "all of it is known");
}

#[tokio::test]
async fn a_signature_that_came_late_is_asked_for_though_nobody_says_that_it_has_come() {
    let world = World::start().await;
    world.homeserver.state().unsigned.insert(alice().to_string());
    let event = world.alice_writes("$1").await;
    let before = world.ghosts.read(&event).await.unwrap();
    assert_eq!(before.sender_trust, SenderTrust::UnsignedDevice);
    assert_eq!(before.identity, None);
    world.homeserver.take_queries(alice());
    world.ghosts.read(&event).await.unwrap();
    assert_eq!(world.homeserver.take_queries(alice()), 1, "once each time");
    world.homeserver.state().unsigned.clear();
    let after = world.ghosts.read(&event).await.unwrap();
    assert_eq!(after.sender_trust, SenderTrust::Pinned);
}

#[tokio::test]
async fn a_new_identity_behind_an_event_waits_for_approval() {
    let mut world = World::start().await;
    let event = world.alice_writes("$1").await;
    world.ghosts.read(&event).await.unwrap();
    let first = world.master_key();
    world.reset_alice().await;
    let event = world.alice_writes("$2").await;
    for _ in 0..2 {
        let opened = world.ghosts.read(&event).await.unwrap();
        assert_eq!(opened.sender_trust, SenderTrust::Changed);
        assert_eq!(opened.identity, Some(world.master_key()));
        assert!(opened.new_identity_waits);
    }
    let pin = world.ghosts.pin(alice()).await;
    assert!(pin.master_key == first && pin.presented() == world.master_key());
    let approved = world.ghosts.devices.approve(alice(), &world.master_key(), &first).await;
    assert!(approved.unwrap());
    let opened = world.ghosts.read(&event).await.unwrap();
    assert_eq!(opened.sender_trust, SenderTrust::Pinned);
    assert!(!opened.new_identity_waits);
}

#[tokio::test]
async fn a_place_in_a_megolm_session_belongs_to_one_event() {
    let world = World::start().await;
    let written = world.people.write(alice(), &[&ghost(1)]).await.unwrap();
    world.ghosts.read(&written.event(alice(), "$1")).await.unwrap();
    world.ghosts.read(&written.event(alice(), "$1")).await.unwrap();
    let replayed = world.ghosts.read(&written.event(alice(), "$2")).await;
    assert_matches!(replayed.map(drop), Err(DecryptError::Replayed));
}
