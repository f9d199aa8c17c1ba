//! What two people notice.

use assert_matches::assert_matches;

use super::people::{Person, acquainted, alice, bob, text, words};
use crate::omemo::{
    Answer, DecryptError, DeviceError, DeviceFailure, EncryptError, Machine, Namespace, Payload,
    Plaintext, SessionList,
    encrypted::{EncryptedElement, KeyKind},
    limits::{MAX_PAYLOAD_BYTES, PREKEYS},
    wire::ratchet_message::decode_ratchet_message,
};

fn kind(element: &EncryptedElement) -> KeyKind {
    element.keys[0].kind
}

#[test]
fn they_talk_in_both_namespaces() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        for round in 0..20 {
            let hello = alice.say(&bob, namespace, &format!("hello {round} 🙂"));
            assert_eq!(bob.hear(&alice, &hello), format!("hello {round} 🙂"));
            let answer = bob.say(&alice, namespace, &format!("answer {round}"));
            assert_eq!(alice.hear(&bob, &answer), format!("answer {round}"));
        }
        assert_eq!(
            alice.pin_of(bob.jid, bob.device()),
            Some(bob.account().identity_key()),
            "first use is a pin"
        );
        assert_eq!(bob.pin_of(alice.jid, alice.device()), Some(alice.account().identity_key()));
    }
}

#[test]
fn both_namespaces_at_once_do_not_disturb_each_other() {
    let (mut alice, mut bob) = (alice(), bob());
    for round in 0..6 {
        for namespace in Namespace::ALL {
            let message = alice.say(&bob, namespace, &format!("{round}"));
            assert_eq!(bob.hear(&alice, &message), format!("{round}"));
        }
        let answer = bob.say(&alice, Namespace::V2, "yes");
        assert_eq!(alice.hear(&bob, &answer), "yes");
    }
}

#[test]
fn the_key_exchange_repeats_until_an_answer_and_uses_one_prekey() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let first = alice.say(&bob, namespace, "one");
        let second = alice.say(&bob, namespace, "two");
        assert_eq!((kind(&first), kind(&second)), (KeyKind::KeyExchange, KeyKind::KeyExchange));

        // The second comes first.
        let decrypted = bob.receive(&alice, &second).unwrap();
        assert_eq!(decrypted.answer, Answer::Due);
        let account = decrypted.changes.account.expect("the bundle has changed");
        assert_eq!(account.prekeys(namespace).one_time().len(), PREKEYS - 1);
        let decrypted = bob.receive(&alice, &first).unwrap();
        assert!(decrypted.changes.account.is_none(), "no second prekey is used");

        let empty = bob.send(&alice, &Payload::Empty(namespace));
        assert_eq!(kind(&empty), KeyKind::Ratchet);
        let decrypted = alice.receive(&bob, &empty).unwrap();
        assert_eq!(decrypted.plaintext, None);
        assert_eq!(decrypted.answer, Answer::NotDue);

        let third = alice.say(&bob, namespace, "three");
        assert_eq!(kind(&third), KeyKind::Ratchet);
        assert_eq!(bob.receive(&alice, &third).unwrap().answer, Answer::NotDue);
    }
}

#[test]
fn an_empty_message_may_start_a_session() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let empty = alice.send(&bob, &Payload::Empty(namespace));
        assert!(!empty.has_payload());
        assert_eq!(bob.receive(&alice, &empty).unwrap().plaintext, None);
        let hello = bob.say(&alice, namespace, "hello");
        assert_eq!(kind(&hello), KeyKind::Ratchet);
        assert_eq!(alice.hear(&bob, &hello), "hello");
    }
}

#[test]
fn a_lost_start_does_not_matter() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        for _ in 0..5 {
            alice.say(&bob, namespace, "lost");
        }
        let message = alice.say(&bob, namespace, "arrives");
        assert_eq!(bob.hear(&alice, &message), "arrives");
    }
}

#[test]
fn a_long_monologue_asks_for_a_heartbeat() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let hello = alice.say(&bob, namespace, "hello");
        bob.receive(&alice, &hello).unwrap();
        let answer = bob.say(&alice, namespace, "go on");
        alice.receive(&bob, &answer).unwrap();

        let mut due = Vec::new();
        for number in 0..60 {
            let message = alice.say(&bob, namespace, "and another thing");
            if bob.receive(&alice, &message).unwrap().answer == Answer::Due {
                due.push(number);
                let heartbeat = bob.send(&alice, &Payload::Empty(namespace));
                alice.receive(&bob, &heartbeat).unwrap();
            }
        }
        assert_eq!(due, [52], "one heartbeat for sixty messages, with the 53rd");
    }
}

#[test]
fn a_monologue_of_which_most_was_lost_asks_for_one_too() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        let monologue: Vec<_> =
            (0..56).map(|_| alice.say(&bob, namespace, "are you there?")).collect();
        let mut answer_to = |number: usize| bob.receive(&alice, &monologue[number]).unwrap().answer;
        assert_eq!(answer_to(52), Answer::NotDue);
        assert_eq!(answer_to(53), Answer::Due);
        bob.send(&alice, &Payload::Empty(namespace));
        let mut answer_to = |number: usize| bob.receive(&alice, &monologue[number]).unwrap().answer;
        assert_eq!(answer_to(54), Answer::NotDue, "an answer is on its way");
        assert_eq!(answer_to(55), Answer::NotDue);
    }
}

/// What a message is authenticated with begins with its sender in legacy OMEMO, and with whoever started the session in
/// omemo:2: only in legacy does it matter which of them a side takes itself for.
#[test]
fn legacy_binds_who_sends_and_omemo_2_who_started() {
    for namespace in Namespace::ALL {
        let (alice, mut bob) = acquainted(namespace);
        let answer = bob.say(&alice, namespace, "answer");
        let entry = answer.find_key(alice.jid, alice.device()).unwrap();
        let message = decode_ratchet_message(namespace, &entry.data).unwrap();
        let sessions = alice.sessions_with(bob.jid, bob.device(), namespace).unwrap();
        let stored = String::from_utf8(sessions.to_bytes().unwrap().to_vec()).unwrap();
        let exchanged = stored.replace(r#""role":"initiator""#, r#""role":"responder""#);
        assert_ne!(exchanged, stored);
        let mut exchanged = SessionList::from_bytes(exchanged.as_bytes()).unwrap();
        assert_eq!(exchanged.decrypt(&message).is_ok(), namespace == Namespace::V2);
    }
}

#[test]
fn one_message_reaches_all_devices_and_names_those_it_cannot() {
    for namespace in Namespace::ALL {
        let mut alice = alice();
        let mut phone = Person::new("bob@example.org", 3);
        let mut laptop = Person::new("bob@example.org", 4);
        let broken = Person::new("bob@example.org", 5);
        let mut without_bundle = alice.recipient(&broken, namespace);
        without_bundle.bundle = None;
        let recipients = vec![
            alice.recipient(&phone, namespace),
            without_bundle,
            alice.recipient(&laptop, namespace),
            alice.recipient(&laptop, namespace),
        ];
        let encrypted =
            alice.try_encrypt("bob@example.org", recipients, &text(namespace, "all")).unwrap();
        assert_eq!(encrypted.failures.len(), 1);
        assert_eq!(encrypted.failures[0].device, broken.device());
        assert_eq!(encrypted.failures[0].error, DeviceError::NoBundle);
        assert_eq!(encrypted.changes.sessions.len(), 2, "a device listed twice counts once");
        let element = encrypted.element;
        for device in [&mut phone, &mut laptop] {
            assert_eq!(device.hear(&alice, &element), "all");
        }
        assert_eq!(broken.try_decrypt(alice.jid, &element).unwrap_err(), DecryptError::NotForUs);
    }
}

#[test]
fn nobody_to_encrypt_to_is_an_error() {
    let mut alice = alice();
    let payload = text(Namespace::V2, "hello");
    let nobody = alice.try_encrypt("bob@example.org", Vec::new(), &payload);
    assert_eq!(nobody.unwrap_err(), EncryptError::NoRecipient);
    let mut recipient = alice.recipient(&bob(), Namespace::V2);
    recipient.bundle = None;
    let unusable = alice.try_encrypt("bob@example.org", vec![recipient], &payload);
    assert_matches!(unusable, Err(EncryptError::NoUsableDevice { failures }) if failures.len() == 1);
}

#[test]
fn a_payload_that_is_too_large_is_refused_before_any_session_moves() {
    for namespace in Namespace::ALL {
        let (mut alice, bob) = (alice(), bob());
        let before = alice.stored();
        let recipient = alice.recipient(&bob, namespace);
        let payload = text(namespace, &"x".repeat(MAX_PAYLOAD_BYTES));
        let result = alice.try_encrypt(bob.jid, vec![recipient], &payload);
        assert_eq!(result.unwrap_err(), EncryptError::PayloadTooLarge);
        assert_eq!(before, alice.stored());
    }
}

#[test]
fn the_envelope_brings_its_time_and_all_elements() {
    let (mut alice, mut bob) = (alice(), bob());
    let reply = minidom::Element::builder("reply", "urn:xmpp:reply:0").build();
    let Payload::Content(mut content) = text(Namespace::V2, "hello") else { panic!() };
    content.push(reply.clone());
    let element = alice.send(&bob, &Payload::Content(content));
    let decrypted = bob.receive(&alice, &element).unwrap();
    assert_eq!(words(decrypted.plaintext.as_ref().unwrap()), "hello");
    let Some(Plaintext::Envelope(envelope)) = decrypted.plaintext else { panic!() };
    assert_eq!(envelope.sent_at, Some(super::people::now()));
    assert!(envelope.content.contains(&reply));
}

#[test]
fn nothing_secret_is_printed() {
    let (mut alice, mut bob) = (alice(), bob());
    let element = alice.say(&bob, Namespace::V2, "the word swordfish");
    let decrypted = bob.receive(&alice, &element).unwrap();
    let sessions = bob.sessions_with(alice.jid, alice.device(), Namespace::V2).unwrap();
    let account = bob.account();
    let machine = Machine::new(account, bob.jid);
    let failure = DeviceFailure {
        jid: bob.jid.to_owned(),
        device: bob.device(),
        error: DeviceError::NoBundle,
    };
    let shown =
        format!("{element:?} {decrypted:?} {sessions:?} {account:?} {machine:?} {failure:?}");
    let identity = alice.account().identity_key();
    let fingerprint = identity.fingerprint().replace(' ', "");
    for hidden in ["swordfish", "bob@", "alice%", fingerprint.as_str(), ", 1, ", "[1"] {
        assert!(!shown.contains(hidden), "{hidden:?} is shown");
    }
    for shown_name in ["Account(…)", "Machine(…)", "DeviceFailure(NoBundle)"] {
        assert!(shown.contains(shown_name), "{shown_name} is not in {shown}");
    }
}
