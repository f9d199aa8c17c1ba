//! Prekeys over time.

use std::time::Duration;

use super::people::{alice, bob, now, rng};
use crate::omemo::{
    DecryptError, Namespace,
    limits::{PREKEY_REFILL, PREKEYS, SIGNED_PREKEY_PERIOD},
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

        let mut account = bob.account().clone();
        assert!(account.maintain(now() + 2 * SIGNED_PREKEY_PERIOD, &mut bob.rng));
        bob.replace_account(&account);
        assert_eq!(bob.receive(&eve, &two_weeks_old).unwrap_err(), DecryptError::UnknownPrekey);
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
