//! Sessions that no longer fit together, and how often they are replaced.

use anyhow::{Context, Result, ensure};
use tests::{Namespace, World};

use crate::Chat;

/// More than one is needed to see that only the first of them matters.
const DAMAGED: usize = 10;

/// The last encrypted message that came over a stream, byte for byte.
fn last_message(stream: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(stream);
    let stanzas = text.split_inclusive("</message>").filter(|stanza| stanza.contains("<payload"));
    let last = stanzas.last().context("no encrypted message")?;
    let begin = last.rfind("<message").context("no whole message")?;
    Ok(last.get(begin..).context("no message")?.to_owned())
}

/// The same with another number in each of its keys, so that none of them opens.
fn damaged(stanza: &str, number: usize) -> String {
    const END: &str = "</key>";
    let mut parts: Vec<_> = stanza.split(END).map(str::to_owned).collect();
    let last = parts.pop().unwrap_or_default();
    let letter = char::from(b'A' + u8::try_from(number % 26).unwrap_or(0));
    for part in &mut parts {
        // In the ratchet key, which stands behind a version and a length.
        let at = part.rfind('>').map_or(0, |begin| begin + 20);
        let now = if part.get(at..=at) == Some(&letter.to_string()) { 'z' } else { letter };
        part.replace_range(at..=at, &now.to_string());
    }
    parts.push(last);
    parts.join(END)
}

#[tokio::test]
async fn damaged_omemo_messages_bring_one_new_session() -> Result<()> {
    let (world, link) = World::start_with_xmpp_link("omemo-healing").await?;
    let chat = Chat::open_in(world).await?;
    let Chat { alice, bob, room, .. } = &chat;
    let to = chat.alices_jid();
    alice.send(room, "Before").await?;
    bob.receives("Before").await?;
    for text in ["Hello", "This one is damaged on later copies"] {
        bob.send(&to, text, Namespace::Legacy).await?;
        alice.receives(text).await?;
    }
    let stanza =
        link.read(|streams| last_message(&streams.last().context("no stream")?.to_bridge))?;
    let before = bob.empty_messages_from(&to);
    for number in 0..DAMAGED {
        link.inject(damaged(&stanza, number)).await?;
    }
    bob.gets_empty_message(&to).await?;
    for number in 0..3 {
        let (there, back) = (format!("There {number}"), format!("Back {number}"));
        bob.send(&to, &there, Namespace::Legacy).await?;
        alice.receives(&there).await?;
        alice.send(room, &back).await?;
        bob.receives(&back).await?;
    }
    let new = bob.empty_messages_from(&to) - before;
    let shown = alice.messages();
    let again = shown
        .iter()
        .filter(|it| it.body.as_deref().is_some_and(|body| body.starts_with("This one")));
    println!(
        "safety: wedged_omemo: {DAMAGED} messages that no session opens: {new} new session; 6 of 6 messages after it, \
         {} undecryptable",
        bob.undecryptable()
    );
    ensure!((new, bob.undecryptable(), again.count()) == (1, 0, 1));
    chat.end().await
}
