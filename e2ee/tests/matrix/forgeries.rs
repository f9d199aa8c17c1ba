//! What a homeserver makes of other people's keys and messages, together with a member who makes devices by hand.
//!
//! Lines that begin with `safety:` are the figures of `cargo xtask safety`.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking, in its helpers too")]

use assert_matches::assert_matches;
use e2ee::matrix::{DecryptError, DecryptedEvent, Machine, RequestBody, Response, SenderTrust};
use ruma::{CanonicalJsonValue, OneTimeKeyAlgorithm, device_id};
use serde_json::{Value, json};
use vodozemac::{
    Curve25519PublicKey,
    megolm::{GroupSession, SessionConfig},
    olm::{Account, Session},
};

use crate::{Homeserver, alice, alice_and_ghost, ghost, mallory, person, raw, receive, room, send};

/// A device of Mallory's that says what she likes.
struct Liar {
    account: Account,
    olm: Session,
    megolm: GroupSession,
    ghost_ed25519: String,
    ghost_curve25519: String,
}

/// Whose name stands where on a message to a device.
#[derive(Clone, Copy)]
struct Names {
    /// On the outside, where the homeserver writes it.
    outside: &'static str,
    /// Inside the ciphertext.
    inside: &'static str,
    /// On the device keys inside the ciphertext; nothing when there are none.
    on_keys: Option<&'static str>,
}

const ALICE: &str = "@alice:example.org";
const MALLORY: &str = "@mallory:example.org";
const HONEST: Names = Names { outside: MALLORY, inside: MALLORY, on_keys: Some(MALLORY) };

impl Liar {
    fn new(homeserver: &Homeserver) -> Self {
        let account = Account::new();
        let device = device_id!("LIAR");
        let mut claim = ruma::api::client::keys::claim_keys::v3::Request::new(
            [(
                ghost().to_owned(),
                [(device_id!("GHOST").to_owned(), OneTimeKeyAlgorithm::SignedCurve25519)].into(),
            )]
            .into(),
        );
        claim.timeout = None;
        let claimed = homeserver.answer(mallory(), device, RequestBody::KeysClaim(claim));
        let Response::KeysClaim(claimed) = claimed else { unreachable!() };
        let key = claimed.one_time_keys[ghost()][device_id!("GHOST")].values().next().unwrap();
        let key: Value = serde_json::from_str(key.json().get()).unwrap();
        let one_time_key = Curve25519PublicKey::from_base64(key["key"].as_str().unwrap()).unwrap();

        let mut query = ruma::api::client::keys::get_keys::v3::Request::new();
        query.device_keys.insert(ghost().to_owned(), Vec::new());
        let known = homeserver.answer(mallory(), device, RequestBody::KeysQuery(query));
        let Response::KeysQuery(known) = known else { unreachable!() };
        let keys = known.device_keys[ghost()][device_id!("GHOST")].json().get().to_owned();
        let keys: Value = serde_json::from_str(&keys).unwrap();
        let key_of = |name: &str| keys["keys"][name].as_str().unwrap().to_owned();
        let ghost_curve25519 = key_of("curve25519:GHOST");
        let identity = Curve25519PublicKey::from_base64(&ghost_curve25519).unwrap();
        let config = vodozemac::olm::SessionConfig::version_1();
        let olm = account.create_outbound_session(config, identity, one_time_key).unwrap();
        let megolm = GroupSession::new(SessionConfig::version_1());
        let ghost_ed25519 = key_of("ed25519:GHOST");
        Self { account, olm, megolm, ghost_ed25519, ghost_curve25519 }
    }

    /// Its device keys, whole and signed by itself, as those of `user`.
    fn device_keys(&self, user: &str) -> Value {
        let mut keys = json!({
            "user_id": user,
            "device_id": "LIAR",
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                "curve25519:LIAR": self.account.curve25519_key().to_base64(),
                "ed25519:LIAR": self.account.ed25519_key().to_base64(),
            },
        });
        let canonical: CanonicalJsonValue = keys.clone().try_into().unwrap();
        let signature = self.account.sign(canonical.to_string()).to_base64();
        keys["signatures"] = json!({ user: { "ed25519:LIAR": signature } });
        keys
    }

    /// A message to the ghost's device.
    fn whisper(&mut self, names: Names, kind: &str, content: &Value) -> Value {
        let mut message = json!({
            "type": kind,
            "content": content,
            "sender": names.inside,
            "recipient": ghost(),
            "recipient_keys": { "ed25519": self.ghost_ed25519 },
            "keys": { "ed25519": self.account.ed25519_key().to_base64() },
        });
        if let Some(user) = names.on_keys {
            message["sender_device_keys"] = self.device_keys(user);
        }
        let encrypted = self.olm.encrypt(message.to_string()).unwrap();
        let (kind, body) = encrypted.to_parts();
        let body = vodozemac::base64_encode(body);
        json!({ "type": "m.room.encrypted", "sender": names.outside, "content": {
            "algorithm": "m.olm.v1.curve25519-aes-sha2",
            "sender_key": self.account.curve25519_key().to_base64(),
            "ciphertext": { &self.ghost_curve25519: { "type": kind, "body": body } },
        }})
    }

    fn room_key(&self) -> Value {
        json!({
            "algorithm": "m.megolm.v1.aes-sha2",
            "room_id": room(),
            "session_id": self.megolm.session_id(),
            "session_key": self.megolm.session_key().to_base64(),
        })
    }

    /// Content of an `m.room.encrypted` under its Megolm session.
    fn megolm(&mut self, plaintext: &Value) -> Value {
        let ciphertext = self.megolm.encrypt(plaintext.to_string()).to_base64();
        json!({
            "algorithm": "m.megolm.v1.aes-sha2",
            "ciphertext": ciphertext,
            "session_id": self.megolm.session_id(),
            "sender_key": self.account.curve25519_key().to_base64(),
            "device_id": "LIAR",
        })
    }

    /// A room event of Alice's, says the homeserver.
    fn event(&mut self, sender: &str) -> Value {
        let content = self.megolm(&json!({
            "type": "m.room.message", "room_id": room(),
            "content": { "msgtype": "m.text", "body": "I am Alice" },
        }));
        json!({
            "type": "m.room.encrypted", "event_id": "$forged", "room_id": room(),
            "sender": sender, "origin_server_ts": 1_700_000_000_000_u64, "content": content,
        })
    }
}

/// Puts a message into the ghost's inbox and opens the liar's event as one of `sender`.
async fn opens(
    homeserver: &Homeserver,
    ghost_device: &Machine,
    liar: &mut Liar,
    sender: &str,
    inbox: &[Value],
) -> Result<DecryptedEvent, DecryptError> {
    for message in inbox {
        homeserver.put_into_inbox(ghost(), device_id!("GHOST"), message.clone());
    }
    let event = liar.event(sender);
    receive(homeserver, ghost_device, sender.try_into().unwrap(), &event).await
}

/// Whether the bridge would pass an event on: its sender's device is signed by the sender.
fn is_believed(result: &Result<DecryptedEvent, DecryptError>) -> bool {
    matches!(result, Ok(DecryptedEvent { trust: SenderTrust::Signed { .. }, .. }))
}

#[tokio::test]
async fn the_liars_messages_are_whole_and_only_her_own_name_is_hers() {
    let homeserver = Homeserver::default();
    let (_alice, ghost_device) = alice_and_ghost(&homeserver).await;
    let mut liar = Liar::new(&homeserver);
    let room_key = liar.room_key();
    let message = liar.whisper(HONEST, "m.room_key", &room_key);
    let opened = opens(&homeserver, &ghost_device, &mut liar, MALLORY, &[message]).await;
    let Ok(opened) = opened else { panic!("she cannot write at all") };
    assert_eq!((opened.trust, opened.sender.as_str()), (SenderTrust::Unsigned, MALLORY));

    // CVE-2025-48937: the same event under another sender.
    let forged = liar.event(ALICE);
    let result = receive(&homeserver, &ghost_device, alice(), &forged).await;
    assert_matches!(result.err(), Some(DecryptError::Forged));
}

#[tokio::test]
async fn a_room_key_under_anothers_name_is_not_believed() {
    let names = [
        // The homeserver alone.
        Names { outside: ALICE, ..HONEST },
        // CVE-2026-45056: only the device keys say whose the device is.
        Names { outside: ALICE, inside: ALICE, on_keys: Some(MALLORY) },
        // A device of Alice's that nobody has heard of.
        Names { outside: ALICE, inside: ALICE, on_keys: None },
        // The same, with keys that say so.
        Names { outside: ALICE, inside: ALICE, on_keys: Some(ALICE) },
        Names { outside: MALLORY, inside: ALICE, on_keys: Some(ALICE) },
    ];
    let (mut believed, mut opened) = (0, Vec::new());
    for names in names {
        let homeserver = Homeserver::default();
        let (_alice, ghost_device) = alice_and_ghost(&homeserver).await;
        let mut liar = Liar::new(&homeserver);
        let room_key = liar.room_key();
        let message = liar.whisper(names, "m.room_key", &room_key);
        let result = opens(&homeserver, &ghost_device, &mut liar, ALICE, &[message]).await;
        believed += usize::from(is_believed(&result));
        opened.push(result.is_ok());
    }
    println!("safety: spoofed_room_keys: {believed} of {} believed", names.len());
    assert_eq!(believed, 0);
    // What names Mallory anywhere opens nothing at all; the rest waits for a signature.
    assert_eq!((opened[0], opened[1], opened[4]), (false, false, false));
}

#[tokio::test]
async fn keys_that_nobody_asked_for_open_nothing() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;
    let _mallory = person(&homeserver, mallory(), device_id!("MALLORY")).await;
    let mut liar = Liar::new(&homeserver);
    let room_key = liar.room_key();
    let megolm_in_megolm = {
        // CVE-2022-39251: a message to a device under a room key that the ghost does have.
        let honest = liar.whisper(HONEST, "m.room_key", &room_key);
        let first = opens(&homeserver, &ghost_device, &mut liar, MALLORY, &[honest]).await;
        assert!(first.is_ok(), "she cannot write at all");
        let key = GroupSession::new(SessionConfig::version_1());
        let content = liar.megolm(&json!({ "type": "m.room_key", "room_id": room(), "content": {
            "algorithm": "m.megolm.v1.aes-sha2", "room_id": room(),
            "session_id": key.session_id(), "session_key": key.session_key().to_base64(),
        }}));
        liar.megolm = key;
        json!({ "type": "m.room.encrypted", "sender": ALICE, "content": content })
    };
    let mut results = Vec::new();
    results.push(opens(&homeserver, &ghost_device, &mut liar, ALICE, &[megolm_in_megolm]).await);

    for kind in ["m.room_key in the clear", "m.forwarded_room_key", "bundle"] {
        liar.megolm = GroupSession::new(SessionConfig::version_1());
        let message = match kind {
            "m.room_key in the clear" => {
                json!({ "type": "m.room_key", "sender": ALICE, "content": liar.room_key() })
            }
            // CVE-2022-39252.
            "m.forwarded_room_key" => {
                let forwarded = forwarded_key(&liar, &homeserver);
                liar.whisper(HONEST, "m.forwarded_room_key", &forwarded)
            }
            _ => liar.whisper(HONEST, "io.element.msc4268.room_key_bundle", &bundle()),
        };
        results.push(opens(&homeserver, &ghost_device, &mut liar, ALICE, &[message]).await);
    }
    let opened = results.iter().filter(|result| result.is_ok()).count();
    println!("safety: unasked_keys: {opened} of {} opened an event", results.len());
    for result in results {
        assert_matches!(result.err(), Some(DecryptError::MissingRoomKey { withheld: None }));
    }

    // The ghost goes on as before.
    let event = send(&homeserver, &alice_device, ghost(), "really from Alice").await;
    assert!(is_believed(&receive(&homeserver, &ghost_device, alice(), &event).await));
    assert!(ghost_device.decrypt(room(), &raw(&event)).await.is_ok());
}

/// The liar's room key, forwarded as if it were Alice's.
fn forwarded_key(liar: &Liar, homeserver: &Homeserver) -> Value {
    let mut query = ruma::api::client::keys::get_keys::v3::Request::new();
    query.device_keys.insert(alice().to_owned(), Vec::new());
    let known = homeserver.answer(mallory(), device_id!("LIAR"), RequestBody::KeysQuery(query));
    let Response::KeysQuery(known) = known else { unreachable!() };
    let keys = known.device_keys[alice()][device_id!("ALICE")].json().get().to_owned();
    let keys: Value = serde_json::from_str(&keys).unwrap();
    let exported = vodozemac::megolm::InboundGroupSession::new(
        &liar.megolm.session_key(),
        SessionConfig::version_1(),
    )
    .export_at(0)
    .unwrap();
    json!({
        "algorithm": "m.megolm.v1.aes-sha2",
        "room_id": room(),
        "session_id": liar.megolm.session_id(),
        "session_key": exported.to_base64(),
        "sender_key": keys["keys"]["curve25519:ALICE"],
        "sender_claimed_ed25519_key": keys["keys"]["ed25519:ALICE"],
        "forwarding_curve25519_key_chain": [],
    })
}

fn bundle() -> Value {
    json!({ "room_id": room(), "file": {
        "url": "mxc://example.org/bundle",
        "key": { "kty": "oct", "key_ops": ["encrypt", "decrypt"], "alg": "A256CTR",
            "k": "aWF6-32KGYaC3A_FEUCk1Bt0JA37zP0wrStgmdCaW-0", "ext": true },
        "iv": "w+sE15fzSc0AAAAAAAAAAA",
        "hashes": { "sha256": "fdSLu/YkRx3Wyh3KQabP3rd6+SFiKg5lsJZQHtkSAYA" },
        "v": "v2",
    }})
}
