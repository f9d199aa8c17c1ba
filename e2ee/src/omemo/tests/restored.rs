//! A state that is an older copy, as a database is that was restored from a backup.

use std::collections::BTreeMap;

use assert_matches::assert_matches;

use super::people::{Person, acquainted, alice, bob};
use crate::omemo::{
    DecryptError, EncryptedElement, Namespace,
    encrypted::KeyKind,
    wire::{
        encode_key,
        ratchet_message::{decode_key_exchange, decode_ratchet_message},
    },
};

/// Which message key each message for one person was under: no two may share one.
#[derive(Default)]
struct KeysUsed(BTreeMap<(Vec<u8>, u32), Vec<u8>>);

impl KeysUsed {
    fn note(&mut self, element: &EncryptedElement, receiver: &Person) {
        let key = element.find_key(receiver.jid, receiver.device()).unwrap();
        let namespace = element.namespace();
        let bytes = match key.kind {
            KeyKind::Ratchet => key.data.clone(),
            KeyKind::KeyExchange => decode_key_exchange(namespace, &key.data).unwrap().message,
        };
        let header = decode_ratchet_message(namespace, &bytes).unwrap().header;
        let before =
            self.0.insert((encode_key(namespace, &header.ratchet_key), header.number), bytes);
        assert_eq!(before, None, "a message key was used twice");
    }
}

/// Says something and notes the key.
fn say(
    speaker: &mut Person,
    to: &Person,
    namespace: Namespace,
    words: &str,
    used: &mut KeysUsed,
) -> EncryptedElement {
    let element = speaker.say(to, namespace, words);
    used.note(&element, to);
    element
}

#[test]
fn no_message_key_is_used_twice() {
    for namespace in Namespace::ALL {
        let mut used = KeysUsed::default();
        let (mut alice, mut bob) = acquainted(namespace);
        let backup = alice.clone();
        for number in 0..20 {
            let said = say(&mut alice, &bob, namespace, &format!("{number}"), &mut used);
            bob.hear(&alice, &said);
        }
        let mut alice = backup;
        alice.is_restored();
        for number in 20..25 {
            let said = say(&mut alice, &bob, namespace, &format!("{number}"), &mut used);
            assert_eq!(bob.hear(&alice, &said), format!("{number}"));
        }
        let answer = bob.say(&alice, namespace, "welcome back");
        assert_eq!(alice.hear(&bob, &answer), "welcome back");
        let said = say(&mut alice, &bob, namespace, "thanks", &mut used);
        assert_eq!(bob.hear(&alice, &said), "thanks");
    }
}

#[test]
fn the_same_random_numbers_do_not_make_the_same_keys() {
    // A generator whose state went back too would repeat them: a session must not depend on it.
    for namespace in Namespace::ALL {
        let mut used = KeysUsed::default();
        let (mut alice, mut bob) = acquainted(namespace);
        let heard = bob.say(&alice, namespace, "a chain that waits for an answer");
        alice.hear(&bob, &heard);
        let backup = alice.clone();
        let rng = alice.rng.clone();
        say(&mut alice, &bob, namespace, "first in a new chain", &mut used);
        let mut alice = backup;
        alice.is_restored();
        alice.rng = rng;
        say(&mut alice, &bob, namespace, "first in another", &mut used);
    }
}

#[test]
fn what_comes_in_an_old_chain_is_read_and_does_not_make_the_session_send() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        let under_way = bob.say(&alice, namespace, "under way");
        alice.is_restored();
        assert_eq!(alice.hear(&bob, &under_way), "under way");
        let sessions = alice.sessions_with(bob.jid, bob.device(), namespace).unwrap();
        assert_eq!(sessions.identity(), None, "it would encrypt with used keys");
        assert_matches!(alice.receive(&bob, &under_way), Err(DecryptError::Replayed));
    }
}

#[test]
fn an_answer_to_the_restored_state_makes_the_session_send_again() {
    for namespace in Namespace::ALL {
        let mut used = KeysUsed::default();
        let (mut alice, mut bob) = acquainted(namespace);
        let question = say(&mut alice, &bob, namespace, "question", &mut used);
        bob.hear(&alice, &question);
        let backup = alice.clone();
        say(&mut alice, &bob, namespace, "lost with the disk", &mut used);
        let mut alice = backup;
        alice.is_restored();

        let answer = bob.say(&alice, namespace, "answer");
        assert_eq!(alice.hear(&bob, &answer), "answer");
        let sessions = alice.sessions_with(bob.jid, bob.device(), namespace).unwrap();
        assert_eq!(sessions.identity(), Some(bob.account().identity_key()));
        let said = say(&mut alice, &bob, namespace, "in the old session", &mut used);
        assert_eq!(bob.hear(&alice, &said), "in the old session");
    }
}

#[test]
fn prekeys_of_the_older_state_start_nothing() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let under_way = alice.say(&bob, namespace, "to a prekey that may have been used");
        let before = bob.bundle(namespace);
        bob.is_restored();
        let after = bob.bundle(namespace);
        assert_eq!(after.identity(), before.identity());
        assert_ne!(after.signed_prekey().key, before.signed_prekey().key);
        assert_matches!(
            bob.receive(&alice, &under_way),
            Err(DecryptError::UnknownPrekey | DecryptError::Authentication)
        );
        let again = Person::new("carol@example.org", 3).say(&bob, namespace, "to a new one");
        let carol = Person::new("carol@example.org", 3);
        assert_eq!(bob.hear(&carol, &again), "to a new one");
    }
}
