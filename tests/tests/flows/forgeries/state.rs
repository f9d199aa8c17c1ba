//! Rooms whose encryption the homeserver denies.

use anyhow::Result;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tests::evil_hs::Rule;
use tests::{Namespace, World};

use super::PATIENCE;
use crate::Chat;

const ENCRYPTION: &str = "/state/m.room.encryption";

/// Encryption that is none.
fn weak() -> Value {
    json!({ "algorithm": "m.none" })
}

/// The homeserver says that a room is not encrypted, or not any more with what it was.
fn denials() -> [Rule; 2] {
    let not_found = json!({ "errcode": "M_NOT_FOUND", "error": "no such state" });
    let denied = |status, body| Rule::answer(Method::GET, ENCRYPTION, status, body);
    [denied(StatusCode::NOT_FOUND, not_found), denied(StatusCode::OK, weak())]
}

/// The same where it tells all state of the room, and what it then says that was set.
fn denials_in_state() -> [(Rule, Value); 2] {
    let is_encryption =
        |event: &Value| event.get("type").is_some_and(|kind| kind == "m.room.encryption");
    let removed = Rule::rewrite_answers(Method::GET, "/state", move |state| {
        let Some(events) = state.as_array_mut() else { return false };
        let all = events.len();
        events.retain(|event| !is_encryption(event));
        events.len() < all
    });
    let replaced = Rule::rewrite_answers(Method::GET, "/state", move |state| {
        let events = state.as_array_mut().into_iter().flatten();
        let Some(event) = events.into_iter().find(|event| is_encryption(event)) else {
            return false;
        };
        event["content"] = weak();
        true
    });
    [(removed, json!({})), (replaced, weak())]
}

#[tokio::test]
async fn a_portal_stays_encrypted_whatever_the_homeserver_says() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("denied-encryption").await?;
    let Chat { world, alice, bob, room } = &chat;
    bob.send(&chat.alices_jid(), "Before", Namespace::Omemo2).await?;
    alice.receives("Before").await?;

    for (number, (rule, content)) in denials_in_state().into_iter().enumerate() {
        let denied = evil.obey(rule);
        let event = json!({
            "type": "m.room.encryption", "state_key": "", "event_id": format!("$denied{number}"),
            "room_id": room, "sender": alice.user_id(), "origin_server_ts": 1, "content": content,
        });
        assert!(evil.push(&world.bridge, &[event]).await?.is_success());
        let from_bob = format!("Encrypted from Bob {number}");
        bob.send(&chat.alices_jid(), &from_bob, Namespace::Omemo2).await?;
        denied.applied(1).await?;
        alice.send_in_the_clear(room, "Plain from Alice").await?;
        let from_alice = format!("Encrypted from Alice {number}");
        alice.send(room, &from_alice).await?;
        bob.receives(&from_alice).await?;
        drop(denied);
        let shown = alice.receives_within(&from_bob, PATIENCE).await?;
        assert!(shown.encrypted);
    }
    let plain = evil.sent_into(room).iter().filter(|sent| sent.is_plain_message()).count();
    let taken = chat.times_at_bob("Plain from Alice");
    println!("safety: denied_encryption: {plain} messages in the clear out, {taken} of 2 in");
    assert_eq!((plain, taken), (0, 0));
    chat.end().await
}

#[tokio::test]
async fn a_portal_is_encrypted_where_the_person_encrypts_though_the_homeserver_denied_it()
-> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("denied-at-the-join").await?;
    let [not_found, _] = denials();
    let denied = evil.obey(not_found);
    let hidden = evil.obey(Rule::rewrite_events(|event| {
        let is_encryption = event["type"] == "m.room.encryption";
        if is_encryption {
            event["type"] = json!("m.room.topic");
        }
        is_encryption
    }));
    let chat = Chat::open_in(world).await?;
    denied.applied(1).await?;
    drop((denied, hidden));
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "Encrypted from Alice").await?;
    bob.receives("Encrypted from Alice").await?;
    bob.send(&chat.alices_jid(), "From Bob", Namespace::Omemo2).await?;
    let shown = alice.receives_within("From Bob", PATIENCE).await?;
    let plain = evil.sent_into(room).iter().filter(|sent| sent.is_plain_message()).count();
    println!("safety: denied_at_the_join: {plain} messages in the clear");
    assert_eq!((shown.encrypted, plain), (true, 0));
    chat.end().await
}

#[tokio::test]
async fn a_command_in_the_clear_is_not_obeyed_where_commands_were_encrypted() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("denied-management-room").await?;
    let alice = world.element_user("alice").await?;
    let bot = world.bridge.bot();
    let room = alice.create_chat_with(&bot).await?;
    alice.sees_join(&room, &bot).await?;
    alice.send(&room, "help").await?;
    assert!(alice.hears(&bot, "plaintext").await?.encrypted);

    for rule in denials() {
        let denied = evil.obey(rule);
        alice.send_in_the_clear(&room, "version").await?;
        denied.applied(1).await?;
    }
    alice.send(&room, "chat not an address").await?;
    // Help names the command too.
    alice.hears(&bot, "Usage: chat").await?;
    let answers = alice
        .messages()
        .into_iter()
        .filter(|message| message.body.as_deref().unwrap_or_default().starts_with("Gephyra 0."));
    let (obeyed, plain) = (answers.count(), evil.sent_into(&room));
    let plain = plain.iter().filter(|sent| sent.is_plain_message()).count();
    println!("safety: denied_commands: {obeyed} of 2 obeyed, {plain} answers in the clear");
    assert_eq!((obeyed, plain), (0, 0));
    world.end().await
}
