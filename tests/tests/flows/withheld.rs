//! Clients that keep a room key from the bridge.

use std::time::Duration;

use anyhow::{Context, Result};
use tests::element::Shown;

use crate::Chat;

/// The bridge gives a key a minute to come; this is that and some time to say so.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_author_of_a_message_whose_key_is_withheld_is_told_why() -> Result<()> {
    let chat = Chat::open("withheld").await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "Before").await?;
    bob.receives("Before").await?;

    alice.exclude_unverified_devices().await?;
    let event = alice.send(room, "Behind a wall").await?;
    let reason = "your client keeps its keys from unverified devices";
    let says_why = |message: &Shown| message.body.as_deref().unwrap_or_default().contains(reason);
    let told = alice.message_where(PATIENCE, says_why).await?;
    assert_eq!(told.sender, world.bridge.bot());
    alice.status_from(&world.bridge.bot(), &event, "FAIL_PERMANENT").await?;

    alice.include_unverified_devices().await?;
    alice.send(room, "After").await?;
    bob.receives("After").await?;
    assert!(bob.messages().iter().all(|message| message.body != "Behind a wall"));
    chat.end().await
}

#[tokio::test]
async fn a_key_that_only_the_bot_was_given_opens_the_message() -> Result<()> {
    let chat = Chat::open("second-chance").await?;
    let Chat { world, alice, bob, room } = &chat;
    let bot = world.bridge.bot();
    alice.sees_join(room, &bot).await?;
    let devices = alice.devices_of(&bot).await?;
    let device = devices.keys().next().context("the bot has no device")?;
    alice.verify_device(&bot, device).await?;
    alice.exclude_unverified_devices().await?;

    alice.send(room, "Only the bot can read this").await?;
    bob.receives("Only the bot can read this").await?;
    chat.end().await
}
