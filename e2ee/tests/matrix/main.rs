//! Devices of people and of ghosts against each other, as they would be in real rooms.

#![expect(
    clippy::panic,
    clippy::string_slice,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod forgeries;
mod homeserver;
mod resets;
mod room_keys;
mod verification;
mod wedged;

use std::{collections::BTreeSet, sync::Arc};

use assert_matches::assert_matches;
use e2ee::matrix::{
    DecryptError, DeviceRole, EncryptError, Machine, MachineError, RoomKeySettings, SenderTrust,
};
use homeserver::Homeserver;
use matrix_sdk_crypto::{
    CollectStrategy, DecryptionSettings, EncryptionSettings, EncryptionSyncChanges, OlmMachine,
    TrustRequirement, store::MemoryStore,
};
use ruma::{
    DeviceId, OwnedUserId, RoomId, UserId, device_id,
    events::room::{encryption::RoomEncryptionEventContent, history_visibility::HistoryVisibility},
    room_id,
    serde::JsonObject,
    user_id,
};
use serde_json::{Value, json, value::RawValue};

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

fn ghost() -> &'static UserId {
    user_id!("@xmpp_bob=40example.net:example.org")
}

fn mallory() -> &'static UserId {
    user_id!("@mallory:example.org")
}

fn room() -> &'static RoomId {
    room_id!("!portal:example.org")
}

fn settings() -> RoomKeySettings {
    let algorithm = ruma::EventEncryptionAlgorithm::MegolmV1AesSha2;
    RoomKeySettings {
        encryption: RoomEncryptionEventContent::new(algorithm),
        visibility: HistoryVisibility::Shared,
    }
}

fn users<const N: usize>(users: [&UserId; N]) -> BTreeSet<OwnedUserId> {
    users.into_iter().map(ToOwned::to_owned).collect()
}

fn text(body: &str) -> JsonObject {
    serde_json::from_value(json!({ "msgtype": "m.text", "body": body })).unwrap()
}

async fn load(user: &UserId, device: &DeviceId, store: Arc<MemoryStore>) -> Machine {
    Machine::load(user, device, store, DeviceRole::Full).await.unwrap()
}

/// A device with an identity, published.
async fn person(homeserver: &Homeserver, user: &UserId, device: &DeviceId) -> Machine {
    let machine = load(user, device, Arc::new(MemoryStore::new())).await;
    publish(homeserver, &machine).await;
    machine
}

async fn publish(homeserver: &Homeserver, machine: &Machine) {
    let requests = machine.publication().await.unwrap();
    homeserver.carry(machine, requests).await;
    homeserver.settle(machine).await;
    assert!(machine.is_published().await.unwrap());
}

/// Alice and a ghost that know each other.
async fn alice_and_ghost(homeserver: &Homeserver) -> (Machine, Machine) {
    let alice_device = person(homeserver, alice(), device_id!("ALICE")).await;
    let ghost_device = person(homeserver, ghost(), device_id!("GHOST")).await;
    (alice_device, ghost_device)
}

/// Shares and encrypts as a careful sender does, and returns the event.
async fn send(homeserver: &Homeserver, from: &Machine, to: &UserId, body: &str) -> Value {
    send_content(homeserver, from, to, text(body)).await
}

async fn send_content(
    homeserver: &Homeserver,
    from: &Machine,
    to: &UserId,
    content: JsonObject,
) -> Value {
    let to = users([to]);
    homeserver.sync(from).await;
    from.track(&to).await.unwrap();
    homeserver.settle(from).await;
    if let Some(claim) = from.claim(&to).await.unwrap() {
        homeserver.carry(from, vec![claim]).await;
    }
    let requests = from.share(room(), &to, &settings()).await.unwrap();
    homeserver.carry(from, requests).await;
    let encrypted = from.encrypt(room(), "m.room.message", &content).await.unwrap();
    event(from.user_id(), &encrypted.into_json())
}

fn event(sender: &UserId, content: &str) -> Value {
    json!({
        "type": "m.room.encrypted",
        "event_id": "$event",
        "room_id": room(),
        "sender": sender,
        "origin_server_ts": 1_700_000_000_000_u64,
        "content": serde_json::from_str::<Value>(content).unwrap(),
    })
}

fn raw(event: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(event).unwrap()
}

/// Syncs, learns who the sender is, and opens the event.
async fn receive(
    homeserver: &Homeserver,
    by: &Machine,
    from: &UserId,
    event: &Value,
) -> Result<e2ee::matrix::DecryptedEvent, DecryptError> {
    homeserver.sync(by).await;
    by.track(&users([from])).await.unwrap();
    homeserver.settle(by).await;
    by.decrypt(room(), &raw(event)).await
}

/// A device that its owner has not signed, with the library's lax defaults.
async fn unsigned(homeserver: &Homeserver, user: &UserId, device: &DeviceId) -> OlmMachine {
    let machine = OlmMachine::new(user, device).await;
    pump(homeserver, &machine).await;
    machine
}

/// Carries what a bare library machine wants to send.
async fn pump(homeserver: &Homeserver, machine: &OlmMachine) {
    use e2ee::matrix::{RequestBody, Response};
    use matrix_sdk_crypto::types::requests::AnyOutgoingRequest;

    for request in machine.outgoing_requests().await.unwrap() {
        let body = match request.request() {
            AnyOutgoingRequest::KeysUpload(body) => RequestBody::KeysUpload(body.clone()),
            AnyOutgoingRequest::KeysQuery(query) => {
                let mut body = ruma::api::client::keys::get_keys::v3::Request::new();
                body.device_keys = query.device_keys.clone();
                RequestBody::KeysQuery(body)
            }
            other => panic!("unexpected {other:?}"),
        };
        match homeserver.answer(machine.user_id(), machine.device_id(), body) {
            Response::KeysUpload(answer) => {
                machine.mark_request_as_sent(request.request_id(), &answer).await.unwrap();
            }
            Response::KeysQuery(answer) => {
                machine.mark_request_as_sent(request.request_id(), &answer).await.unwrap();
            }
            _ => unreachable!(),
        }
    }
}

/// Sends from a bare library machine to every device.
async fn send_laxly(homeserver: &Homeserver, from: &OlmMachine, to: &UserId, body: &str) -> Value {
    use e2ee::matrix::{RequestBody, Response};
    use ruma::api::client::to_device::send_event_to_device::v3::Request as ToDevice;

    from.update_tracked_users([to]).await.unwrap();
    pump(homeserver, from).await;
    if let Some((id, claim)) = from.get_missing_sessions([to].into_iter()).await.unwrap() {
        let body = RequestBody::KeysClaim(claim);
        let Response::KeysClaim(answer) = homeserver.answer(from.user_id(), from.device_id(), body)
        else {
            unreachable!()
        };
        from.mark_request_as_sent(&id, &answer).await.unwrap();
    }
    let lax = EncryptionSettings {
        sharing_strategy: CollectStrategy::AllDevices,
        ..EncryptionSettings::default()
    };
    for request in from.share_room_key(room(), [to].into_iter(), lax).await.unwrap() {
        let body = ToDevice::new_raw(
            request.event_type.clone(),
            request.txn_id.clone(),
            request.messages.clone(),
        );
        let body = RequestBody::ToDevice(body);
        let Response::ToDevice(answer) = homeserver.answer(from.user_id(), from.device_id(), body)
        else {
            unreachable!()
        };
        from.mark_request_as_sent(&request.txn_id, &answer).await.unwrap();
    }
    let content = ruma::serde::Raw::new(&text(body)).unwrap().cast_unchecked();
    let encrypted = from.encrypt_room_event_raw(room(), "m.room.message", &content).await.unwrap();
    event(from.user_id(), encrypted.content.json().get())
}

#[tokio::test]
async fn alice_and_a_ghost_talk_and_each_sees_a_signed_device() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;

    let question = send(&homeserver, &alice_device, ghost(), "how are you?").await;
    let opened = receive(&homeserver, &ghost_device, alice(), &question).await.unwrap();
    assert_eq!(opened.content["body"], "how are you?");
    assert_eq!(opened.sender, alice());
    let master_key = alice_device.own_master_key().await.unwrap().unwrap();
    assert_eq!(
        opened.trust,
        SenderTrust::Signed { master_key, master_key_now: None, is_verified: false }
    );

    let answer = send(&homeserver, &ghost_device, alice(), "fine").await;
    let opened = receive(&homeserver, &alice_device, ghost(), &answer).await.unwrap();
    assert_eq!(opened.content["body"], "fine");
    assert_matches!(opened.trust, SenderTrust::Signed { is_verified: false, .. });
}

#[tokio::test]
async fn each_message_has_its_own_place_and_a_replay_has_the_old_one() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;
    let first = send(&homeserver, &alice_device, ghost(), "one").await;
    let second = send(&homeserver, &alice_device, ghost(), "two").await;
    let mut replayed = first.clone();
    replayed["event_id"] = json!("$other");

    let first = receive(&homeserver, &ghost_device, alice(), &first).await.unwrap();
    let second = receive(&homeserver, &ghost_device, alice(), &second).await.unwrap();
    let replayed = receive(&homeserver, &ghost_device, alice(), &replayed).await.unwrap();
    assert_eq!((first.message_index, second.message_index), (0, 1));
    assert_eq!((replayed.session_id, replayed.message_index), (first.session_id, 0));
}

#[tokio::test]
async fn an_event_under_another_sender_is_forged() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;
    let _mallory = person(&homeserver, mallory(), device_id!("MALLORY")).await;
    let mut event = send(&homeserver, &alice_device, ghost(), "from alice").await;
    event["sender"] = json!(mallory());
    let result = receive(&homeserver, &ghost_device, mallory(), &event).await;
    assert_matches!(result.err(), Some(DecryptError::Forged));
}

#[tokio::test]
async fn an_unsigned_device_gets_no_room_key_and_its_messages_say_so() {
    let homeserver = Homeserver::default();
    let (_, ghost_device) = alice_and_ghost(&homeserver).await;
    let unsigned_device = unsigned(&homeserver, alice(), device_id!("UNSIGNED")).await;

    let event = send(&homeserver, &ghost_device, alice(), "secret").await;
    let recipient = ghost_device.recipient(alice()).await.unwrap();
    assert_eq!((recipient.signed_devices, recipient.reachable_devices), (1, 1));
    let inbox = homeserver.small_sync(alice(), device_id!("UNSIGNED"));
    let kinds: Vec<String> = inbox
        .to_device
        .events
        .iter()
        .map(|event| event.get_field("type").unwrap().unwrap())
        .collect();
    assert_eq!(kinds, ["m.room_key.withheld"]);
    let lax = DecryptionSettings { sender_device_trust_requirement: TrustRequirement::Untrusted };
    let changes = EncryptionSyncChanges {
        to_device_events: inbox.to_device.events,
        changed_devices: &inbox.device_lists,
        one_time_keys_counts: &inbox.device_one_time_keys_count,
        unused_fallback_keys: None,
        next_batch_token: None,
    };
    unsigned_device.receive_sync_changes(changes, &lax).await.unwrap();
    let event: ruma::serde::Raw<_> = ruma::serde::Raw::from_json(raw(&event));
    assert!(unsigned_device.decrypt_room_event(&event, room(), &lax).await.is_err());

    let event = send_laxly(&homeserver, &unsigned_device, ghost(), "from nowhere").await;
    let opened = receive(&homeserver, &ghost_device, alice(), &event).await.unwrap();
    assert_eq!(opened.trust, SenderTrust::Unsigned);
}

#[tokio::test]
async fn somebody_without_an_identity_is_told_apart() {
    let homeserver = Homeserver::default();
    let ghost_device = person(&homeserver, ghost(), device_id!("GHOST")).await;
    let _unsigned = unsigned(&homeserver, alice(), device_id!("UNSIGNED")).await;
    ghost_device.track(&users([alice()])).await.unwrap();
    homeserver.settle(&ghost_device).await;
    let recipient = ghost_device.recipient(alice()).await.unwrap();
    assert_eq!(recipient.identity, None);
    assert_eq!(recipient.signed_devices, 0);
}

#[tokio::test]
async fn a_device_is_reachable_once_there_is_a_session_with_it() {
    let homeserver = Homeserver::default();
    let (_, ghost_device) = alice_and_ghost(&homeserver).await;
    let to = users([alice()]);
    ghost_device.track(&to).await.unwrap();
    homeserver.settle(&ghost_device).await;
    let recipient = ghost_device.recipient(alice()).await.unwrap();
    assert_eq!((recipient.signed_devices, recipient.reachable_devices), (1, 0));

    let claim = ghost_device.claim(&to).await.unwrap().unwrap();
    homeserver.carry(&ghost_device, vec![claim]).await;
    let recipient = ghost_device.recipient(alice()).await.unwrap();
    assert_eq!((recipient.signed_devices, recipient.reachable_devices), (1, 1));
}

#[tokio::test]
async fn a_new_identity_needs_approval_until_it_has_it() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;
    send(&homeserver, &ghost_device, alice(), "before").await;
    let before = ghost_device.recipient(alice()).await.unwrap().identity.unwrap();
    assert!(!before.needs_approval);
    drop(alice_device);

    homeserver.reset(alice());
    let _new = person(&homeserver, alice(), device_id!("NEW")).await;
    homeserver.sync(&ghost_device).await;
    let after = ghost_device.recipient(alice()).await.unwrap().identity.unwrap();
    assert!(after.needs_approval);
    assert_ne!(after.master_key, before.master_key);

    ghost_device.approve(alice()).await.unwrap();
    let approved = ghost_device.recipient(alice()).await.unwrap().identity.unwrap();
    assert!(!approved.needs_approval);
}

#[tokio::test]
async fn a_room_key_in_the_clear_opens_nothing() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;
    let event = send(&homeserver, &alice_device, mallory(), "not for the ghost").await;
    let session_id = event["content"]["session_id"].clone();
    let forged = vodozemac::megolm::GroupSession::new(Default::default());
    homeserver.put_into_inbox(
        ghost(),
        device_id!("GHOST"),
        json!({ "type": "m.room_key", "sender": alice(), "content": {
            "algorithm": "m.megolm.v1.aes-sha2", "room_id": room(), "session_id": session_id,
            "session_key": forged.session_key().to_base64(),
        }}),
    );
    let result = receive(&homeserver, &ghost_device, alice(), &event).await;
    assert_matches!(result.err(), Some(DecryptError::MissingRoomKey { withheld: None }));
}

#[tokio::test]
async fn the_reason_for_a_withheld_key_comes_along() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;
    let event = send(&homeserver, &alice_device, mallory(), "not for the ghost").await;
    homeserver.put_into_inbox(
        ghost(),
        device_id!("GHOST"),
        json!({ "type": "m.room_key.withheld", "sender": alice(), "content": {
            "algorithm": "m.megolm.v1.aes-sha2", "code": "m.unverified", "room_id": room(),
            "session_id": event["content"]["session_id"], "reason": "",
            "sender_key": event["content"]["sender_key"],
        }}),
    );
    let outcome = homeserver.sync(&ghost_device).await;
    assert!(outcome.rooms.contains(room()), "who waits for the key is told");
    let result = receive(&homeserver, &ghost_device, alice(), &event).await;
    assert_matches!(result.err(), Some(DecryptError::MissingRoomKey { withheld: Some(code) })
        if code.as_str() == "m.unverified");
}

#[tokio::test]
async fn a_relation_counts_only_from_inside() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;
    let relation = json!({ "rel_type": "m.replace", "event_id": "$victim" });
    let reply = json!({ "m.in_reply_to": { "event_id": "$victim" } });
    let mut edit = text("* new");
    edit.insert("m.new_content".to_owned(), json!({ "msgtype": "m.text", "body": "new" }));
    let mut inside = text("a reply");
    inside.insert("m.relates_to".to_owned(), reply.clone());

    for (content, outer, expected) in [
        (text("plain"), Some(relation.clone()), None),
        (text("plain"), Some(reply.clone()), None),
        (edit.clone(), Some(relation.clone()), Some(relation)),
        (edit, Some(reply.clone()), None),
        (inside, None, Some(reply)),
    ] {
        let mut event = send_content(&homeserver, &alice_device, ghost(), content).await;
        match outer {
            Some(outer) => event["content"]["m.relates_to"] = outer,
            None => drop(event["content"].as_object_mut().unwrap().remove("m.relates_to")),
        }
        let opened = receive(&homeserver, &ghost_device, alice(), &event).await.unwrap();
        assert_eq!(opened.content.get("m.relates_to"), expected.as_ref());
    }
}

#[tokio::test]
async fn an_event_moved_to_another_room_stays_closed() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;
    let event = send(&homeserver, &alice_device, ghost(), "here").await;
    receive(&homeserver, &ghost_device, alice(), &event).await.unwrap();
    let elsewhere = room_id!("!other:example.org");
    let result = ghost_device.decrypt(elsewhere, &raw(&event)).await;
    assert_matches!(result.err(), Some(DecryptError::MissingRoomKey { .. }));
}

#[tokio::test]
async fn damaged_events_are_refused() {
    let homeserver = Homeserver::default();
    let (alice_device, ghost_device) = alice_and_ghost(&homeserver).await;
    let event = send(&homeserver, &alice_device, ghost(), "whole").await;
    receive(&homeserver, &ghost_device, alice(), &event).await.unwrap();
    let mut flipped = event.clone();
    let ciphertext = flipped["content"]["ciphertext"].as_str().unwrap();
    let swapped = if ciphertext.ends_with('A') { "g" } else { "A" };
    let damaged = format!("{}{swapped}", &ciphertext[..ciphertext.len() - 1]);
    flipped["content"]["ciphertext"] = json!(damaged);
    let mut unknown = event.clone();
    unknown["content"]["algorithm"] = json!("m.olm.v1.curve25519-aes-sha2");
    let mut empty = event;
    empty["content"] = json!({});
    for damaged in [flipped, unknown, empty, json!({}), json!([]), json!(1)] {
        let result = ghost_device.decrypt(room(), &raw(&damaged)).await;
        assert_matches!(result.err(), Some(DecryptError::Malformed(_)), "{damaged}");
    }
}

#[tokio::test]
async fn what_a_crash_interrupts_goes_on_after_it() {
    let homeserver = Homeserver::default();
    let alice_device = person(&homeserver, alice(), device_id!("ALICE")).await;
    let store = Arc::new(MemoryStore::new());

    let first = load(ghost(), device_id!("GHOST"), store.clone()).await;
    let requests = first.publication().await.unwrap();
    let identity = first.own_master_key().await.unwrap();
    homeserver.carry(&first, requests.into_iter().take(1).collect()).await;
    drop(first);
    let second = load(ghost(), device_id!("GHOST"), store.clone()).await;
    publish(&homeserver, &second).await;
    assert_eq!(second.own_master_key().await.unwrap(), identity, "the identity is made once");

    let to = users([alice()]);
    second.track(&to).await.unwrap();
    homeserver.settle(&second).await;
    let claim = second.claim(&to).await.unwrap().unwrap();
    homeserver.carry(&second, vec![claim]).await;
    let unsent = second.share(room(), &to, &settings()).await.unwrap();
    assert_eq!(unsent.len(), 1);
    drop(second);
    let third = load(ghost(), device_id!("GHOST"), store.clone()).await;
    let event = send(&homeserver, &third, alice(), "after the crash").await;
    let opened = receive(&homeserver, &alice_device, ghost(), &event).await.unwrap();
    assert_eq!(opened.content["body"], "after the crash");
}

#[tokio::test]
async fn a_room_key_and_the_place_of_the_next_sync_are_stored() {
    let homeserver = Homeserver::default();
    let alice_device = person(&homeserver, alice(), device_id!("ALICE")).await;
    let store = Arc::new(MemoryStore::new());
    let ghost_device = load(ghost(), device_id!("GHOST"), store.clone()).await;
    publish(&homeserver, &ghost_device).await;
    let event = send(&homeserver, &alice_device, ghost(), "kept").await;
    let outcome = homeserver.sync(&ghost_device).await;
    assert!(outcome.rooms.contains(room()));
    let token = ghost_device.sync_token().await.unwrap();
    assert!(token.is_some());
    drop(ghost_device);

    let reloaded = load(ghost(), device_id!("GHOST"), store).await;
    assert_eq!(reloaded.sync_token().await.unwrap(), token);
    let opened = receive(&homeserver, &reloaded, alice(), &event).await.unwrap();
    assert_eq!(opened.content["body"], "kept");
}

#[tokio::test]
async fn one_time_keys_are_made_again_when_they_run_out() {
    let homeserver = Homeserver::default();
    let ghost_device = person(&homeserver, ghost(), device_id!("GHOST")).await;
    for number in 0..60 {
        let name = format!("D{number}");
        let writer = unsigned(&homeserver, mallory(), name.as_str().into()).await;
        send_laxly(&homeserver, &writer, ghost(), "hello").await;
    }
    homeserver.sync(&ghost_device).await;
    let left = homeserver.small_sync(ghost(), device_id!("GHOST")).device_one_time_keys_count;
    assert_eq!(left.values().next(), Some(&50_u32.into()));
}

#[tokio::test]
async fn send_only_devices_are_not_made_yet() {
    let store = MemoryStore::new();
    let result = Machine::load(ghost(), device_id!("GHOST"), store, DeviceRole::SendOnly).await;
    assert_matches!(result.err(), Some(MachineError::Refused(_)));
}
