//! What waits behind something that waits.

use sqlx::Executor as _;

use super::*;
use crate::queue::Drained;

#[tokio::test]
async fn a_message_behind_one_that_waits_is_not_even_loaded() {
    let world = World::new().await;
    *world.remote.takes.lock().unwrap() = Takes::Outage;
    // Bob cannot be told of it, so it waits.
    world.bob(&chat(), RemoteEventKind::Expired).await;
    world.bob(&chat(), message(ENCRYPTED)).await;
    let mut raw = world._files.raw_connection().await;
    let damage = "UPDATE remote_inbox SET event = x'00' WHERE is_message = 1";
    assert_eq!(raw.execute(damage).await.unwrap().rows_affected(), 1, "whoever opens it fails");
    world.bob(&chat(), RemoteEventKind::Refused { fingerprint: "aaaa".to_owned() }).await;

    let drained = Drain::<ChatKey>::drain(&*world.hub, &chat()).await;
    assert_eq!(drained, Drained::Blocked { retry_in: LOOK_AGAIN });
    assert_eq!(world.said().await.len(), 1, "what is no message is told meanwhile");
}

/// Rows that were there before the store kept account of what is a message.
#[tokio::test]
async fn a_message_of_an_earlier_version_waits_behind_others_too() {
    let world = World::new().await;
    *world.remote.takes.lock().unwrap() = Takes::Outage;
    world.bob(&chat(), RemoteEventKind::Expired).await;
    world.bob(&chat(), message(ENCRYPTED)).await;
    let mut raw = world._files.raw_connection().await;
    raw.execute("UPDATE remote_inbox SET is_message = 0").await.unwrap();
    Drain::<ChatKey>::drain(&*world.hub, &chat()).await;
    assert!(world.said().await.is_empty());
}
