//! A stream to the XMPP server that breaks. Lines that begin with `safety:` are figures of `cargo xtask safety`.

use anyhow::Result;
use tests::{Namespace, World};

use crate::Chat;

/// Half a stanza comes, and nothing behind it. What the bridge has written before may arrive a second time, byte for
/// byte, and Bob's ratchet refuses that.
#[tokio::test]
async fn a_stream_that_breaks_in_mid_stanza_costs_no_message() -> Result<()> {
    let (world, link) = World::start_with_xmpp_link("broken-stream").await?;
    let chat = Chat::open_in(world).await?;
    let Chat { alice, bob, room, .. } = &chat;
    alice.send(room, "Hello").await?;
    // What Bob's client asks of the bridge while no stream is up would not be answered.
    chat.bridge_tells_bob("bridge").await?;
    let mut texts = vec!["Hello".to_owned()];
    for number in 0..5 {
        let (before, meanwhile) = (format!("Before {number}"), format!("Meanwhile {number}"));
        alice.send(room, &before).await?;
        // The stream is up: half a stanza in its handshake would be another story.
        bob.receives(&before).await?;
        alice.send(room, &meanwhile).await?;
        texts.extend([before, meanwhile]);
        let jid = chat.alices_jid();
        link.inject(format!("<message from='{}' to='{jid}'><bod", bob.full_jid())).await?;
        link.cut();
    }
    // What Bob writes while no stream is up comes back to him.
    alice.send(room, "Up again").await?;
    texts.push("Up again".to_owned());
    for text in &texts {
        bob.receives(text).await?;
    }
    bob.send(&chat.alices_jid(), "Still here", Namespace::Omemo2).await?;
    alice.receives("Still here").await?;
    let shown = bob.texts_from(&chat.alices_jid());
    println!("safety: broken_stream: {} of {} messages, in order", shown.len(), texts.len());
    assert_eq!(shown, texts);
    chat.end().await
}
