//! Room events and messages to devices that are not what the homeserver says.

use anyhow::{Context, Result};
use axum::http::Method;
use serde_json::{Value, json};
use tests::evil_hs::Rule;
use tests::{Namespace, RustUser};
use vodozemac::megolm::{GroupSession, InboundGroupSession, SessionConfig};

use super::{PATIENCE, as_sent_by, field_is};
use crate::Chat;

/// CVE-2025-48937: the homeserver changes the sender of an event, and with it also that of the message that brings its
/// room key.
#[tokio::test]
async fn what_others_write_is_not_bridged_under_a_persons_name() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("spoofed-sender").await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "Before").await?;
    bob.receives("Before").await?;
    let mallory = RustUser::start(&world.homeserver, "mallory").await?;
    let eve = RustUser::start(&world.homeserver, "eve").await?;
    for guest in [&mallory, &eve] {
        alice.invite(room, guest.user_id()).await?;
    }
    let mallorys = mallory.accept_invitation_from(alice.user_id()).await?;
    let eves = eve.accept_invitation_from(alice.user_id()).await?;
    for guest in [&mallory, &eve] {
        alice.sees_join(room, guest.user_id()).await?;
    }

    let spoofed = evil.obey(as_sent_by(alice.user_id(), mallory.user_id()));
    mallory.send(&mallorys, "I am Alice").await?;
    spoofed.applied(1).await?;
    alice.send(room, "Between").await?;
    bob.receives("Between").await?;

    let spoofed_event = evil.obey(as_sent_by(alice.user_id(), eve.user_id()));
    let (whom, instead_of) = (alice.user_id().to_owned(), eve.user_id().to_owned());
    let spoofed_key = evil.obey(Rule::rewrite_answers(Method::GET, "/sync", move |answer| {
        let events = answer.pointer_mut("/to_device/events").and_then(Value::as_array_mut);
        let from_eve = |event: &&mut Value| field_is(event, "sender", &instead_of);
        let spoofed = events.into_iter().flatten().filter(from_eve);
        spoofed.map(|event| event["sender"] = json!(whom)).count() > 0
    }));
    eve.send(&eves, "I am Alice, too").await?;
    spoofed_event.applied(1).await?;
    spoofed_key.applied(1).await?;
    alice.send(room, "After").await?;
    bob.receives_within("After", PATIENCE).await?;

    bob.send(&chat.alices_jid(), "For Alice only", Namespace::Omemo2).await?;
    alice.receives("For Alice only").await?;
    let keys = [&mallory, &eve].map(|guest| guest.device_id());
    let mut keys_to_guests = 0;
    for device in keys {
        keys_to_guests += evil.room_keys_to(&device?);
    }
    let forged = bob.messages().iter().filter(|shown| shown.body.contains("I am Alice")).count();
    println!("safety: spoofed_senders: {forged} of 2 bridged");
    println!("safety: keys_to_other_members: {keys_to_guests} room keys to 2 other members");
    assert_eq!((forged, keys_to_guests), (0, 0));
    let texts = bob.texts_from(&chat.alices_jid());
    assert_eq!(texts, ["Before", "Between", "After"]);
    chat.end().await
}

/// CVE-2022-39251, CVE-2022-39252: keys of a session that the homeserver has made, as messages to the ghost's device in
/// Alice's name: in the clear, as if the ghost had asked for them, and as a bundle of a room's history.
fn unasked_keys(from: &str, event: &Value, session: &GroupSession) -> Result<Vec<Value>> {
    let (room, sender_key) = (event.pointer("/room_id"), event.pointer("/content/sender_key"));
    let mut inbound = InboundGroupSession::new(&session.session_key(), SessionConfig::version_1());
    let (algorithm, session_id) = ("m.megolm.v1.aes-sha2", session.session_id());
    let exported = inbound.export_at(0).context("the session is new")?.to_base64();
    let to_device =
        |kind: &str, content: Value| json!({ "type": kind, "sender": from, "content": content });
    Ok(vec![
        to_device(
            "m.room_key",
            json!({
                "algorithm": algorithm, "room_id": room, "session_id": session_id,
                "session_key": session.session_key().to_base64(),
            }),
        ),
        to_device(
            "m.forwarded_room_key",
            json!({
                "algorithm": algorithm, "room_id": room, "session_id": session_id,
                "session_key": exported, "sender_key": sender_key,
                "sender_claimed_ed25519_key": sender_key, "forwarding_curve25519_key_chain": [],
            }),
        ),
        to_device(
            "io.element.msc4268.room_key_bundle",
            json!({ "room_id": room, "file": {
                "url": "mxc://localhost/bundle", "v": "v2", "iv": "AAAAAAAAAAAAAAAAAAAAAA",
                "key": {
                    "kty": "oct", "alg": "A256CTR", "ext": true, "key_ops": ["encrypt", "decrypt"],
                    "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                },
                "hashes": { "sha256": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" },
            } }),
        ),
    ])
}

#[tokio::test]
async fn keys_that_the_homeserver_gives_open_nothing() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("unasked-keys").await?;
    let Chat { world, alice, bob, room } = &chat;
    let id = alice.send(room, "Before").await?;
    bob.receives("Before").await?;
    let original = evil.pushed_event(&id).await?;
    let mut session = GroupSession::new(SessionConfig::version_1());
    let keys = unasked_keys(alice.user_id(), &original, &session)?;
    let number = keys.len();

    let given = Rule::rewrite_answers(Method::GET, "/sync", move |answer| {
        let Some(answer) = answer.as_object_mut() else { return false };
        let to_device = answer.entry("to_device").or_insert_with(|| json!({}));
        let events = to_device["events"].as_array().cloned().unwrap_or_default();
        to_device["events"] = events.into_iter().chain(keys.clone()).collect();
        true
    });
    let given = evil.obey(given.by(&chat.ghost()));
    // The ghost looks into its inbox before it speaks.
    bob.send(&chat.alices_jid(), "The ghost speaks", Namespace::Omemo2).await?;
    given.applied(1).await?;
    alice.receives("The ghost speaks").await?;

    let text = json!({ "msgtype": "m.text", "body": "I am Alice" });
    let plaintext = json!({ "type": "m.room.message", "room_id": room, "content": text });
    let mut forged = original.clone();
    forged["event_id"] = json!("$forged");
    forged["content"]["session_id"] = json!(session.session_id());
    forged["content"]["ciphertext"] = json!(session.encrypt(plaintext.to_string()).to_base64());
    assert!(evil.push(&world.bridge, &[forged]).await?.is_success());
    alice.send(room, "After").await?;
    bob.receives_within("After", PATIENCE).await?;
    // It was looked at.
    alice.hears(&world.bridge.bot(), "could not be decrypted").await?;
    let opened = chat.times_at_bob("I am Alice");
    println!("safety: keys_that_were_given: {number} keys given, {opened} of 1 messages opened");
    assert_eq!(opened, 0);
    assert_eq!(bob.texts_from(&chat.alices_jid()), ["Before", "After"]);
    chat.end().await
}

#[tokio::test]
async fn a_replayed_message_is_bridged_once() -> Result<()> {
    let (mut chat, evil) = Chat::open_under_an_evil_homeserver("replays").await?;
    let carol = chat.world.omemo_user("carol").await?;
    let carols_ghost = chat.world.ghost_of(carol.jid());
    let carols_room = chat.alice.create_chat_with(&carols_ghost).await?;
    chat.alice.sees_join(&carols_room, &carols_ghost).await?;
    let id = chat.alice.send(&chat.room, "Once").await?;
    chat.bob.receives("Once").await?;

    let original = evil.pushed_event(&id).await?;
    let altered = |fields: Value| {
        let mut event = original.clone();
        for (field, value) in fields.as_object().into_iter().flatten() {
            event[field] = value.clone();
        }
        event
    };
    let later = original["origin_server_ts"].as_i64().unwrap_or_default() + 1;
    let mut replays = vec![
        original.clone(),
        altered(json!({ "event_id": "$new" })),
        altered(json!({ "event_id": "$later", "origin_server_ts": later })),
        altered(json!({ "origin_server_ts": later })),
        altered(json!({ "event_id": "$elsewhere", "room_id": carols_room })),
    ];
    for replay in &replays {
        assert!(evil.push(&chat.world.bridge, std::slice::from_ref(replay)).await?.is_success());
    }
    chat.world.bridge.stop().await?;
    chat.world.bridge.run_connected().await?;
    let after_restart = [original.clone(), altered(json!({ "event_id": "$restarted" }))];
    assert!(evil.push(&chat.world.bridge, &after_restart).await?.is_success());
    replays.extend(after_restart);

    chat.alice.send(&chat.room, "After").await?;
    chat.bob.receives_within("After", PATIENCE).await?;
    chat.alice.send(&carols_room, "For Carol").await?;
    carol.receives_within("For Carol", PATIENCE).await?;
    let alices = chat.alices_jid();
    let elsewhere = carol.texts_from(&alices).iter().filter(|text| *text == "Once").count();
    let times = chat.times_at_bob("Once");
    println!(
        "safety: replays: {} replays: bridged {times} time, elsewhere {elsewhere}",
        replays.len()
    );
    assert_eq!((times, elsewhere, chat.bob.undecryptable()), (1, 0, 0));
    assert_eq!(chat.bob.texts_from(&alices), ["Once", "After"]);
    chat.end().await
}

#[tokio::test]
async fn a_relation_outside_the_ciphertext_makes_no_edit() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("outer-relation").await?;
    let Chat { alice, bob, room, .. } = &chat;
    let first = alice.send(room, "Pay Bob").await?;
    bob.receives("Pay Bob").await?;
    let relations = [
        json!({ "rel_type": "m.replace", "event_id": first }),
        json!({ "m.in_reply_to": { "event_id": first } }),
    ];
    for (number, relation) in relations.into_iter().enumerate() {
        let related = evil.obey(Rule::rewrite_events(move |event| {
            let is_it = field_is(event, "type", "m.room.encrypted");
            if is_it {
                event["content"]["m.relates_to"] = relation.clone();
            }
            is_it
        }));
        let text = format!("Pay Carol {number}");
        alice.send(room, &text).await?;
        related.applied(1).await?;
        bob.receives(&text).await?;
    }
    let texts = bob.texts_from(&chat.alices_jid());
    println!("safety: outer_relations: 2 relations made 0 edits, {} messages shown", texts.len());
    assert_eq!(texts, ["Pay Bob", "Pay Carol 0", "Pay Carol 1"]);
    chat.end().await
}

/// Delayed, repeated after a lost answer, and refused: each message, under a room key of its own, arrives once and in
/// order. What that rests on is shown by the test below.
#[tokio::test]
async fn delayed_repeated_and_refused_transactions_change_nothing() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("delays").await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "1").await?;
    bob.receives("1").await?;
    let held = evil.obey(Rule::hold_transactions().times(1));
    let say = async |text: &str| {
        alice.discard_room_key(room).await?;
        alice.send(room, text).await
    };
    say("2").await?;
    held.applied(1).await?;
    say("3").await?;
    assert_eq!(chat.times_at_bob("3"), 0, "it overtook what is held");
    drop(held);
    bob.receives("3").await?;
    for (rule, text) in
        [(Rule::lose_answers_to_transactions(), "4"), (Rule::refuse_transactions(), "5")]
    {
        let order = evil.obey(rule.times(1));
        say(text).await?;
        order.applied(1).await?;
        bob.receives(text).await?;
    }
    say("6").await?;
    bob.receives("6").await?;
    let texts = bob.texts_from(&chat.alices_jid());
    println!("safety: transactions: {} of 6 messages, in order", texts.len());
    assert_eq!(texts, ["1", "2", "3", "4", "5", "6"]);
    chat.end().await
}

/// The homeserver gives messages for devices away once, along with the transaction, and not again to whoever asks: so it
/// is where a bridge has only what is pushed to it. The room key that came with a refused transaction is gone.
#[tokio::test]
async fn where_room_keys_come_only_with_the_transaction_a_refused_one_costs_a_message() -> Result<()>
{
    let (chat, evil) = Chat::open_under_an_evil_homeserver("pushed-keys-only").await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "1").await?;
    bob.receives("1").await?;
    let given_away = evil.obey(Rule::rewrite_answers(Method::GET, "/sync", |answer| {
        let events = answer.pointer_mut("/to_device/events").and_then(Value::as_array_mut);
        events.is_some_and(|events| !std::mem::take(events).is_empty())
    }));
    let refused = evil.obey(Rule::refuse_transactions().times(1));
    alice.discard_room_key(room).await?;
    alice.send(room, "2").await?;
    refused.applied(1).await?;
    let says = |text: Option<&str>| text.unwrap_or_default().contains("could not be decrypted");
    alice.message_where(PATIENCE, |message| says(message.body.as_deref())).await?;
    // The ghost and the bot have a room key each.
    given_away.applied(2).await?;
    drop(given_away);
    alice.discard_room_key(room).await?;
    alice.send(room, "3").await?;
    bob.receives_within("3", PATIENCE).await?;
    let texts = bob.texts_from(&chat.alices_jid());
    println!("safety: transactions_control: {} of 3 messages undecryptable", 3 - texts.len());
    assert_eq!(texts, ["1", "3"]);
    chat.end().await
}
