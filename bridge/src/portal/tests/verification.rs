//! What follows from a comparison of emoji, and what ends one.

use ruma::owned_user_id;

use super::{
    contact_trust::{KEY, decision},
    *,
};
use crate::store::{KeyEvent, StoredVerification, VerificationStage};

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
