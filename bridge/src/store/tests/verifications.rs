//! Verifications under way, on both databases.

use assert_matches::assert_matches;
use ruma::{device_id, owned_room_id, user_id};

use crate::{
    network::RemoteUserId,
    store::{
        StoreError, StoredVerification, VerificationStage,
        testing::{TestDatabase, on_both_databases},
    },
};

on_both_databases!(a_verification_goes_on_step_by_step_and_is_forgotten,);

async fn a_verification_goes_on_step_by_step_and_is_forgotten(location: TestDatabase) {
    let db = location.open().await;
    let mut tx = db.begin().await.unwrap();
    let bob = RemoteUserId::new("bob@example.net");
    let first = StoredVerification {
        ghost: user_id!("@xmpp_bob=40example.net:example.org").to_owned(),
        user_id: user_id!("@alice:example.org").to_owned(),
        flow: "$request".to_owned(),
        contact: bob.clone(),
        portal_room: owned_room_id!("!portal:example.org"),
        flow_room: Some(owned_room_id!("!portal:example.org")),
        device_id: None,
        stage: VerificationStage::AskedByUser,
        shown: None,
    };
    let second = StoredVerification {
        flow: "transaction".to_owned(),
        flow_room: None,
        device_id: Some(device_id!("PHONE").to_owned()),
        ..first.clone()
    };
    for row in [&first, &second] {
        tx.verifications().insert(row).await.unwrap();
    }
    let numbers = [1234, 5678, 9000];
    tx.verifications().set_shown(&first, numbers).await.unwrap();
    let stage = VerificationStage::Shown;
    let shown = StoredVerification { stage, shown: Some(numbers), ..first.clone() };
    assert!(tx.verifications().load_by_contact(&bob).await.unwrap() == [shown, second.clone()]);
    let ghosts = tx.verifications().load_ghosts().await.unwrap();
    assert_eq!(ghosts.as_slice(), std::slice::from_ref(&first.ghost));

    for was_known in [true, false] {
        assert_eq!(tx.verifications().delete(&first).await.unwrap(), was_known);
    }
    let left = tx.verifications().load_by_ghost(&first.ghost).await.unwrap();
    assert!(left.as_slice() == std::slice::from_ref(&second));
    let gone = tx.verifications().set_stage(&first, VerificationStage::Confirmed).await;
    assert_matches!(gone, Err(StoreError::NoSuchRow { .. }));
    let twice = tx.verifications().insert(&second).await;
    assert_matches!(twice, Err(StoreError::AlreadyExists { .. }));
}
