//! The bridge is killed after the homeserver has carried a request out, and before it has answered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::Method;
use tests::evil_hs::Rule;
use tests::{EvilHomeserver, Namespace, World};

use super::Outcome;
use crate::Chat;
use crate::keys_used::KeysUsed;

/// How long a client takes to read what it has got.
const TO_READ: Duration = Duration::from_secs(5);

/// Bob's first message makes his ghost and a room key; the bridge dies on the way.
async fn die_at(story: &str, method: Method, path: &str) -> Result<(Chat, EvilHomeserver)> {
    let (world, evil) = World::start_with_evil_homeserver(story).await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let mut chat = Chat { world, alice, bob, room: String::new() };
    let held = evil.obey(Rule::hold_answers(method, path, |_| true).by(&chat.ghost()));
    chat.bob.send(&chat.alices_jid(), "First", Namespace::Omemo2).await?;
    held.applied(1).await?;
    chat.world.bridge.kill().await?;
    drop(held);
    chat.world.bridge.run_connected().await?;
    Ok((chat.comes_to_alice("First").await?, evil))
}

/// What became of the messages and keys of a chat whose first message was the one on the way.
async fn count(chat: &Chat, evil: &EvilHomeserver) -> Result<(Outcome, KeysUsed)> {
    let outcome = chat.ends_well(&[], &["First"]).await?;
    let used = KeysUsed::seen(evil, &chat.room)?;
    ensure!(used.twice == 0, "{used:?}");
    Ok((outcome, used))
}

/// The whole story of one death; gives its figure.
async fn dies_once(story: &str, method: Method, path: &str) -> Result<String> {
    let (chat, evil) = die_at(story, method, path).await?;
    let (outcome, KeysUsed { keys, twice }) = count(&chat, &evil).await?;
    chat.end().await?;
    Ok(format!("{outcome}; {twice} of {keys} keys used twice"))
}

/// Once with the keys of a new ghost, once with those that take the place of a used one.
#[tokio::test]
async fn sigkill_before_keys_upload_response() -> Result<()> {
    let (mut chat, evil) = die_at("keys_upload_killed", Method::POST, "/keys/upload").await?;
    let account = chat.world.account_of(&chat.ghost()).await?;
    let upload = Rule::hold_answers(Method::POST, "/keys/upload", |_| true);
    let held = evil.obey(upload.by(&chat.ghost()));
    ensure!(!account.claim().await?.is_fallback, "the ghost has no one-time keys");
    // What Alice writes lets the ghost look after its keys.
    chat.alice.send(&chat.room, "A key is missing").await?;
    held.applied(1).await?;
    // Where the message has left before, Bob's client is to have read it: what it asks the bridge for stays unanswered
    // when the bridge dies.
    let _ = chat.bob.receives_within("A key is missing", TO_READ).await;
    chat.world.bridge.kill().await?;
    drop(held);
    chat.world.bridge.run_connected().await?;
    chat.bob.receives("A key is missing").await.context("after the second death")?;

    let outcome = chat.ends_well(&["A key is missing"], &["First"]).await?;
    let KeysUsed { keys, twice } = KeysUsed::seen(&evil, &chat.room)?;
    println!(
        "safety: complement_keys_upload_killed: 2 deaths, {outcome}; {twice} of {keys} keys used twice"
    );
    ensure!(twice == 0);
    chat.end().await
}

#[tokio::test]
async fn sigkill_before_device_signing_upload_response() -> Result<()> {
    let figure =
        dies_once("device_signing_killed", Method::POST, "/keys/device_signing/upload").await?;
    println!("safety: complement_device_signing_killed: {figure}");
    Ok(())
}

#[tokio::test]
async fn sigkill_before_keys_claim_response() -> Result<()> {
    let figure = dies_once("keys_claim_killed", Method::POST, "/keys/claim").await?;
    println!("safety: complement_keys_claim_killed: {figure}");
    Ok(())
}

#[tokio::test]
async fn sigkill_before_send_to_device_response() -> Result<()> {
    let figure =
        dies_once("send_to_device_killed", Method::PUT, "/sendToDevice/m.room.encrypted/").await?;
    println!("safety: complement_send_to_device_killed: {figure}");
    Ok(())
}
