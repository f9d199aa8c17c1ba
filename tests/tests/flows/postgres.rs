//! The bridge on PostgreSQL.

use anyhow::Result;
use tests::{Namespace, Shield, World, postgres};

use crate::Chat;

#[tokio::test]
async fn the_whole_bridge_runs_on_postgresql() -> Result<()> {
    let world = World::start_on("postgres", postgres::new_database().await?).await?;
    let mut chat = Chat::open_in(world).await?;
    both_ways(&chat, "first").await?;

    chat.world.bridge.stop().await?;
    chat.alice.send(&chat.room, "While it is stopped").await?;
    chat.world.bridge.run_connected().await?;
    chat.bob.receives("While it is stopped").await?;
    both_ways(&chat, "after a stop").await?;

    chat.world.bridge.kill().await?;
    chat.world.bridge.run_connected().await?;
    both_ways(&chat, "after a kill").await?;
    assert_eq!(chat.bob.undecryptable(), 0);
    let shown = chat.alice.messages();
    assert!(shown.iter().all(|message| message.failure.is_none()));
    chat.end().await
}

async fn both_ways(chat: &Chat, when: &str) -> Result<()> {
    let Chat { alice, bob, room, .. } = chat;
    let to_bob = format!("Hello Bob, {when}");
    alice.send(room, &to_bob).await?;
    bob.receives(&to_bob).await?;
    for namespace in Namespace::BOTH {
        let to_alice = format!("Hello Alice, {when}, in {}", namespace.uri());
        let stanza = bob.send(&chat.alices_jid(), &to_alice, namespace).await?;
        assert_eq!(alice.receives(&to_alice).await?.shield, Some(Shield::None));
        bob.receipt_for(&stanza).await?;
    }
    Ok(())
}
