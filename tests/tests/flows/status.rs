//! What Element shows of a message's fate.

use anyhow::Result;
use serde_json::Value;
use tests::World;
use tests::omemo::Device;

use crate::Chat;

#[tokio::test]
async fn a_delivered_message_is_reported_as_such() -> Result<()> {
    let chat = Chat::open("status-delivered").await?;
    let Chat { world, alice, bob, room } = &chat;
    let bot = world.bridge.bot();
    let event = alice.send(room, "Did it arrive?").await?;
    bob.receives("Did it arrive?").await?;
    alice.status_from(&bot, &event, "SUCCESS").await?;
    let report = alice.delivery_from(&bot, &event, &world.ghost_of(bob.jid())).await?;
    assert_eq!(text(&report, "status"), "SUCCESS");
    assert_eq!(text(&report, "network"), "xmpp");
    chat.end().await
}

#[tokio::test]
async fn a_message_to_nobody_is_held_and_then_reported_as_failed() -> Result<()> {
    let world = World::start("status-failed").await?;
    let alice = world.element_user("alice").await?;
    let (bot, ghost) = (world.bridge.bot(), world.ghost_of("nobody@localhost"));
    let room = alice.create_chat_with(&ghost).await?;
    alice.sees_join(&room, &ghost).await?;

    let event = alice.send(&room, "Are you there?").await?;
    let held = alice.status_from(&bot, &event, "PENDING").await?;
    assert_eq!(text(&held, "message"), "the contact has no encryption");
    alice.hears(&bot, "offers no encryption").await?;

    alice.send(&room, "!xmpp plaintext allow").await?;
    let failed = alice.status_from(&bot, &event, "FAIL_PERMANENT").await?;
    let reason = "the contact does not exist or cannot receive messages now";
    assert_eq!(text(&failed, "message"), reason);
    let told = alice.hears(&bot, reason).await?;
    assert!(told.encrypted, "the bot spoke of a chat in the clear");
    world.end().await
}

#[tokio::test]
async fn a_held_message_is_reported_as_sent_when_it_is_approved() -> Result<()> {
    let chat = Chat::open("status-held").await?;
    let Chat { world, alice, bob, room } = &chat;
    let bot = world.bridge.bot();
    alice.send(room, "Before").await?;
    bob.receives("Before").await?;

    let device = Device { name: "reinstalled", device_id: bob.device_id(), ..Device::default() };
    let stranger = world.omemo_device("bob", &device).await?;
    let event = alice.send(room, "Is it you?").await?;
    let behind = alice.send(room, "Tell me").await?;
    alice.status_from(&bot, &event, "PENDING").await?;
    chat.bot_tells_alice("identity of your contact has changed").await?;
    alice.send(room, "!xmpp approve").await?;
    for event in [event, behind] {
        alice.delivery_from(&bot, &event, &world.ghost_of(bob.jid())).await?;
    }
    stranger.receives("Tell me").await?;
    chat.end().await
}

fn text<'a>(report: &'a Value, field: &str) -> &'a str {
    report.get(field).and_then(Value::as_str).unwrap_or_default()
}
