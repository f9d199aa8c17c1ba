//! Whose device it is: pins, changed identities and our own.

use assert_matches::assert_matches;

use super::{
    people::{Person, acquainted, alice, bob, text},
    refusals::with_exchange,
};
use crate::omemo::{Account, DecryptError, DeviceError, EncryptError, Namespace, Recipient, wire};

#[test]
fn another_identity_is_held_until_it_is_approved() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        // A new identity under Alice's device id.
        let mut impostor = alice_again(&alice);
        let presented = impostor.account().identity_key();
        let message = impostor.say(&bob, namespace, "it is me");
        let refused = bob.receive(&impostor, &message).unwrap_err();
        assert_eq!(refused, DecryptError::IdentityChanged { presented });

        let mut recipient = bob.recipient(&impostor, namespace);
        recipient.bundle = Some(impostor.bundle(namespace));
        let hello = text(namespace, "secret");
        let refused = bob.try_encrypt(alice.jid, vec![recipient], &hello).unwrap_err();
        assert_matches!(
            refused,
            EncryptError::NoUsableDevice { failures }
                if failures[0].error == DeviceError::IdentityChanged { presented }
        );
        // The true Alice is not disturbed.
        let message = alice.say(&bob, namespace, "hello");
        assert_eq!(bob.hear(&alice, &message), "hello");

        bob.pin(alice.jid, alice.device(), presented);
        let message = impostor.say(&bob, namespace, "it is me");
        assert_eq!(bob.hear(&impostor, &message), "it is me");
        let answer = bob.say(&impostor, namespace, "I see");
        assert_eq!(impostor.hear(&bob, &answer), "I see");
        let old = alice.say(&bob, namespace, "and me?");
        assert!(bob.receive(&alice, &old).is_err(), "the old identity's sessions are gone");
    }
}

#[test]
fn an_identity_that_is_only_named_is_no_change() {
    for namespace in Namespace::ALL {
        let (alice, mut bob) = acquainted(namespace);
        let mut impostor = alice_again(&alice);
        let message = impostor.say(&bob, namespace, "it is me");
        let eve = Person::new("eve@example.org", 9);
        let key = eve.account().identity_key();
        let named = wire::encode_identity(namespace, &key, &eve.account().identity().ed25519());
        let forged = with_exchange(&message, |exchange| exchange.identity_bytes = named);
        assert_eq!(bob.receive(&impostor, &forged).unwrap_err(), DecryptError::Authentication);
    }
}

/// Another identity under the same address and device id.
fn alice_again(alice: &Person) -> Person {
    let mut again = Person::new(alice.jid, 77);
    let mut json: serde_json::Value =
        serde_json::from_slice(&again.account().to_bytes().unwrap()[1..]).unwrap();
    json["device_id"] = alice.device().value().into();
    let bytes = [b"\x01".as_slice(), json.to_string().as_bytes()].concat();
    again.replace_account(&Account::from_bytes(&bytes).unwrap());
    again
}

#[test]
fn sessions_of_a_revoked_identity_do_not_decrypt() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        let message = alice.say(&bob, namespace, "hello");
        bob.pin(
            alice.jid,
            alice.device(),
            Person::new("x@example.org", 8).account().identity_key(),
        );
        let presented = alice.account().identity_key();
        let refused = bob.receive(&alice, &message).unwrap_err();
        assert_eq!(refused, DecryptError::IdentityChanged { presented });
        let mut recipient = bob.recipient(&alice, namespace);
        recipient.bundle = None;
        let refused = bob.try_encrypt(alice.jid, vec![recipient], &text(namespace, "x"));
        assert_matches!(
            refused,
            Err(EncryptError::NoUsableDevice { failures })
                if failures[0].error == DeviceError::NoBundle
        );
    }
}

#[test]
fn our_own_identity_is_nobody_elses() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let mut recipient = bob.recipient(&alice, namespace);
        recipient.bundle = Some(bob.bundle(namespace));
        let refused = bob.try_encrypt(alice.jid, vec![recipient], &text(namespace, "x"));
        assert_matches!(
            refused,
            Err(EncryptError::NoUsableDevice { failures })
                if failures[0].error == DeviceError::OwnIdentity
        );
        let message = alice.say(&bob, namespace, "hello");
        let own = wire::encode_identity(
            namespace,
            &bob.account().identity_key(),
            &bob.account().identity().ed25519(),
        );
        let reflected = with_exchange(&message, |exchange| exchange.identity_bytes = own);
        assert_eq!(bob.receive(&alice, &reflected).unwrap_err(), DecryptError::OwnIdentity);
        assert_eq!(bob.hear(&alice, &message), "hello");
    }
}

#[test]
fn sessions_and_bundles_of_the_other_namespace_are_not_used() {
    for (namespace, other) in
        [(Namespace::Legacy, Namespace::V2), (Namespace::V2, Namespace::Legacy)]
    {
        let (mut alice, mut bob) = acquainted(other);
        let fresh = alice.recipient(&bob, namespace);
        let with_bundle = Recipient { bundle: Some(bob.bundle(other)), ..fresh.clone() };
        let sessions = alice.sessions_with(bob.jid, bob.device(), other);
        let with_sessions = Recipient { sessions, ..fresh.clone() };
        for recipient in [with_bundle, with_sessions] {
            let refused = alice.try_encrypt(bob.jid, vec![recipient], &text(namespace, "x"));
            assert_matches!(
                refused,
                Err(EncryptError::NoUsableDevice { failures })
                    if failures[0].error == DeviceError::Namespace
            );
        }
        let message = alice.say(&bob, namespace, "as it should be");
        assert_eq!(bob.hear(&alice, &message), "as it should be");
    }
}
