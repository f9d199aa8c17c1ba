//! Keys of messages that have not come: how many are kept.

use serde_json::Value;

use super::people::{Person, acquainted, alice, bob};
use crate::omemo::{
    DecryptError, Namespace,
    limits::{MAX_SESSIONS, MAX_SKIPPED_KEYS},
};

/// How many skipped keys each session of `owner` with the device of `other` has, the one that encrypts first.
fn kept(owner: &Person, other: &Person, namespace: Namespace) -> Vec<usize> {
    let sessions = owner.sessions_with(other.jid, other.device(), namespace).unwrap();
    let json: Value = serde_json::from_slice(&sessions.to_bytes().unwrap()[1..]).unwrap();
    let current = json.get("current").filter(|session| !session.is_null());
    let sessions = current.into_iter().chain(json["previous"].as_array().unwrap());
    let skipped = |chain: &Value| chain["skipped"].as_array().unwrap().len();
    let count = |session: &Value| -> usize {
        session["ratchet"]["receiving"].as_array().unwrap().iter().map(skipped).sum()
    };
    sessions.map(count).collect()
}

#[test]
fn skipped_keys_are_bounded_in_all() {
    let namespace = Namespace::V2;
    let (mut alice, mut bob) = acquainted(namespace);
    let early = alice.say(&bob, namespace, "early");
    for _ in 0..3 {
        for _ in 0..600 {
            alice.say(&bob, namespace, "lost");
        }
        let message = alice.say(&bob, namespace, "arrives");
        bob.hear(&alice, &message);
        let answer = bob.say(&alice, namespace, "answer");
        alice.hear(&bob, &answer);
    }
    assert_eq!(kept(&bob, &alice, namespace), [MAX_SKIPPED_KEYS]);
    assert_eq!(
        bob.receive(&alice, &early).unwrap_err(),
        DecryptError::Replayed,
        "its key was among the oldest"
    );
}

#[test]
fn skipped_keys_are_bounded_over_all_sessions_with_a_device() {
    const LOST: usize = MAX_SKIPPED_KEYS * 2 / 5;
    let namespace = Namespace::V2;
    let (alice, mut bob) = (alice(), bob());
    let (mut oldest, mut newest) = (Vec::new(), Vec::new());
    for seed in 0..MAX_SESSIONS as u64 {
        // Her device has lost its sessions and starts anew.
        let mut restarted = Person::new(alice.jid, 60 + seed);
        restarted.replace_account(alice.account());
        let mut lost: Vec<_> = (0..LOST).map(|_| restarted.say(&bob, namespace, "late")).collect();
        let message = restarted.say(&bob, namespace, "arrives");
        bob.hear(&restarted, &message);
        newest.extend(lost.pop());
        oldest.push(lost.swap_remove(0));
    }
    assert_eq!(kept(&bob, &alice, namespace), [LOST, LOST, LOST / 2, 0, 0]);

    // What is kept are the newest keys of the newest sessions.
    let opens = |result: Result<_, DecryptError>| match result {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, DecryptError::Replayed);
            false
        }
    };
    let late = newest.iter().chain(&oldest).map(|message| bob.try_decrypt(alice.jid, message));
    let opened: Vec<_> = late.map(opens).collect();
    assert_eq!(opened[..MAX_SESSIONS], [false, false, true, true, true]);
    assert_eq!(opened[MAX_SESSIONS..], [false, false, false, true, true]);

    // A session that is used again comes first.
    bob.hear(&alice, &newest[2]);
    assert_eq!(kept(&bob, &alice, namespace), [LOST / 2 - 1, LOST, LOST, 0, 0]);
}

#[test]
fn a_session_that_only_receives_keeps_its_keys_when_it_is_used() {
    let namespace = Namespace::V2;
    let (mut alice, mut bob) = acquainted(namespace);
    let message = alice.say(&bob, namespace, "what follows in this chain answers nothing");
    bob.hear(&alice, &message);
    // Another start of her device, with many messages that have not come.
    let mut restarted = Person::new(alice.jid, 60);
    restarted.replace_account(alice.account());
    for _ in 0..MAX_SKIPPED_KEYS {
        restarted.say(&bob, namespace, "late");
    }
    let message = restarted.say(&bob, namespace, "arrives");
    bob.hear(&restarted, &message);
    assert_eq!(kept(&bob, &alice, namespace), [MAX_SKIPPED_KEYS, 0]);

    bob.is_restored();
    let late = alice.say(&bob, namespace, "late too");
    let message = alice.say(&bob, namespace, "in the older session");
    bob.hear(&alice, &message);
    assert_eq!(kept(&bob, &alice, namespace), [MAX_SKIPPED_KEYS - 1, 1]);
    assert_eq!(bob.hear(&alice, &late), "late too");
}
