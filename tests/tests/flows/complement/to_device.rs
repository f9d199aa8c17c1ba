//! Messages to devices: the room keys among them must arrive, whatever happens on their way.

use anyhow::Result;
use axum::http::Method;
use serde_json::Value;
use tests::evil_hs::Rule;
use tests::{ElementUser, Namespace, World};

use super::{PATIENCE, gateway_timeout};
use crate::Chat;

/// More tries than one call of the bridge makes.
const TRIES: usize = 8;

/// More than a homeserver gives out at once.
const MANY: usize = 105;

fn has_messages(sync: &Value) -> bool {
    sync.pointer("/to_device/events").and_then(Value::as_array).is_some_and(|all| !all.is_empty())
}

#[tokio::test]
async fn client_retries_send_to_device() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("retries-send-to-device").await?;
    let failing = gateway_timeout(Method::PUT, "/sendToDevice/").by(&chat.ghost()).times(TRIES);
    let failing = evil.obey(failing);
    chat.bob.send(&chat.alices_jid(), "Hello world!", Namespace::Omemo2).await?;
    failing.applied(TRIES).await?;
    chat.alice.receives_within("Hello world!", PATIENCE).await?;
    let outcome = chat.ends_well(&[], &["Hello world!"]).await?;
    println!("safety: complement_send_to_device_retried: {TRIES} gateway time-outs, {outcome}");
    chat.end().await
}

#[tokio::test]
async fn unprocessed_to_device_messages_arent_lost_on_restart() -> Result<()> {
    let (mut chat, evil) = Chat::open_under_an_evil_homeserver("unprocessed-to-device").await?;
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;
    let sync = Rule::hold_answers(Method::GET, "/sync", has_messages);
    let held = evil.obey(sync.by(&chat.ghost()));
    chat.alice.discard_room_key(&chat.room).await?;
    chat.alice.send(&chat.room, "Under a new room key").await?;
    held.applied(1).await?;
    chat.world.bridge.kill().await?;
    drop(held);
    chat.world.bridge.run_connected().await?;
    chat.bob.receives_within("Under a new room key", PATIENCE).await?;
    let outcome = chat.ends_well(&["Before", "Under a new room key"], &[]).await?;
    println!(
        "safety: complement_unprocessed_to_device: killed with a room key on its way, {outcome}"
    );
    chat.end().await
}

/// Each message is under a room key of its own, and all keys wait while the ghost cannot sync. The bridge is given the
/// messages when all are written, because it waits a minute for a key and no longer.
#[tokio::test]
async fn to_device_messages_are_processed_in_order() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("to-device-in-order").await?;
    let blocked = evil.obey(gateway_timeout(Method::GET, "/sync").by(&chat.ghost()));
    let held = evil.obey(Rule::hold_transactions());
    let texts: Vec<_> = (0..MANY).map(|number| format!("Message {number}")).collect();
    let mut last = String::new();
    for text in &texts {
        chat.alice.discard_room_key(&chat.room).await?;
        last = chat.alice.send(&chat.room, text).await?;
    }
    held.applied(1).await?;
    drop(held);
    evil.pushed_event(&last).await?;
    blocked.applied(1).await?;
    drop(blocked);
    for text in &texts {
        chat.bob.receives_within(text, PATIENCE).await?;
    }
    let shown = chat.bob.texts_from(&chat.alices_jid());
    assert_eq!(shown, texts, "out of order");
    let sent: Vec<_> = texts.iter().map(String::as_str).collect();
    let outcome = chat.ends_well(&sent, &[]).await?;
    println!(
        "safety: complement_to_device_in_order: {MANY} room keys at once, {outcome}, in order"
    );
    chat.end().await
}

#[tokio::test]
async fn to_device_messages_arent_lost_when_keys_query_fails() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("keys-query-fails").await?;
    let (alice, recovery_key) = ElementUser::start(&world.homeserver, "alice", world.dir()).await?;
    let bob = world.omemo_user("bob").await?;
    let chat = Chat::between(world, alice, bob).await?;
    chat.alice.send(&chat.room, "From the first device").await?;
    chat.bob.receives("From the first device").await?;

    let blocked = evil.obey(gateway_timeout(Method::POST, "/keys/query").by(&chat.ghost()));
    let account = chat.alice.account();
    let second =
        ElementUser::log_in(&chat.world.homeserver, account, "second", chat.world.dir()).await?;
    second.recover(&recovery_key).await?;
    second.send(&chat.room, "From the second device").await?;
    blocked.applied(1).await?;
    drop(blocked);
    chat.bob.receives_within("From the second device", PATIENCE).await?;
    let sent = ["From the first device", "From the second device"];
    let outcome = chat.ends_well(&sent, &[]).await?;
    println!("safety: complement_keys_query_fails: {outcome}");
    chat.end().await
}
