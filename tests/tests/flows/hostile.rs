//! Somebody on XMPP who means ill.

use anyhow::Result;
use tests::{Namespace, OmemoUser, World};

use crate::Chat;

#[tokio::test]
async fn a_stanza_nested_100_000_deep_stops_neither_the_bridge_nor_its_stream() -> Result<()> {
    // Prosody carries 10,000 levels and itself fails at 100,000, so those enter behind it.
    let (world, link) = World::start_with_xmpp_link("deep-stanza").await?;
    let chat = Chat::open_in(world).await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "Before").await?;
    bob.receives("Before").await?;
    let running = world.bridge.pid();

    let mallory = world.omemo_user("mallory").await?;
    mallory.send_xml(&nested(&chat, &mallory, 10_000)).await?;
    mallory.bounce_of("deep-10000").await?;
    link.inject(nested(&chat, &mallory, 100_000)).await?;
    mallory.bounce_of("deep-100000").await?;

    alice.send(room, "After").await?;
    bob.receives("After").await?;
    bob.send(&chat.alices_jid(), "No harm done", Namespace::Omemo2).await?;
    alice.receives("No harm done").await?;
    assert_eq!(world.bridge.pid(), running);
    chat.end().await
}

#[tokio::test]
async fn the_namespace_of_xml_itself_does_not_end_the_stream() -> Result<()> {
    const DOWN: &str = "xmpp.stream: down";
    let chat = Chat::open("reserved-namespace").await?;
    let Chat { world, alice, bob, room } = &chat;
    alice.send(room, "Before").await?;
    bob.receives("Before").await?;
    let times_down = world.bridge.times_logged(DOWN)?;

    let mallory = world.omemo_user("mallory").await?;
    let to = chat.alices_jid();
    // Prosody passes both on with a declaration that XML forbids.
    for stanza in [
        format!("<message to='{to}' type='chat'><xml:foo/></message>"),
        format!("<message to='{to}' type='chat' xml:foo='1'><body xml:foo='1'/></message>"),
    ] {
        mallory.send_xml(&stanza).await?;
        // The answer shows that what was sent before came as far as the bridge.
        mallory.disco(&to).await?;
    }

    alice.send(room, "After").await?;
    bob.receives("After").await?;
    bob.send(&to, "No harm done", Namespace::Omemo2).await?;
    alice.receives("No harm done").await?;
    assert_eq!(world.bridge.times_logged(DOWN)?, times_down);
    chat.end().await
}

/// A message to Alice that nests so deep. The bridge's refusal of it shows that it came as far as that.
fn nested(chat: &Chat, from: &OmemoUser, depth: usize) -> String {
    format!(
        "<message from='{}' to='{}' type='chat' id='deep-{depth}'>{}{}</message>",
        from.full_jid(),
        chat.alices_jid(),
        "<a>".repeat(depth),
        "</a>".repeat(depth)
    )
}
