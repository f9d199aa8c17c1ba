//! The scenarios of complement-crypto, by their names, with a ghost of the bridge as one side. Which there are, and
//! which other test is one of them, stands in docs/complement-crypto.md. Lines that begin with `safety:` are figures of
//! `cargo xtask safety`.

mod membership;
mod one_time_keys;
mod room_keys;
mod sigkill;
mod to_device;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::evil_hs::{Fault, Link, Rule};
use tests::xmpp_server::DOMAIN;
use tests::{Namespace, World};

use crate::Chat;

/// The bridge and its queues take their time between tries, each longer than the one before.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of the messages of a chat.
#[derive(Debug, Default)]
struct Outcome {
    messages: usize,
    lost: usize,
    twice: usize,
    undecryptable: usize,
}

impl Outcome {
    fn add(&mut self, sent: &[String], shown: &[String]) {
        let once: BTreeSet<_> = shown.iter().collect();
        self.messages += sent.len();
        self.lost += sent.iter().filter(|text| !once.contains(text)).count();
        self.twice += shown.len() - once.len();
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, lost, twice, undecryptable } = self;
        write!(f, "{messages} messages: lost {lost}, twice {twice}, undecryptable {undecryptable}")
    }
}

impl Chat {
    /// Bob writes first: his ghost is made for this. Gives the chat once Alice has read it.
    async fn that_bob_begins(world: World, text: &str) -> Result<Self> {
        let alice = world.element_user("alice").await?;
        let bob = world.omemo_user("bob").await?;
        let chat = Self { world, alice, bob, room: String::new() };
        chat.bob.send(&chat.alices_jid(), text, Namespace::Omemo2).await?;
        chat.comes_to_alice(text).await
    }

    /// Alice follows the invitation that Bob's first words bring, and reads them.
    async fn comes_to_alice(mut self, text: &str) -> Result<Self> {
        let ghost = self.ghost();
        self.room = self.alice.invitation_from(&ghost).await?.room;
        self.alice.join(&self.room).await?;
        self.alice.receives_within(text, PATIENCE).await?;
        Ok(self)
    }

    /// Both write once more, and then all of what they wrote is looked at.
    async fn ends_well(&self, alices: &[&str], bobs: &[&str]) -> Result<Outcome> {
        self.alice.send(&self.room, "That is all from Alice").await?;
        self.bob.receives_within("That is all from Alice", PATIENCE).await?;
        self.bob.send(&self.alices_jid(), "That is all from Bob", Namespace::Legacy).await?;
        self.alice.receives_within("That is all from Bob", PATIENCE).await?;
        let all = |texts: &[&str], last: &str| -> Vec<String> {
            texts.iter().copied().chain([last]).map(str::to_owned).collect()
        };
        let ghost = self.ghost();
        let shown = self.alice.messages();
        let at_alice: Vec<_> = shown.iter().filter(|message| message.sender == ghost).collect();
        let mut outcome = Outcome {
            undecryptable: self.bob.undecryptable()
                + at_alice.iter().filter(|message| message.failure.is_some()).count()
                + self.times_told("could not be decrypted"),
            ..Outcome::default()
        };
        let at_alice: Vec<_> = at_alice.iter().filter_map(|message| message.body.clone()).collect();
        let at_bob = self.bob.texts_from(&self.alices_jid());
        outcome.add(&all(alices, "That is all from Alice"), &at_bob);
        outcome.add(&all(bobs, "That is all from Bob"), &at_alice);
        ensure!(
            (outcome.lost, outcome.twice, outcome.undecryptable) == (0, 0, 0),
            "{outcome}: Bob was shown {at_bob:?}, Alice {at_alice:?}"
        );
        Ok(outcome)
    }
}

/// The ghost of Bob, who has not written yet.
fn bobs_ghost(world: &World) -> String {
    world.ghost_of(&format!("bob@{DOMAIN}"))
}

/// A gateway before the homeserver that answers for it, as in the originals.
fn gateway_timeout(method: axum::http::Method, path: &str) -> Rule {
    Rule::fault(Link::Client, Some(method), path, Fault::Fail { status: 504 })
}
