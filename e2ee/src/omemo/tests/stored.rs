//! The stored formats, and that older ones stay readable.

use super::people::{alice, bob};
use crate::omemo::{Account, Namespace, SessionList, StateError};

fn json(bytes: &[u8]) -> serde_json::Value {
    assert_eq!(bytes[0], 1, "version");
    serde_json::from_slice(&bytes[1..]).unwrap()
}

#[test]
fn the_account_format_is_fixed() {
    let bytes = bob().account().to_bytes().unwrap();
    let mut value = json(&bytes);
    for namespace in ["legacy", "v2"] {
        // Three of a hundred show the format.
        let prekeys = value[namespace]["one_time"].as_object_mut().unwrap();
        prekeys.retain(|id, _| ["1", "2", "100"].contains(&id.as_str()));
    }
    insta::assert_json_snapshot!(value);
}

#[test]
fn the_session_format_is_fixed() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let _lost = alice.say(&bob, namespace, "lost");
        let message = alice.say(&bob, namespace, "hello");
        bob.receive(&alice, &message).unwrap();
        let before_answer = bob.sessions_with(alice.jid, alice.device(), namespace).unwrap();
        bob.say(&alice, namespace, "answer");
        let after_answer = bob.sessions_with(alice.jid, alice.device(), namespace).unwrap();
        for (name, sessions) in [("unanswered", before_answer), ("answered", after_answer)] {
            let bytes = sessions.to_bytes().unwrap();
            insta::assert_json_snapshot!(format!("{name}_{namespace:?}"), json(&bytes));
        }
    }
}

#[test]
fn state_survives_a_round_trip_byte_for_byte() {
    let (mut alice, mut bob) = (alice(), bob());
    let message = alice.say(&bob, Namespace::V2, "hello");
    bob.receive(&alice, &message).unwrap();
    let account = bob.account().to_bytes().unwrap();
    assert_eq!(Account::from_bytes(&account).unwrap().to_bytes().unwrap(), account);
    let sessions = bob.sessions_with(alice.jid, alice.device(), Namespace::V2).unwrap();
    let bytes = sessions.to_bytes().unwrap();
    assert_eq!(SessionList::from_bytes(&bytes).unwrap().to_bytes().unwrap(), bytes);
}

#[test]
fn unknown_versions_and_damage_are_told_apart() {
    let bytes = bob().account().to_bytes().unwrap();
    let mut newer = bytes.to_vec();
    newer[0] = 2;
    assert!(matches!(Account::from_bytes(&newer), Err(StateError::Version(Some(2)))));
    assert!(matches!(Account::from_bytes(&[]), Err(StateError::Version(None))));
    assert!(matches!(Account::from_bytes(&bytes[..100]), Err(StateError::Damaged)));
    assert!(matches!(SessionList::from_bytes(b"\x01{}"), Err(StateError::Damaged)));
}

#[test]
fn damage_repeats_nothing_of_what_was_stored() {
    let Err(error) = Account::from_bytes(b"\x01{\"device_id\":\"c2VjcmV0\"}") else {
        panic!("no account");
    };
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let shown: Vec<String> = chain.map(|error| format!("{error} {error:?}")).collect();
    assert!(!shown.concat().contains("c2VjcmV0"), "{shown:?}");
}
