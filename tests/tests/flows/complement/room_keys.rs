//! When the ghost begins a new room key, and when it does not.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tests::Namespace;

use super::PATIENCE;
use crate::Chat;

/// What a room key carries at most (`e2ee::matrix`).
const MOST: usize = 50;

#[tokio::test]
async fn room_key_is_cycled_after_enough_messages() -> Result<()> {
    let (chat, evil) = Chat::open_under_an_evil_homeserver("cycled-after-messages").await?;
    let texts: Vec<_> = (0..=MOST).map(|number| format!("Message {number}")).collect();
    for text in &texts {
        chat.bob.send(&chat.alices_jid(), text, Namespace::Omemo2).await?;
    }
    for text in &texts {
        chat.alice.receives_within(text, PATIENCE).await?;
    }
    let mut uses = BTreeMap::<_, usize>::new();
    for session in chat.ghosts_room_keys(&evil) {
        *uses.entry(session).or_default() += 1;
    }
    let most = uses.values().copied().max().unwrap_or_default();
    let sent: Vec<_> = texts.iter().map(String::as_str).collect();
    let outcome = chat.ends_well(&[], &sent).await?;
    println!(
        "safety: complement_cycled_after_messages: {} room keys, {most} messages under one at most; {outcome}",
        uses.len()
    );
    ensure!((uses.len(), most) == (2, MOST), "{uses:?}");
    chat.end().await
}

#[tokio::test]
async fn room_key_is_not_cycled_on_client_restart() -> Result<()> {
    let (mut chat, evil) = Chat::open_under_an_evil_homeserver("not-cycled-on-restart").await?;
    let to = chat.alices_jid();
    chat.bob.send(&to, "Before", Namespace::Omemo2).await?;
    chat.alice.receives("Before").await?;
    chat.world.bridge.stop().await?;
    chat.world.bridge.run_connected().await?;
    chat.bob.send(&to, "After a stop", Namespace::Omemo2).await?;
    chat.alice.receives_within("After a stop", PATIENCE).await?;
    chat.world.bridge.kill().await?;
    chat.world.bridge.run_connected().await?;
    chat.bob.send(&to, "After a kill", Namespace::Omemo2).await?;
    chat.alice.receives_within("After a kill", PATIENCE).await?;

    let sessions = chat.ghosts_room_keys(&evil);
    ensure!(sessions.len() == 3, "{} messages of the ghost", sessions.len());
    let new = sessions.windows(2).filter(|pair| pair.first() != pair.last()).count();
    let outcome = chat.ends_well(&[], &["Before", "After a stop", "After a kill"]).await?;
    println!(
        "safety: complement_not_cycled_on_restart: {new} new room keys after 2 restarts; {outcome}"
    );
    ensure!(new == 0);
    chat.end().await
}
