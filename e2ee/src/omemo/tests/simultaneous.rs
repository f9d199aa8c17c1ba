//! Both start at once, or one starts again.

use super::people::{Person, alice, bob};
use crate::omemo::{Answer, DecryptError, Namespace, Payload, encrypted::KeyKind};

#[test]
fn both_start_at_once_and_settle_on_one_session() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let from_alice = alice.say(&bob, namespace, "from alice");
        let from_bob = bob.say(&alice, namespace, "from bob");
        assert_eq!(bob.hear(&alice, &from_alice), "from alice");
        assert_eq!(alice.hear(&bob, &from_bob), "from bob");

        // Answers cross as well.
        let from_alice = alice.send(&bob, &Payload::Empty(namespace));
        let from_bob = bob.send(&alice, &Payload::Empty(namespace));
        assert!(bob.receive(&alice, &from_alice).is_ok());
        assert!(alice.receive(&bob, &from_bob).is_ok());

        for round in 0..10 {
            let message = alice.say(&bob, namespace, &format!("{round}"));
            assert_eq!(message.keys[0].kind, KeyKind::Ratchet);
            assert_eq!(bob.hear(&alice, &message), format!("{round}"));
            let message = bob.say(&alice, namespace, &format!("{round}"));
            assert_eq!(message.keys[0].kind, KeyKind::Ratchet);
            assert_eq!(alice.hear(&bob, &message), format!("{round}"));
        }
    }
}

#[test]
fn messages_keep_crossing_and_none_is_lost() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        for round in 0..30 {
            let from_alice = alice.say(&bob, namespace, &format!("a{round}"));
            let from_bob = bob.say(&alice, namespace, &format!("b{round}"));
            assert_eq!(bob.hear(&alice, &from_alice), format!("a{round}"));
            assert_eq!(alice.hear(&bob, &from_bob), format!("b{round}"));
        }
    }
}

/// Bob's client has kept its identity and lost its sessions.
fn bob_forgets(bob: &Person) -> Person {
    let mut again = Person::new(bob.jid, 99);
    again.replace_account(bob.account());
    again
}

#[test]
fn a_device_that_lost_its_sessions_starts_again() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let message = alice.say(&bob, namespace, "one");
        bob.receive(&alice, &message).unwrap();
        let message = bob.say(&alice, namespace, "two");
        alice.receive(&bob, &message).unwrap();

        let mut bob = bob_forgets(&bob);
        let lost = alice.say(&bob, namespace, "lost");
        assert_eq!(bob.receive(&alice, &lost).unwrap_err(), DecryptError::NoSession);

        // Bob starts anew with an empty message, and Alice takes his session.
        let empty = bob.send(&alice, &Payload::Empty(namespace));
        assert_eq!(alice.receive(&bob, &empty).unwrap().answer, Answer::Due);
        let message = alice.say(&bob, namespace, "three");
        assert_eq!(bob.hear(&alice, &message), "three");
    }
}

#[test]
fn retiring_the_session_starts_a_new_one_and_still_reads_the_old() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let message = alice.say(&bob, namespace, "one");
        bob.receive(&alice, &message).unwrap();
        let message = bob.say(&alice, namespace, "two");
        alice.receive(&bob, &message).unwrap();
        let late = bob.say(&alice, namespace, "late");

        let mut recipient = alice.recipient(&bob, namespace);
        let sessions = recipient.sessions.as_mut().unwrap();
        sessions.retire_current();
        assert_eq!(sessions.identity(), None);
        recipient.bundle = Some(bob.bundle(namespace));
        let encrypted = alice
            .try_encrypt(bob.jid, vec![recipient], &super::people::text(namespace, "three"))
            .unwrap();
        alice.save(encrypted.changes);
        assert_eq!(encrypted.element.keys[0].kind, KeyKind::KeyExchange);
        assert_eq!(alice.hear(&bob, &late), "late");
        assert_eq!(bob.hear(&alice, &encrypted.element), "three");
    }
}

#[test]
fn old_sessions_are_bounded() {
    let namespace = Namespace::V2;
    let mut alice = alice();
    let bob = bob();
    for _ in 0..8 {
        let mut forgetful = bob_forgets(&bob);
        forgetful.rng = super::people::rng(rand_core::RngCore::next_u64(&mut alice.rng));
        let message = forgetful.say(&alice, namespace, "me again");
        alice.receive(&forgetful, &message).unwrap();
    }
    let sessions = alice.sessions_with(bob.jid, bob.device(), namespace).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&sessions.to_bytes().unwrap()[1..]).unwrap();
    assert_eq!(json["previous"].as_array().unwrap().len(), 4);
}
