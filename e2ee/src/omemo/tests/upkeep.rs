//! Prekeys over time.

use std::time::Duration;

use super::people::{alice, bob, now, rng};
use crate::omemo::{
    DecryptError, KeptPrekeys, Machine, Namespace, Sender,
    limits::{PREKEY_REFILL, PREKEYS, SIGNED_PREKEY_AHEAD, SIGNED_PREKEY_PERIOD},
};

const MOMENT: Duration = Duration::from_secs(1);

#[test]
fn a_fresh_account_needs_nothing() {
    let mut account = bob().account().clone();
    assert!(!account.maintain(now(), &mut rng(1)));
    assert!(!account.maintain(now() + SIGNED_PREKEY_PERIOD - MOMENT, &mut rng(1)));
}

#[test]
fn the_signed_prekey_rotates_weekly_and_the_old_one_lives_one_more_week() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let mut eve = super::people::Person::new("eve@example.org", 6);
        let one_week_old = alice.say(&bob, namespace, "one week old");
        let two_weeks_old = eve.say(&bob, namespace, "two weeks old");

        let mut account = bob.account().clone();
        let before = account.bundle(namespace);
        assert!(account.maintain(now() + SIGNED_PREKEY_PERIOD, &mut bob.rng));
        assert_ne!(account.bundle(namespace).signed_prekey(), before.signed_prekey());
        bob.replace_account(&account);
        assert_eq!(bob.hear(&alice, &one_week_old), "one week old");

        assert!(account.maintain(now() + 2 * SIGNED_PREKEY_PERIOD, &mut bob.rng));
        bob.replace_account(&account);
        assert_eq!(bob.receive(&eve, &two_weeks_old).unwrap_err(), DecryptError::UnknownPrekey);
    }
}

#[test]
fn a_clock_that_was_ahead_does_not_keep_the_signed_prekey_until_its_time_comes() {
    for ahead in [SIGNED_PREKEY_AHEAD + MOMENT, 520 * SIGNED_PREKEY_PERIOD] {
        let mut account = bob().account().clone();
        let rng = &mut rng(1);
        assert!(account.maintain(now() + SIGNED_PREKEY_PERIOD + ahead, rng));

        let now = now() + SIGNED_PREKEY_PERIOD;
        let made = account.bundle(Namespace::V2);
        assert!(account.maintain(now, rng), "it is dated anew");
        let right = account.bundle(Namespace::V2);
        assert_eq!(
            right.signed_prekey(),
            made.signed_prekey(),
            "a clock that is behind replaces nothing"
        );
        assert!(!account.maintain(now, rng), "once");
        assert!(!account.maintain(now + SIGNED_PREKEY_PERIOD - MOMENT, rng));
        assert!(account.maintain(now + SIGNED_PREKEY_PERIOD, rng));
        assert_ne!(account.bundle(Namespace::V2).signed_prekey(), right.signed_prekey());
    }
}

#[test]
fn a_clock_that_is_set_right_by_a_day_at_most_rotates_nothing() {
    let mut account = bob().account().clone();
    let then = now() + SIGNED_PREKEY_PERIOD;
    assert!(account.maintain(then, &mut rng(1)));
    assert!(!account.maintain(then - SIGNED_PREKEY_AHEAD, &mut rng(1)));
}

#[test]
fn a_message_that_waits_is_read_with_the_prekeys_that_were_kept_with_it() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let first = alice.say(&bob, namespace, "it has waited");
        let second = alice.say(&bob, namespace, "so has this");
        let machine = Machine::new(bob.account(), bob.jid);
        assert_eq!(machine.named_identity(&first), Some(alice.account().identity_key()));
        let kept = machine.keep_prekeys(&first).unwrap();
        let kept = KeptPrekeys::from_bytes(&kept.to_bytes().unwrap()).unwrap();

        // Two weeks later nothing of them is left.
        let mut account = bob.account().clone();
        for weeks in [1, 2] {
            assert!(account.maintain(now() + weeks * SIGNED_PREKEY_PERIOD, &mut bob.rng));
        }
        for id in account.prekeys(namespace).one_time().clone().into_keys() {
            account = account.without_prekey(namespace, id);
        }
        account.maintain(now(), &mut bob.rng);
        bob.replace_account(&account);
        assert_eq!(bob.try_decrypt(alice.jid, &first).unwrap_err(), DecryptError::UnknownPrekey);
        assert!(Machine::new(bob.account(), bob.jid).keep_prekeys(&first).is_none());

        let with = account.with_prekeys(kept.clone());
        assert_eq!(*with.to_bytes().unwrap(), *account.to_bytes().unwrap(), "they are not stored");
        assert!(Machine::new(&with, bob.jid).keep_prekeys(&first).is_some(), "it may wait again");
        let sender = || Sender { jid: alice.jid.to_owned(), sessions: None, pinned: None };
        let opened = Machine::new(&with, bob.jid).decrypt(sender(), &first).unwrap();
        let after = opened.changes.account.clone().unwrap();
        assert_eq!(*after.to_bytes().unwrap(), *account.to_bytes().unwrap());
        let again = Machine::new(&after, bob.jid).decrypt(sender(), &second).unwrap_err();
        assert_eq!(again, DecryptError::UnknownPrekey, "what was lent is given back");
        bob.save(opened.changes);
        assert_eq!(bob.hear(&alice, &second), "so has this", "the session goes on");

        let answer = bob.say(&alice, namespace, "answer");
        alice.hear(&bob, &answer);
        let third = alice.say(&bob, namespace, "this starts no session");
        assert!(Machine::new(&with, bob.jid).keep_prekeys(&third).is_none());
        assert_eq!(Machine::new(&with, bob.jid).named_identity(&third), None);
    }
}

#[test]
fn prekeys_are_refilled_below_the_limit_and_ids_are_not_used_again() {
    let namespace = Namespace::Legacy;
    let mut account = bob().account().clone();
    let mut used = Vec::new();
    while account.prekeys(namespace).one_time().len() > PREKEY_REFILL {
        let id = *account.prekeys(namespace).one_time().keys().next().unwrap();
        used.push(id);
        account = account.without_prekey(namespace, id);
        assert!(!account.maintain(now(), &mut rng(1)), "not yet");
    }
    let id = *account.prekeys(namespace).one_time().keys().next().unwrap();
    account = account.without_prekey(namespace, id);
    assert!(account.maintain(now(), &mut rng(1)));
    let prekeys = account.prekeys(namespace).one_time();
    assert_eq!(prekeys.len(), PREKEYS);
    assert!(used.iter().all(|id| !prekeys.contains_key(id)));
    assert_eq!(account.prekeys(Namespace::V2).one_time().len(), PREKEYS);
}
