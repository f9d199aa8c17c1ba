//! What people say to the bridge's bot.

use anyhow::Result;
use tests::{Namespace, World};

#[tokio::test]
async fn the_bot_opens_a_chat() -> Result<()> {
    let world = World::start("management-room").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let bot = world.bridge.bot();
    let room = alice.create_chat_with(&bot).await?;
    alice.sees_join(&room, &bot).await?;

    alice.send(&room, "help").await?;
    alice.hears(&bot, "plaintext").await?;
    alice.send(&room, "version").await?;
    alice.hears(&bot, "0.1.0").await?;
    alice.send(&room, "chat not an address").await?;
    alice.hears(&bot, "Usage: chat").await?;

    alice.send(&room, &format!("chat {}", bob.jid())).await?;
    let invitation = alice.invitation_from(&world.ghost_of(bob.jid())).await?;
    alice.join(&invitation.room).await?;
    alice.send(&invitation.room, "The bot has introduced us").await?;
    bob.receives("The bot has introduced us").await?;
    bob.send(&world.jid_of(alice.user_id()), "How kind", Namespace::Omemo2).await?;
    alice.receives("How kind").await?;
    world.end().await
}

#[tokio::test]
async fn the_bot_also_answers_in_a_room_without_encryption() -> Result<()> {
    let world = World::start("plain-management-room").await?;
    let alice = world.element_user("alice").await?;
    let bot = world.bridge.bot();
    let room = alice.create_plain_chat_with(&bot).await?;
    alice.sees_join(&room, &bot).await?;
    alice.send(&room, "help").await?;
    let help = alice.hears(&bot, "plaintext").await?;
    assert!(!help.encrypted, "the bridge switched encryption on in somebody's room");
    world.end().await
}
