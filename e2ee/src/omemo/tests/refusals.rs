//! What must be refused, each time without any change, so that the true message still opens.

use assert_matches::assert_matches;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use minidom::Element;

use super::people::{Person, acquainted, alice, bob, text, through_xml};
use crate::omemo::{
    Bundle, DecryptError, DeviceError, DeviceId, EncryptError, EncryptedElement, InvalidBundle,
    Namespace,
    encrypted::{KeyEntry, KeyKind},
    keys::PublicKey,
    limits::{MAX_RECEIVING_CHAINS, MAX_SKIPPED_KEYS},
    payload::{self, Naming, Route},
    sce, wire,
    wire::ratchet_message::{
        KeyExchange, Tag, decode_key_exchange, decode_ratchet_message, encode_authenticated,
        encode_key_exchange, encode_message,
    },
};

/// Every Montgomery u-coordinate of small order, and its non-canonical forms.
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn low_order() -> impl Iterator<Item = PublicKey> {
    LOW_ORDER.iter().map(|key| PublicKey::from_slice(&hex::decode(key).unwrap()).unwrap())
}

fn with_key(element: &EncryptedElement, data: Vec<u8>) -> EncryptedElement {
    let mut altered = element.clone();
    altered.keys = vec![KeyEntry { data, ..element.keys[0].clone() }];
    altered
}

pub(super) fn with_exchange(
    element: &EncryptedElement,
    alter: impl FnOnce(&mut KeyExchange),
) -> EncryptedElement {
    let mut exchange = decode_key_exchange(element.namespace, &element.keys[0].data).unwrap();
    alter(&mut exchange);
    with_key(element, encode_key_exchange(element.namespace, exchange))
}

/// The bytes of a ratchet message with another ratchet key or number.
fn with_header(
    namespace: Namespace,
    bytes: &[u8],
    key: Option<PublicKey>,
    number: Option<u32>,
) -> Vec<u8> {
    let parsed = decode_ratchet_message(namespace, bytes).unwrap();
    let mut header = parsed.header;
    header.ratchet_key = key.unwrap_or(header.ratchet_key);
    header.number = number.unwrap_or(header.number);
    let mut hmac = [0; 32];
    match parsed.tag {
        Tag::Legacy(tag) => hmac[..8].copy_from_slice(&tag),
        Tag::V2(tag) => hmac[..16].copy_from_slice(&tag),
    }
    let message = encode_message(namespace, &header, parsed.ciphertext);
    encode_authenticated(namespace, message, &hmac)
}

#[test]
fn no_byte_of_a_key_can_be_altered() {
    let mut refused = 0;
    for namespace in Namespace::ALL {
        let (mut ann, mut ben) = (alice(), bob());
        let exchange = ann.say(&ben, namespace, "hello");
        assert_eq!(exchange.keys[0].kind, KeyKind::KeyExchange);
        refused += refuse_every_flip(&mut ben, &ann, &exchange);
        assert_eq!(ben.hear(&ann, &exchange), "hello");

        let (mut ann, mut ben) = acquainted(namespace);
        let message = ann.say(&ben, namespace, "hello");
        assert_eq!(message.keys[0].kind, KeyKind::Ratchet);
        refused += refuse_every_flip(&mut ben, &ann, &message);
        assert_eq!(ben.hear(&ann, &message), "hello");
    }
    println!("safety: altered_keys: {refused} alterations, 0 opened");
}

/// Gives how many there were.
fn refuse_every_flip(receiver: &mut Person, sender: &Person, element: &EncryptedElement) -> usize {
    for position in 0..element.keys[0].data.len() {
        for bit in [0x01, 0x80] {
            let mut data = element.keys[0].data.clone();
            data[position] ^= bit;
            let refused = receiver.receive(sender, &with_key(element, data));
            assert!(refused.is_err(), "byte {position}, bit {bit:#x}");
        }
    }
    element.keys[0].data.len() * 2
}

#[test]
fn no_byte_of_a_payload_can_be_altered() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        let message = alice.say(&bob, namespace, "hello");
        for position in 0..message.payload.as_ref().unwrap().len() {
            let mut altered = message.clone();
            altered.payload.as_mut().unwrap()[position] ^= 1;
            assert_eq!(bob.receive(&alice, &altered).unwrap_err(), DecryptError::Payload);
        }
        for position in 0..message.iv.map_or(0, |iv| iv.len()) {
            let mut altered = message.clone();
            altered.iv.as_mut().unwrap()[position] ^= 1;
            assert_eq!(bob.receive(&alice, &altered).unwrap_err(), DecryptError::Payload);
        }
        assert_eq!(bob.hear(&alice, &message), "hello");
    }
}

#[test]
fn low_order_keys_are_refused_in_every_agreement_of_a_key_exchange() {
    let mut refusals = 0;
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let message = alice.say(&bob, namespace, "hello");
        for key in low_order() {
            let ephemeral = with_exchange(&message, |exchange| exchange.ephemeral = key);
            let ratchet = with_exchange(&message, |exchange| {
                exchange.message = with_header(namespace, &exchange.message, Some(key), None);
            });
            let identity = with_exchange(&message, |exchange| {
                exchange.identity_bytes = wire::encode_key(namespace, &key);
            });
            for altered in [ephemeral, ratchet, identity] {
                let refused = bob.receive(&alice, &altered).unwrap_err();
                assert_eq!(refused, DecryptError::InvalidKey);
                refusals += 1;
            }
        }
        assert_eq!(bob.hear(&alice, &message), "hello");
    }
    println!("safety: low_order: {refusals} exchanges, 0 sessions");
}

#[test]
fn low_order_ratchet_keys_are_refused_later_too() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        // Bob has answered, so a new ratchet key of Alice's would be agreed with.
        let message = bob.say(&alice, namespace, "hello");
        alice.hear(&bob, &message);
        let message = alice.say(&bob, namespace, "hello");
        for key in low_order() {
            let data = with_header(namespace, &message.keys[0].data, Some(key), None);
            let refused = bob.receive(&alice, &with_key(&message, data)).unwrap_err();
            assert_eq!(refused, DecryptError::InvalidKey);
        }
        assert_eq!(bob.hear(&alice, &message), "hello");
    }
}

/// The bundle of a person as an element, with the text of some children replaced.
fn bundle_with(person: &Person, namespace: Namespace, replace: &[(&str, &[u8])]) -> Element {
    let mut bundle = through_xml(&person.account().bundle(namespace).to_element());
    for (name, bytes) in replace {
        let prekeys = bundle.get_child_mut("prekeys", namespace.uri()).unwrap();
        set_texts(prekeys, name, bytes);
        set_texts(&mut bundle, name, bytes);
    }
    bundle
}

fn set_texts(parent: &mut Element, name: &str, bytes: &[u8]) {
    for child in parent.children_mut().filter(|child| child.name() == name) {
        child.take_nodes();
        child.append_text(STANDARD.encode(bytes));
    }
}

#[test]
fn low_order_keys_in_a_bundle_are_refused() {
    for namespace in Namespace::ALL {
        let names = wire::bundle_names(namespace);
        let (mut alice, mut bob) = (alice(), bob());
        let mut agreements = 0;
        for key in low_order() {
            let key = wire::encode_key(namespace, &key);
            let identity = bundle_with(&bob, namespace, &[(names.identity, &key)]);
            assert_matches!(Bundle::from_element(namespace, &identity), Err(InvalidBundle::Key));

            // Signed by Bob himself, as a hostile Bob could.
            let signature = bob.account().clone().identity().sign(&key, &mut bob.rng);
            let signed_prekey = bundle_with(
                &bob,
                namespace,
                &[(names.signed_prekey, &key), (names.signature, &signature)],
            );
            let prekeys = bundle_with(&bob, namespace, &[(names.prekey, &key)]);
            for bundle in [signed_prekey, prekeys] {
                let bundle = match Bundle::from_element(namespace, &bundle) {
                    Ok(bundle) => bundle,
                    // The non-canonical forms do not get as far as an agreement.
                    Err(error) => {
                        assert_eq!(error, InvalidBundle::Key);
                        continue;
                    }
                };
                agreements += 1;
                let mut recipient = alice.recipient(&bob, namespace);
                recipient.bundle = Some(bundle);
                let hello = text(namespace, "hello");
                let refused = alice.try_encrypt(bob.jid, vec![recipient], &hello);
                assert_matches!(
                    refused,
                    Err(EncryptError::NoUsableDevice { failures })
                        if failures[0].error == DeviceError::InvalidKey
                );
            }
        }
        assert_eq!(agreements, 2 * 5);
    }
}

#[test]
fn a_bundle_must_be_signed_and_have_a_prekey() {
    for namespace in Namespace::ALL {
        let names = wire::bundle_names(namespace);
        let bob = bob();
        let unsigned = bundle_with(&bob, namespace, &[(names.signature, &[7; 64])]);
        let refused = Bundle::from_element(namespace, &unsigned);
        assert_eq!(refused, Err(InvalidBundle::Signature));

        let mut empty = bundle_with(&bob, namespace, &[]);
        empty.get_child_mut("prekeys", namespace.uri()).unwrap().take_nodes();
        assert_eq!(Bundle::from_element(namespace, &empty), Err(InvalidBundle::NoPrekey));

        let short = bundle_with(&bob, namespace, &[(names.prekey, &[5; 31])]);
        assert_eq!(Bundle::from_element(namespace, &short), Err(InvalidBundle::Key));
    }
}

#[test]
fn a_key_exchange_needs_a_prekey_that_exists() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let message = alice.say(&bob, namespace, "hello");
        let without = with_exchange(&message, |exchange| exchange.prekey_id = None);
        assert_eq!(bob.receive(&alice, &without).unwrap_err(), DecryptError::NoPrekey);
        let unknown = with_exchange(&message, |exchange| exchange.prekey_id = Some(9999));
        assert_eq!(bob.receive(&alice, &unknown).unwrap_err(), DecryptError::UnknownPrekey);
        let unknown = with_exchange(&message, |exchange| exchange.signed_prekey_id = 9999);
        assert_eq!(bob.receive(&alice, &unknown).unwrap_err(), DecryptError::UnknownPrekey);
        assert_eq!(bob.hear(&alice, &message), "hello");
    }
}

#[test]
fn a_used_prekey_starts_no_second_session() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let message = alice.say(&bob, namespace, "hello");
        assert_eq!(bob.hear(&alice, &message), "hello");
        let mut forgetful = Person::new(bob.jid, 50);
        forgetful.replace_account(bob.account());
        let refused = forgetful.receive(&alice, &message).unwrap_err();
        assert_eq!(refused, DecryptError::UnknownPrekey);
    }
}

#[test]
fn an_old_message_in_a_new_key_exchange_uses_no_prekey() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        let message = alice.say(&bob, namespace, "hello");
        // Another start, as whoever carries the messages could make one up.
        let mut stranger = Person::new(alice.jid, 60);
        stranger.replace_account(alice.account());
        let start = stranger.say(&bob, namespace, "start");
        let wrapped =
            with_exchange(&start, |exchange| exchange.message = message.keys[0].data.clone());
        let mut wrapped_payload = message.clone();
        wrapped_payload.keys = wrapped.keys;
        let refused = bob.receive(&alice, &wrapped_payload).unwrap_err();
        assert_eq!(refused, DecryptError::Authentication);
        assert_eq!(bob.hear(&alice, &message), "hello");
    }
}

#[test]
fn a_replay_is_refused() {
    let mut refused = 0;
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = (alice(), bob());
        let first = alice.say(&bob, namespace, "one");
        let second = alice.say(&bob, namespace, "two");
        bob.hear(&alice, &second);
        bob.hear(&alice, &first);
        for replayed in [&first, &second] {
            assert_eq!(bob.receive(&alice, replayed).unwrap_err(), DecryptError::Replayed);
            refused += 1;
        }
        let answer = bob.say(&alice, namespace, "answer");
        alice.hear(&bob, &answer);
        let third = alice.say(&bob, namespace, "three");
        bob.hear(&alice, &third);
        for replayed in [&first, &second, &third] {
            assert_eq!(bob.receive(&alice, replayed).unwrap_err(), DecryptError::Replayed);
            refused += 1;
        }
    }
    println!("safety: omemo_replays: {refused} replays, 0 opened");
}

#[test]
fn a_thousand_messages_may_be_skipped_and_no_more() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        let limit = u32::try_from(MAX_SKIPPED_KEYS).unwrap();
        let first = alice.say(&bob, namespace, "first");
        let number = |element: &EncryptedElement| {
            decode_ratchet_message(namespace, &element.keys[0].data).unwrap().header.number
        };
        let start = number(&first);
        let mut last = first.clone();
        while number(&last) < start + limit {
            last = alice.say(&bob, namespace, "skipped");
        }
        let too_far = alice.say(&bob, namespace, "too far");
        assert_eq!(bob.receive(&alice, &too_far).unwrap_err(), DecryptError::TooManySkipped);
        let huge = with_header(namespace, &last.keys[0].data, None, Some(u32::MAX));
        let refused = bob.receive(&alice, &with_key(&last, huge)).unwrap_err();
        assert_eq!(refused, DecryptError::TooManySkipped);

        assert_eq!(bob.hear(&alice, &last), "skipped");
        assert_eq!(bob.hear(&alice, &first), "first");
        assert_eq!(bob.hear(&alice, &too_far), "too far");
    }
}

#[test]
fn a_message_that_five_newer_ratchet_keys_overtook_opens_and_after_six_it_does_not() {
    for (overtaken, opens) in [(MAX_RECEIVING_CHAINS - 1, true), (MAX_RECEIVING_CHAINS, false)] {
        for namespace in Namespace::ALL {
            let (mut alice, mut bob) = acquainted(namespace);
            let late = alice.say(&bob, namespace, "late");
            let message = alice.say(&bob, namespace, "in the same chain");
            bob.hear(&alice, &message);
            for _ in 0..overtaken {
                let answer = bob.say(&alice, namespace, "answer");
                alice.hear(&bob, &answer);
                let message = alice.say(&bob, namespace, "under the next ratchet key");
                bob.hear(&alice, &message);
            }
            let result = bob.receive(&alice, &late).map(|_| ());
            let expected = if opens { Ok(()) } else { Err(DecryptError::Authentication) };
            assert_eq!(result, expected, "{overtaken} newer chains");
        }
    }
}

#[test]
fn a_message_for_someone_else_is_not_opened() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        let message = alice.say(&bob, namespace, "hello");
        let mut other_device = message.clone();
        other_device.keys[0].device = DeviceId::new(bob.device().value() ^ 1).unwrap();
        assert_eq!(bob.receive(&alice, &other_device).unwrap_err(), DecryptError::NotForUs);
        if namespace == Namespace::V2 {
            let mut other_owner = message.clone();
            other_owner.keys[0].jid = Some("eve@example.org".to_owned());
            assert_eq!(bob.receive(&alice, &other_owner).unwrap_err(), DecryptError::NotForUs);
        }
        let mut other_sender = message.clone();
        other_sender.sender = DeviceId::new(alice.device().value() ^ 1).unwrap();
        assert_eq!(bob.receive(&alice, &other_sender).unwrap_err(), DecryptError::NoSession);
        assert_eq!(bob.hear(&alice, &message), "hello");
    }
}

#[test]
fn another_devices_session_does_not_authenticate() {
    for namespace in Namespace::ALL {
        let (mut alice, mut bob) = acquainted(namespace);
        let mut eve = Person::new("eve@example.org", 9);
        let hello = eve.say(&bob, namespace, "hello");
        bob.hear(&eve, &hello);
        let answer = bob.say(&eve, namespace, "answer");
        eve.hear(&bob, &answer);

        // Eve sends under Alice's name and device.
        let mut forged = eve.say(&bob, namespace, "I am Alice");
        forged.sender = alice.device();
        assert_eq!(bob.receive(&alice, &forged).unwrap_err(), DecryptError::Authentication);
        let message = alice.say(&bob, namespace, "I am Alice");
        assert_eq!(bob.hear(&alice, &message), "I am Alice");
    }
}

#[test]
fn a_forwarded_first_message_is_bound_to_its_author_in_omemo_2() {
    let (mut alice, mut bob) = (alice(), bob());
    let eve = Person::new("eve@example.org", 9);
    let message = alice.say(&bob, Namespace::V2, "hello");
    assert_eq!(bob.receive(&eve, &message).unwrap_err(), DecryptError::Affix("from"));
    assert_eq!(bob.hear(&alice, &message), "hello");
}

/// The next message of a session, with an envelope that does not name its author.
fn unnamed(author: &mut Person, reader: &Person, earlier: &EncryptedElement) -> EncryptedElement {
    let envelope = "<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>\
                    unnamed</body></content><rpad/></envelope>";
    let sealed = payload::seal_v2(envelope.as_bytes(), &mut author.rng).unwrap();
    let sessions = author.sessions_with(reader.jid, reader.device(), Namespace::V2);
    let (kind, data) = sessions.unwrap().encrypt(&sealed.key, &mut author.rng).unwrap();
    assert_eq!(kind, earlier.keys[0].kind);
    EncryptedElement { payload: sealed.ciphertext, ..with_key(earlier, data) }
}

#[test]
fn what_starts_a_session_names_its_author_in_omemo_2() {
    let (mut alice, mut bob) = (alice(), bob());
    let eve = Person::new("eve@example.org", 9);
    let named = alice.say(&bob, Namespace::V2, "hello");
    let unnamed = unnamed(&mut alice, &bob, &named);
    for carrier in [&eve, &alice] {
        let refused = bob.receive(carrier, &unnamed).unwrap_err();
        assert_eq!(refused, DecryptError::Affix("from"));
    }
    // It repeats the key exchange of a session that there is by now.
    assert_eq!(bob.hear(&alice, &named), "hello");
    assert_eq!(bob.hear(&alice, &unnamed), "unnamed");
}

#[test]
fn a_message_to_someone_else_is_refused_by_its_envelope() {
    let (mut alice, mut bob) = (alice(), bob());
    let recipient = alice.recipient(&bob, Namespace::V2);
    let encrypted = alice
        .try_encrypt("eve@example.org", vec![recipient], &text(Namespace::V2, "hello"))
        .unwrap();
    let refused = bob.receive(&alice, &encrypted.element).unwrap_err();
    assert_eq!(refused, DecryptError::Affix("to"));
}

#[test]
fn envelopes_that_do_not_fit_are_refused() {
    let route = Route { from: "alice@example.org", to: "bob@example.org" };
    let read_bytes = |bytes: &[u8], naming: Naming| sce::read(bytes, route, naming).map(|_| ());
    let read_as = |inner: &str, naming: Naming| {
        let envelope = format!("<envelope xmlns='urn:xmpp:sce:1'>{inner}</envelope>");
        read_bytes(envelope.as_bytes(), naming)
    };
    let read = |inner: &str| read_as(inner, Naming::Optional);
    let content = "<content><body xmlns='jabber:client'>x</body></content>";
    assert_eq!(read(&format!("{content}<rpad/>")), Ok(()));
    assert_eq!(read(&format!("<rpad>aa</rpad><from jid='alice@example.org/x'/>{content}")), Ok(()));
    let named = format!("<rpad/><from jid='alice@example.org'/>{content}");
    assert_eq!(read_as(&named, Naming::Required), Ok(()));
    let unnamed = read_as(&format!("{content}<rpad/>"), Naming::Required);
    assert_eq!(unnamed, Err(DecryptError::Affix("from")));
    for (inner, affix) in [
        ("<rpad/><from jid='eve@example.org'/>", "from"),
        ("<rpad/><from/>", "from"),
        ("<rpad/><from jid='alice@example.org'/><from jid='eve@example.org'/>", "from"),
        ("<rpad/><to jid='eve@example.org'/>", "to"),
        ("<rpad/><to jid=''/>", "to"),
        ("<rpad/><time stamp='yesterday'/>", "time"),
        ("<rpad/><rpad/>", "rpad"),
    ] {
        assert_eq!(read(&format!("{content}{inner}")), Err(DecryptError::Affix(affix)), "{inner}");
    }
    assert_matches!(read(content), Err(DecryptError::Envelope(_)), "rpad is required");
    assert_matches!(read("<rpad/>"), Err(DecryptError::Envelope(_)), "content is required");
    assert_matches!(
        read_bytes(b"<message xmlns='jabber:client'/>", Naming::Optional),
        Err(DecryptError::Envelope(_))
    );
    assert_matches!(
        read_bytes(b"<!DOCTYPE x><x/>", Naming::Optional),
        Err(DecryptError::Envelope(_))
    );
}
