//! Bytes and elements from outside never panic, and what we write we can read.

use std::sync::LazyLock;

use minidom::Element;
use proptest::prelude::*;

use super::people::{Person, alice, bob, through_xml};
use crate::omemo::{
    Account, Bundle, DeviceId, DeviceList, EncryptedElement, IdentityKey, InvalidElement,
    Namespace, SessionList,
    keys::PublicKey,
    limits::{MAX_DEVICES, MAX_ENVELOPE_DEPTH},
    payload::{Naming, Route},
    ratchet::Header,
    sce,
    wire::ratchet_message::{
        decode_key_exchange, decode_ratchet_message, encode_authenticated, encode_message,
    },
};

fn namespaces() -> impl Strategy<Value = Namespace> {
    prop_oneof![Just(Namespace::Legacy), Just(Namespace::V2)]
}

/// Whether an envelope from Alice to Bob can be read.
fn is_envelope(bytes: &[u8]) -> bool {
    let route = Route { from: "alice@example.org", to: "bob@example.org" };
    sce::read(bytes, route, Naming::Optional).is_ok()
}

/// Bob, and a first message to him in each namespace.
static MESSAGES: LazyLock<(Person, Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let (mut alice, bob) = (alice(), bob());
    let mut xml = |namespace| {
        let mut bytes = Vec::new();
        alice.say(&bob, namespace, "hello").to_element().write_to(&mut bytes).unwrap();
        bytes
    };
    let (legacy, v2) = (xml(Namespace::Legacy), xml(Namespace::V2));
    (bob, legacy, v2)
});

/// Small bundles of Bob's: legacy, omemo:2.
static BUNDLES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [Namespace::Legacy, Namespace::V2].map(|namespace| {
        let account = (5..=100)
            .fold(bob().account().clone(), |account, id| account.without_prekey(namespace, id));
        let mut bytes = Vec::new();
        account.bundle(namespace).to_element().write_to(&mut bytes).unwrap();
        bytes
    })
});

proptest! {
    #[test]
    fn random_bytes_never_panic(
        namespace in namespaces(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = decode_ratchet_message(namespace, &bytes);
        let _ = decode_key_exchange(namespace, &bytes);
        let with_version = [&[0x33], bytes.as_slice()].concat();
        let _ = decode_ratchet_message(namespace, &with_version);
        let _ = decode_key_exchange(namespace, &with_version);
        let _ = Account::from_bytes(&bytes);
        let _ = SessionList::from_bytes(&bytes);
        prop_assert!(!is_envelope(&bytes));
    }

    #[test]
    fn random_keys_never_panic(bytes in any::<[u8; 32]>()) {
        if let Some(key) = IdentityKey::from_bytes(&bytes) {
            prop_assert_eq!(key.to_bytes(), bytes);
            let ed25519 = key.to_ed25519(0).unwrap();
            prop_assert_eq!(IdentityKey::from_ed25519(&ed25519), Some(key));
        }
        let _ = IdentityKey::from_ed25519(&bytes);
    }

    #[test]
    fn ratchet_messages_round_trip(
        namespace in namespaces(),
        mut key in any::<[u8; 32]>(),
        number in any::<u32>(),
        previous in any::<u32>(),
        ciphertext in prop::collection::vec(any::<u8>(), 0..100),
        hmac in any::<[u8; 32]>(),
    ) {
        // Smaller than the prime.
        key[31] &= 0x3f;
        let header = Header { ratchet_key: PublicKey::from_bytes(key), number, previous };
        let message = encode_message(namespace, &header, ciphertext.clone());
        let bytes = encode_authenticated(namespace, message.clone(), &hmac);
        let parsed = decode_ratchet_message(namespace, &bytes).unwrap();
        prop_assert_eq!(parsed.header, header);
        prop_assert_eq!(parsed.ciphertext, ciphertext);
        prop_assert_eq!(parsed.authenticated, message);
    }

    #[test]
    fn altered_bundles_never_panic(
        namespace in namespaces(),
        position in any::<prop::sample::Index>(),
        byte in 0x20_u8..0x7f,
    ) {
        let mut xml = BUNDLES[usize::from(namespace == Namespace::V2)].clone();
        let position = position.index(xml.len());
        xml[position] = byte;
        if let Ok(element) = Element::from_reader(xml.as_slice()) {
            let _ = Bundle::from_element(namespace, &element);
        }
    }

    #[test]
    fn altered_messages_never_panic(
        namespace in namespaces(),
        position in any::<prop::sample::Index>(),
        byte in 0x20_u8..0x7f,
    ) {
        let (bob, legacy, v2) = &*MESSAGES;
        let mut xml = match namespace {
            Namespace::Legacy => legacy.clone(),
            Namespace::V2 => v2.clone(),
        };
        let position = position.index(xml.len());
        xml[position] = byte;
        if let Ok(element) = Element::from_reader(xml.as_slice())
            && let Ok(encrypted) = EncryptedElement::from_element(&element)
        {
            let _ = bob.try_decrypt("alice@example.org", &encrypted);
        }
    }

    #[test]
    fn device_lists_round_trip(
        namespace in namespaces(),
        ids in prop::collection::hash_set(1_u32..1 << 31, 0..MAX_DEVICES),
    ) {
        let list = DeviceList::new(ids.into_iter().filter_map(DeviceId::new).collect());
        let element = through_xml(&list.to_element(namespace));
        prop_assert_eq!(DeviceList::from_element(namespace, &element), Ok(list));
    }
}

#[test]
fn a_device_list_of_ten_thousand_is_cut() {
    for (namespace, name) in [(Namespace::Legacy, "list"), (Namespace::V2, "devices")] {
        let uri = namespace.uri();
        let devices: String = (1..=10_000).map(|id| format!("<device id='{id}'/>")).collect();
        let element: Element =
            format!("<{name} xmlns='{uri}'>{devices}<device id='0'/><device/></{name}>")
                .parse()
                .unwrap();
        let list = DeviceList::from_element(namespace, &element).unwrap();
        assert_eq!(list.devices.len(), MAX_DEVICES);
        assert_eq!(list.dropped, 10_002 - MAX_DEVICES);
    }
}

#[test]
fn repeated_and_impossible_device_ids_are_left_out() {
    let element: Element = "<devices xmlns='urn:xmpp:omemo:2'><device id='7'/><device id='7'/>\
                            <device id='2147483648'/><device id='-1'/></devices>"
        .parse()
        .unwrap();
    let list = DeviceList::from_element(Namespace::V2, &element).unwrap();
    assert_eq!(list.devices, [DeviceId::new(7).unwrap()]);
    assert_eq!(list.dropped, 2);
    let wrong = DeviceList::from_element(Namespace::Legacy, &element);
    assert_eq!(wrong, Err(InvalidElement::Name("list")));
}

#[test]
fn a_deeply_nested_envelope_is_refused_without_building_it() {
    let nested = |depth: usize| {
        format!(
            "<envelope xmlns='urn:xmpp:sce:1'><content>{}{}</content><rpad/></envelope>",
            "<a xmlns='x'>".repeat(depth),
            "</a>".repeat(depth)
        )
    };
    assert!(is_envelope(nested(MAX_ENVELOPE_DEPTH - 2).as_bytes()));
    assert!(!is_envelope(nested(MAX_ENVELOPE_DEPTH - 1).as_bytes()));
    assert!(!is_envelope(nested(100_000).as_bytes()));
}

#[test]
fn fingerprints_are_printed_as_conversations_and_dino_print_them() {
    let mut bytes = [0; 32];
    bytes[0] = 9;
    let key = IdentityKey::from_bytes(&bytes).unwrap();
    let expected = "09000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000";
    assert_eq!(key.fingerprint(), expected);
}
