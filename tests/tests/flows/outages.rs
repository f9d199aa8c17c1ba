//! Servers that go away.

use anyhow::Result;
use tests::{Namespace, World};

use crate::Chat;

#[tokio::test]
async fn the_chat_goes_on_after_a_restart_of_the_xmpp_server() -> Result<()> {
    let chat = Chat::open("xmpp-restart").await?;
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;

    let Chat { mut world, alice, bob, room } = chat;
    bob.stop().await?;
    world.xmpp.restart().await?;
    let bob = world.omemo_user("bob").await?;
    alice.send(&room, "After").await?;
    bob.receives("After").await?;
    bob.send(&world.jid_of(alice.user_id()), "Still here", Namespace::Omemo2).await?;
    alice.receives("Still here").await?;
    world.end().await
}

#[tokio::test]
async fn what_is_written_while_the_xmpp_server_is_away_arrives_in_order() -> Result<()> {
    let chat = Chat::open("xmpp-away").await?;
    chat.alice.send(&chat.room, "Before").await?;
    chat.bob.receives("Before").await?;

    let Chat { mut world, alice, bob, room } = chat;
    bob.stop().await?;
    world.xmpp.stop().await?;
    let written: Vec<_> = (0..20).map(|number| format!("Number {number}")).collect();
    for body in &written {
        alice.send(&room, body).await?;
    }
    // The bridge has all of them, and has tried, when it answers what was asked behind them.
    alice.send(&room, "!xmpp version").await?;
    alice.hears(&world.bridge.bot(), "0.1.0").await?;

    world.xmpp.start_again().await?;
    let bob = world.omemo_user("bob").await?;
    for body in &written {
        bob.receives(body).await?;
    }
    let alices_jid = world.jid_of(alice.user_id());
    assert_eq!((bob.texts_from(&alices_jid), bob.undecryptable()), (written, 0));
    bob.send(&alices_jid, "All here", Namespace::Legacy).await?;
    alice.receives("All here").await?;
    world.end().await
}

#[tokio::test]
async fn a_first_message_written_while_the_xmpp_server_is_away_arrives() -> Result<()> {
    let mut world = World::start("first-while-away").await?;
    let alice = world.element_user("alice").await?;
    let bob = world.omemo_user("bob").await?;
    let ghost = world.ghost_of(bob.jid());
    bob.stop().await?;
    world.xmpp.stop().await?;
    let room = alice.create_chat_with(&ghost).await?;
    alice.sees_join(&room, &ghost).await?;
    for body in ["First", "Second"] {
        alice.send(&room, body).await?;
    }
    alice.send(&room, "!xmpp version").await?;
    alice.hears(&world.bridge.bot(), "0.1.0").await?;

    world.xmpp.start_again().await?;
    let bob = world.omemo_user("bob").await?;
    bob.receives("First").await?;
    bob.receives("Second").await?;
    assert_eq!(bob.texts_from(&world.jid_of(alice.user_id())), ["First", "Second"]);
    let complaints = alice.messages().into_iter().filter_map(|message| message.body);
    assert_eq!(complaints.filter(|body| body.contains("no encryption")).count(), 0);
    world.end().await
}

#[tokio::test]
async fn what_is_written_while_the_homeserver_is_away_arrives_in_order() -> Result<()> {
    let mut chat = Chat::open("homeserver-away").await?;
    let to = chat.alices_jid();
    chat.bob.send(&to, "Before", Namespace::Legacy).await?;
    chat.alice.receives("Before").await?;

    chat.world.homeserver.stop().await?;
    // No more than what a client asks for when it is back: it shows a gap where there was more.
    let written: Vec<_> = (0..5).map(|number| format!("Number {number}")).collect();
    for body in &written {
        let stanza = chat.bob.send(&to, body, Namespace::Omemo2).await?;
        // The bridge has it.
        chat.bob.receipt_for(&stanza).await?;
    }
    chat.world.homeserver.start_again().await?;
    let Chat { alice, bob, room, .. } = &chat;
    for body in &written {
        alice.receives(body).await?;
    }
    let shown = alice.messages().into_iter().filter_map(|message| message.body);
    let shown: Vec<_> = shown.filter(|body| body.starts_with("Number ")).collect();
    assert_eq!(shown, written);
    alice.send(room, "All here").await?;
    bob.receives("All here").await?;
    chat.end().await
}
