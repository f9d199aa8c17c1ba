//! What follows from a comparison of emoji, and what ends one.

use ruma::owned_user_id;

use super::{
    contact_trust::{KEY, NEW_KEY, decision},
    *,
};
use crate::{
    portal::verification::{Verifier, is_storable},
    store::{KeyEvent, StoredVerification, VerificationStage},
};

impl World {
    /// Bob has compared with Alice, and has said that it is the same.
    async fn bob_has_confirmed(&self) -> StoredVerification {
        let row = StoredVerification {
            ghost: owned_user_id!("@any_bob=40example.net:example.org"),
            user_id: alice().to_owned(),
            flow: "$request".to_owned(),
            contact: chat().contact,
            portal_room: room(),
            flow_room: Some(room()),
            device_id: None,
            stage: VerificationStage::Confirmed,
            shown: Some([1, 2, 3]),
        };
        let mut tx = self.db.begin().await.unwrap();
        tx.verifications().insert(&row).await.unwrap();
        tx.commit().await.unwrap();
        row
    }

    /// Both have compared, and it was the same. No homeserver is there to be told.
    async fn compared(&self, row: &StoredVerification, key: &str) {
        assert_matches!(self.hub.verified(row, key).await, Err(StepError::Device(_)));
    }

    async fn pinned(&self) -> String {
        let mut tx = self.db.read().await.unwrap();
        tx.pins().find(alice()).await.unwrap().unwrap().master_key
    }

    async fn comparisons(&self) -> usize {
        let mut tx = self.db.read().await.unwrap();
        tx.verifications().load_by_contact(&chat().contact).await.unwrap().len()
    }
}

#[tokio::test]
async fn before_emoji_approve_a_new_identity_all_contacts_are_told_of_it() {
    for is_verified in [true, false] {
        let world = World::with_identity().await;
        let carol = RemoteUserId::new("carol@example.net");
        world.make_portal_with(&carol, owned_room_id!("!carol:example.org")).await;
        if is_verified {
            world.bob_tells(&format!("trust {KEY}")).await;
        }
        world.alice_presents(NEW_KEY).await;
        let row = world.bob_has_confirmed().await;
        world.compared(&row, NEW_KEY).await;
        assert_eq!(world.pinned().await, NEW_KEY);

        let told = world.remote.told_under.lock().unwrap().clone();
        let changed: Vec<_> =
            told.iter().filter(|(text, _)| text.contains("has changed")).collect();
        assert_eq!(changed.len(), 2, "Bob and Carol: {told:?}");
        for (text, pinned) in changed {
            assert_eq!(pinned.as_deref(), Some(KEY), "told too late: {text}");
        }
        let to_bob =
            world.told_bob().into_iter().filter(|text| text.contains("which you have verified"));
        let said = world.said().await;
        let to_alice =
            said.iter().filter(|text| text.contains("your contact had verified, has changed"));
        let times = usize::from(is_verified);
        assert_eq!((to_alice.count(), to_bob.count()), (times, times), "{said:?}");
        assert!(said.iter().any(|text| text.starts_with("Verified: ")), "{said:?}");
        assert_eq!(world.decided().await.pop(), Some(decision(KeyEvent::Verified, NEW_KEY)));
    }
}

#[tokio::test]
async fn emoji_approve_no_other_identity_than_the_one_compared() {
    let world = World::with_identity().await;
    world.alice_presents(NEW_KEY).await;
    let row = world.bob_has_confirmed().await;
    world.compared(&row, KEY).await;
    assert_eq!(world.pinned().await, KEY);
    assert!(world.told_bob().iter().all(|text| !text.contains("has changed")));
}

#[tokio::test]
async fn the_first_identity_that_is_known_of_a_person_may_be_one_that_was_compared() {
    let world = World::new().await;
    world.bob_tells("distrust").await;
    let row = world.bob_has_confirmed().await;
    world.compared(&row, KEY).await;
    assert_eq!(world.pinned().await, KEY);
    assert!(!world.hub.is_distrusted(&world.portal().await).await.unwrap());
}

#[tokio::test]
async fn distrust_ends_a_comparison_that_the_contact_has_confirmed_before() {
    let world = World::with_identity().await;
    let row = world.bob_has_confirmed().await;
    world.bob_tells("distrust").await;
    assert_eq!(world.comparisons().await, 0);
    // It was on its way to its end already.
    world.compared(&row, KEY).await;
    assert!(world.hub.is_distrusted(&world.portal().await).await.unwrap());
    assert_eq!(world.decided().await, [decision(KeyEvent::Distrusted, KEY)]);
    let told = [world.said().await, world.told_bob()].concat();
    assert!(told.iter().all(|text| !text.starts_with("Verified")), "{told:?}");
}

#[tokio::test]
async fn distrust_waits_for_no_comparison() {
    let world = World::with_identity().await;
    let portal = world.portal().await;
    // Something of a comparison waits for a slow server.
    let distrust = world.hub.verifying.alone(&portal.ghost, world.bob_tells("distrust"));
    let told = tokio::time::timeout(Duration::from_secs(20), distrust).await.expect("in time");
    assert!(told[0].starts_with("You have distrusted"), "{told:?}");
    assert!(world.hub.is_distrusted(&portal).await.unwrap());
}

#[tokio::test]
async fn a_lost_comparison_whose_end_cannot_be_told_is_looked_at_again() {
    let world = World::with_identity().await;
    let row = world.bob_has_confirmed().await;
    // No homeserver is there to be told.
    let drained = Drain::drain(&*world.hub, &Verifier(row.ghost)).await;
    assert_eq!((drained, world.comparisons().await), (Drained::Failed, 1));
}

#[tokio::test]
async fn a_comparison_that_was_announced_and_cannot_begin_is_called_off() {
    let world = World::with_identity().await;
    // No homeserver is there to carry it.
    world.command(IdentityTrust::Pinned, "verify").await;
    let told = world.told_bob();
    let [announced, called_off] = told.as_slice() else { panic!("told {told:?}") };
    assert!(announced.contains("wants to compare encryption keys"), "{announced}");
    assert!(called_off.ends_with("could not begin."), "{called_off}");
}

#[test]
fn a_name_of_a_comparison_that_no_database_takes_is_known() {
    let longest = "x".repeat(255);
    for (name, is_taken) in [("$request", true), (&longest, true), ("a\0", false)] {
        assert_eq!(is_storable(name), is_taken, "{name:?}");
    }
    assert!(!is_storable(&format!("{longest}x")));
}
