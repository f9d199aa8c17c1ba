//! Keys with which sessions begin: published, claimed, used up.

use anyhow::{Result, ensure};
use axum::http::Method;
use serde_json::Value;
use tests::World;
use tests::evil_hs::Request;

use super::{PATIENCE, bobs_ghost, gateway_timeout};
use crate::Chat;

/// Whether a user of ours publishes one-time keys with this request.
pub(super) fn publishes_one_time_keys(request: &Request, user: &str) -> bool {
    let keys = request.body.get("one_time_keys").and_then(Value::as_object);
    request.path.ends_with("/keys/upload")
        && request.user.as_deref() == Some(user)
        && keys.is_some_and(|keys| !keys.is_empty())
}

#[tokio::test]
async fn fallback_key_is_used_if_one_time_keys_run_out() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("fallback-key").await?;
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;
    let ghost = chat.ghost();
    let carol = chat.world.element_user("carol").await?;
    let dave = chat.world.element_user("dave").await?;
    let account = chat.world.account_of(&ghost).await?;

    let blocked = evil.obey(gateway_timeout(Method::POST, "/keys/upload"));
    let taken = account.claim_all().await?;
    let fallback = account.claim().await?;
    ensure!(fallback.is_fallback, "there was another one-time key");
    chat.newcomer_writes(&carol, "From Carol").await?;
    chat.newcomer_writes(&dave, "From Dave").await?;
    ensure!(account.one_time_keys().await? == 0, "keys were published although that was blocked");
    let seen = evil.requests().len();
    drop(blocked);

    let published = |request: &Request| publishes_one_time_keys(request, &ghost).then_some(());
    chat.alice.send(&chat.room, "Keys are welcome again").await?;
    evil.requests().wait_for_after(seen, "new one-time keys", PATIENCE, published).await?;
    let outcome = chat.ends_well(&["Before", "Keys are welcome again"], &[]).await?;
    let new = account.one_time_keys().await?;
    println!(
        "safety: complement_fallback_key: {taken} one-time keys taken, 2 of 2 new people understood by the fallback \
         key, {new} new one-time keys; {outcome}"
    );
    ensure!(new > 0, "no one-time keys came again");
    chat.end().await
}

#[tokio::test]
async fn failed_one_time_key_upload_retries() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("key-upload-retries").await?;
    let failing = gateway_timeout(Method::POST, "/keys/upload").by(&bobs_ghost(&world)).times(2);
    let failing = evil.obey(failing);
    let chat = Chat::that_bob_begins(world, "First").await?;
    let account = chat.world.account_of(&chat.ghost()).await?;
    ensure!(!account.claim().await?.is_fallback, "the ghost has no one-time keys");
    ensure!(failing.times_applied() == 2);
    let outcome = chat.ends_well(&[], &["First"]).await?;
    println!(
        "safety: complement_key_upload_retried: 2 gateway time-outs, a key was claimed; {outcome}"
    );
    chat.end().await
}

#[tokio::test]
async fn failed_keys_claim_retries() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("keys-claim-retries").await?;
    let failing = gateway_timeout(Method::POST, "/keys/claim").by(&bobs_ghost(&world)).times(2);
    let failing = evil.obey(failing);
    let chat = Chat::that_bob_begins(world, "First").await?;
    ensure!(failing.times_applied() == 2);
    let outcome = chat.ends_well(&[], &["First"]).await?;
    println!("safety: complement_keys_claim_retried: 2 gateway time-outs, {outcome}");
    chat.end().await
}

#[tokio::test]
async fn failed_device_key_download_retries() -> Result<()> {
    let (world, evil) = World::start_with_evil_homeserver("keys-query-retries").await?;
    let failing = gateway_timeout(Method::POST, "/keys/query").by(&bobs_ghost(&world)).times(4);
    let failing = evil.obey(failing);
    let chat = Chat::that_bob_begins(world, "First").await?;
    ensure!(failing.times_applied() == 4);
    let outcome = chat.ends_well(&[], &["First"]).await?;
    println!("safety: complement_keys_query_retried: 4 gateway time-outs, {outcome}");
    chat.end().await
}
