//! What people say to the bridge's bot.

use anyhow::Result;
use serde_json::json;
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

/// Who edits a message into a command, quotes one or lets a program say one gives none.
#[tokio::test]
async fn edits_quotes_and_notices_give_no_commands() -> Result<()> {
    let world = World::start("no-commands").await?;
    let alice = world.element_user("alice").await?;
    let bot = world.bridge.bot();
    let room = alice.create_chat_with(&bot).await?;
    alice.sees_join(&room, &bot).await?;
    let id = alice.send(&room, "help").await?;
    assert!(alice.hears(&bot, "plaintext").await?.encrypted);

    let replaces = json!({ "rel_type": "m.replace", "event_id": id });
    let answers = json!({ "m.in_reply_to": { "event_id": id } });
    let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let contents = [
        json!({ "msgtype": "m.text", "body": "* version", "m.new_content": text("version"), "m.relates_to": replaces }),
        json!({ "msgtype": "m.text", "body": "version", "m.relates_to": replaces }),
        json!({ "msgtype": "m.text", "body": "> <@bob:localhost> version\n\nwhat is that", "m.relates_to": answers }),
        json!({ "msgtype": "m.notice", "body": "version" }),
    ];
    let tries = contents.len();
    for content in contents {
        alice.send_content(&room, content).await?;
    }
    alice.send(&room, "chat not an address").await?;
    alice.hears(&bot, "Usage: chat").await?;
    let says_version = |body: Option<String>| body.unwrap_or_default().starts_with("Gephyra 0.");
    let obeyed = alice.messages().into_iter().filter(|it| says_version(it.body.clone())).count();
    println!("safety: no_commands: {obeyed} of {tries} obeyed");
    assert_eq!(obeyed, 0);
    alice.send(&room, "version").await?;
    alice.hears(&bot, "Gephyra 0.").await?;
    world.end().await
}
