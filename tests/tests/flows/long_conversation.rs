//! A long conversation through a stop and a kill of the bridge: none lost, none shown twice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::omemo::Device;
use tests::{Namespace, World};

use crate::Chat;

/// Messages each way.
const LENGTH: usize = 200;

/// How long the last messages may take to arrive, on a busy machine.
const ARRIVAL: Duration = Duration::from_secs(240);

#[tokio::test]
async fn two_hundred_messages_each_way_in_legacy_omemo() -> Result<()> {
    converse("long-conversation-legacy", Namespace::Legacy).await
}

#[tokio::test]
async fn two_hundred_messages_each_way_in_omemo_2() -> Result<()> {
    converse("long-conversation-omemo2", Namespace::Omemo2).await
}

async fn converse(story: &str, namespace: Namespace) -> Result<()> {
    let world = World::start(story).await?;
    let alice = world.element_user("alice").await?;
    let device = Device { speaks: &[namespace], ..Device::default() };
    let bob = world.omemo_device("bob", &device).await?;
    let mut chat = Chat::between(world, alice, bob).await?;
    let mut stanzas = Vec::new();

    exchange(&chat, namespace, 0..70, &mut stanzas).await?;
    chat.confirmed(&stanzas).await?;
    chat.world.bridge.stop().await?;
    chat.alice_says(70..90).await?;
    chat.world.bridge.run_connected().await?;
    chat.bob_says(namespace, 70..90, &mut stanzas).await?;

    exchange(&chat, namespace, 90..130, &mut stanzas).await?;
    chat.world.bridge.kill().await?;
    chat.alice_says(130..150).await?;
    chat.world.bridge.run_connected().await?;
    // What was not confirmed is sent again, the very same stanza, as a client does when its stream resumes.
    for stanza in &stanzas {
        if !chat.bob.has_receipt_for(stanza) {
            chat.bob.send_again(stanza).await?;
        }
    }
    chat.bob_says(namespace, 130..150, &mut stanzas).await?;
    exchange(&chat, namespace, 150..LENGTH, &mut stanzas).await?;
    chat.confirmed(&stanzas).await?;
    everything_came_once(&chat).await?;
    chat.end().await
}

async fn exchange(
    chat: &Chat,
    namespace: Namespace,
    numbers: std::ops::Range<usize>,
    stanzas: &mut Vec<String>,
) -> Result<()> {
    let both = tokio::try_join!(
        chat.alice_says(numbers.clone()),
        chat.bob_says(namespace, numbers, stanzas)
    );
    both.map(drop)
}

impl Chat {
    async fn alice_says(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        for number in numbers {
            self.alice.send(&self.room, &format!("Alice {number}")).await?;
        }
        Ok(())
    }

    async fn bob_says(
        &self,
        namespace: Namespace,
        numbers: std::ops::Range<usize>,
        stanzas: &mut Vec<String>,
    ) -> Result<()> {
        let to = self.alices_jid();
        for number in numbers {
            stanzas.push(self.bob.send(&to, &format!("Bob {number}"), namespace).await?);
        }
        Ok(())
    }

    async fn confirmed(&self, stanzas: &[String]) -> Result<()> {
        for stanza in stanzas {
            self.bob.receipt_for(stanza).await?;
        }
        Ok(())
    }
}

async fn everything_came_once(chat: &Chat) -> Result<()> {
    for number in 0..LENGTH {
        chat.alice.receives_within(&format!("Bob {number}"), ARRIVAL).await?;
        chat.bob.receives_within(&format!("Alice {number}"), ARRIVAL).await?;
    }
    let shown = chat.alice.messages();
    let unreadable = shown.iter().filter(|message| message.failure.is_some()).count();
    ensure!(unreadable == 0, "{unreadable} messages could not be decrypted on Matrix");
    let to_alice = count(shown.into_iter().filter_map(|message| message.body), "Bob ");
    let to_bob = count(chat.bob.messages().into_iter().map(|message| message.body), "Alice ");
    for (counts, who) in [(to_alice, "Alice"), (to_bob, "Bob")] {
        ensure!(counts.len() == LENGTH, "{who} was shown {} of {LENGTH}", counts.len());
        let twice: Vec<_> = counts.iter().filter(|(_, times)| **times > 1).collect();
        ensure!(twice.is_empty(), "{who} was shown more than once: {twice:?}");
    }
    let alices = chat.bob.messages().into_iter().map(|message| message.body);
    let order: Vec<_> = alices.filter(|body| body.starts_with("Alice ")).collect();
    let expected: Vec<_> = (0..LENGTH).map(|number| format!("Alice {number}")).collect();
    ensure!(order == expected, "Alice's messages came out of order");
    Ok(())
}

fn count(bodies: impl Iterator<Item = String>, prefix: &str) -> BTreeMap<String, usize> {
    bodies.filter(|body| body.starts_with(prefix)).fold(BTreeMap::new(), |mut counts, body| {
        *counts.entry(body).or_default() += 1;
        counts
    })
}
