//! An XMPP server that goes away.

use anyhow::Result;
use tests::{Namespace, OmemoUser};

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
    assert_eq!((numbers(&bob), bob.undecryptable()), (written, 0));
    bob.send(&world.jid_of(alice.user_id()), "All here", Namespace::Legacy).await?;
    alice.receives("All here").await?;
    world.end().await
}

fn numbers(bob: &OmemoUser) -> Vec<String> {
    let bodies = bob.messages().into_iter().map(|message| message.body);
    bodies.filter(|body| body.starts_with("Number ")).collect()
}
