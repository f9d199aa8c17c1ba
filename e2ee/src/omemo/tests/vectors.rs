//! Known answers made by independent implementations (Oldmemo and Twomemo).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minidom::Element;
use serde::Deserialize;
use serde_json::json;

use crate::omemo::{
    Bundle, InvalidBundle, Namespace, Plaintext,
    encrypted::EncryptedElement,
    identity::{self, IdentityKeyPair},
    keys::PrivateKey,
    limits::MAX_PAYLOAD_BYTES,
    payload::{self, Route},
    session::{Responder, Session},
    wire::{
        self,
        ratchet_message::{decode_key_exchange, decode_ratchet_message},
    },
};

#[derive(Deserialize)]
struct Case {
    ns: String,
    receiver: Receiver,
    spk_id: u32,
    spk_sig: String,
    bundle_xml: String,
    messages: Vec<Message>,
    payload: Payload,
}

#[derive(Deserialize)]
struct Receiver {
    ik: String,
    ik_ed: String,
    spk: String,
    pk: String,
    pk_id: u32,
}

#[derive(Deserialize)]
struct Message {
    kex: bool,
    data: String,
    pt: String,
}

#[derive(Deserialize)]
struct Payload {
    plaintext: String,
    key: String,
    tag: String,
    ciphertext: String,
    iv: Option<String>,
}

fn cases() -> Vec<(Namespace, Case)> {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../../tests/vectors/omemo.json")).unwrap();
    let cases = cases.into_iter().map(|case| (Namespace::from_uri(&case.ns).unwrap(), case));
    cases.collect()
}

fn bytes(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

fn private(text: &str) -> PrivateKey {
    PrivateKey::from_bytes(&bytes(text).try_into().unwrap())
}

#[test]
fn there_are_cases_for_both_namespaces() {
    for namespace in Namespace::ALL {
        assert!(cases().iter().filter(|(found, _)| *found == namespace).count() >= 2);
    }
}

#[test]
fn every_message_decrypts() {
    for (namespace, case) in cases() {
        let identity = IdentityKeyPair::from_private(private(&case.receiver.ik));
        let (signed_prekey, prekey) = (private(&case.receiver.spk), private(&case.receiver.pk));
        let own = Responder {
            identity: &identity,
            signed_prekey: &signed_prekey,
            prekey_id: case.receiver.pk_id,
            prekey: &prekey,
        };
        let mut session: Option<Session> = None;
        for message in &case.messages {
            let data = bytes(&message.data);
            let data = if message.kex {
                let exchange = decode_key_exchange(namespace, &data).unwrap();
                assert_eq!(exchange.signed_prekey_id, case.spk_id);
                assert_eq!(exchange.prekey_id, Some(case.receiver.pk_id));
                let known = session.as_ref().is_some_and(|session| session.started_by(&exchange));
                assert_eq!(known, session.is_some());
                session.get_or_insert_with(|| {
                    let session = Session::respond(namespace, &own, &exchange).unwrap();
                    as_responder(namespace, &session, &bytes(&case.receiver.ik_ed))
                });
                exchange.message
            } else {
                data
            };
            let parsed = decode_ratchet_message(namespace, &data).unwrap();
            let current = session.as_ref().unwrap();
            let (next, plaintext) = current.decrypt(namespace, &parsed).unwrap();
            assert_eq!(*plaintext, bytes(&message.pt));
            session = Some(next);
        }
    }
}

/// The vectors' receivers keep the sign bit of their identity keys; ours never have one.
fn as_responder(namespace: Namespace, session: &Session, ed25519: &[u8]) -> Session {
    let mut json = serde_json::to_value(session).unwrap();
    if namespace == Namespace::V2 {
        json["associated_data"]["responder"] = json!(STANDARD.encode(ed25519));
    }
    serde_json::from_value(json).unwrap()
}

#[test]
fn every_payload_opens() {
    for (namespace, case) in cases() {
        let vector = &case.payload;
        let key = [bytes(&vector.key), bytes(&vector.tag)].concat();
        let element = EncryptedElement {
            namespace,
            sender: crate::omemo::DeviceId::new(1).unwrap(),
            keys: Vec::new(),
            iv: vector.iv.as_ref().map(|iv| bytes(iv).try_into().unwrap()),
            payload: Some(bytes(&vector.ciphertext)),
        };
        assert!(bytes(&vector.ciphertext).len() < MAX_PAYLOAD_BYTES);
        let opened = match namespace {
            Namespace::Legacy => {
                let route = Route { from: "a@example.org", to: "b@example.org" };
                match payload::open(&element, &key, route, payload::Naming::Optional).unwrap() {
                    Some(Plaintext::Body(text)) => text,
                    _ => panic!("not a body"),
                }
            }
            Namespace::V2 => {
                let envelope = payload::decrypt_v2(&bytes(&vector.ciphertext), &key).unwrap();
                String::from_utf8(envelope.to_vec()).unwrap()
            }
        };
        assert_eq!(opened, vector.plaintext);
    }
}

#[test]
fn every_bundle_is_sound_and_no_other_signature_is() {
    for (namespace, case) in cases() {
        let element: Element = case.bundle_xml.parse().unwrap();
        let bundle = Bundle::from_element(namespace, &element).unwrap();
        let again = Bundle::from_element(namespace, &bundle.to_element()).unwrap();
        assert_eq!(bundle, again);

        let names = wire::bundle_names(namespace);
        let signature = element.get_child(names.signature, namespace.uri()).unwrap().text();
        let mut forged = bytes(&signature);
        forged[3] ^= 1;
        let forged = case.bundle_xml.replace(&signature, &STANDARD.encode(forged));
        let forged = Bundle::from_element(namespace, &forged.parse().unwrap());
        assert_eq!(forged, Err(InvalidBundle::Signature));
    }
}

#[test]
fn the_receivers_signatures_verify() {
    for (namespace, case) in cases() {
        let identity = IdentityKeyPair::from_private(private(&case.receiver.ik));
        let ed25519: [u8; 32] = bytes(&case.receiver.ik_ed).try_into().unwrap();
        assert_eq!(
            crate::omemo::IdentityKey::from_ed25519(&ed25519),
            Some(identity.public()),
            "both forms name one identity"
        );
        let message = wire::encode_key(namespace, &private(&case.receiver.spk).public());
        let mut signature: [u8; 64] = bytes(&case.spk_sig).try_into().unwrap();
        assert!(identity::verify(&ed25519, &message, &signature));
        signature[40] ^= 1;
        assert!(!identity::verify(&ed25519, &message, &signature));
    }
}
