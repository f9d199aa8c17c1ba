//! `kill -9` at any moment, while a given number of messages flows both ways.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::figures::Figures;
use super::people::People;
use super::scene::Scene;
use crate::bridge::Bridge;
use crate::evil_hs::{Order, Rule};
use crate::world::Program;

/// Messages that one side is ahead of the other's client.
const AHEAD: usize = 40;

/// Bob waits for receipts as a person would notice that none come.
const BOB_AHEAD: usize = 10;
const BOBS_PATIENCE: Duration = Duration::from_secs(3);

/// The bridge lives for so long at least.
const SHORTEST_LIFE_MS: u64 = 500;

/// How often a writer looks whether the other side follows.
const LOOK: Duration = Duration::from_millis(20);

/// The last messages may take this long to arrive, and this much longer for each that was sent.
const ARRIVAL: Duration = Duration::from_secs(120);
const ARRIVAL_OF_EACH: Duration = Duration::from_millis(100);

/// What is killed, and how.
#[derive(Debug)]
pub struct Plan {
    /// How many messages flow, half of them each way.
    pub messages: usize,
    /// How long the bridge lives, in milliseconds from when it is healthy.
    pub lives_ms: Range<u64>,
    /// Chooses the moments.
    pub seed: u64,
    /// How the homeserver fails meanwhile.
    pub rules: Vec<Rule>,
}

impl Plan {
    /// A bridge that lives for half a second to six seconds, and a homeserver that does not fail.
    pub fn new(messages: usize, seed: u64) -> Self {
        Self { messages, lives_ms: SHORTEST_LIFE_MS..6000, seed, rules: Vec::new() }
    }

    /// The same, with a bridge that lives for so many seconds at most.
    #[must_use]
    pub fn with_longest_life(self, seconds: u32) -> Self {
        Self { lives_ms: SHORTEST_LIFE_MS..u64::from(seconds) * 1000, ..self }
    }
}

/// What random kills did.
#[derive(Debug)]
pub struct Outcome {
    /// How often the process was killed.
    pub kills: u32,
    /// How long it took until everything had come to rest.
    pub took: Duration,
    /// What became of the messages.
    pub figures: Figures,
    /// The rules of the homeserver, each with how often it was applied.
    pub rules: Vec<String>,
}

/// Kills at random while messages flow.
///
/// # Errors
/// When something does not come up, or a client or homeserver refuses.
pub async fn kill_at_random(plan: Plan) -> Result<Outcome> {
    let Plan { messages, lives_ms, seed, rules } = plan;
    let mut scene = Scene::open("crash-random", Program::AsShipped).await?;
    let orders = scene.obey(rules);
    let (began, start) = (Instant::now(), scene.begin());
    let Scene { world, people, .. } = &mut scene;
    let all_sent = CancellationToken::new();
    let talk = async {
        let sent = tokio::try_join!(
            alice_writes(people, messages / 2),
            bob_writes(people, messages - messages / 2)
        );
        all_sent.cancel();
        sent
    };
    let rng = StdRng::seed_from_u64(seed);
    let kill = kill_until(&mut world.bridge, &all_sent, lives_ms, rng);
    let (talked, kills) = tokio::join!(talk, kill);
    talked?;
    let within = ARRIVAL + ARRIVAL_OF_EACH * u32::try_from(messages)?;
    let figures = scene.count(&start, within).await?;
    let rules = orders.iter().map(Order::to_string).collect();
    let outcome = Outcome { kills: kills?, took: began.elapsed(), figures, rules };
    scene.has_recorded()?;
    if outcome.figures.is_good() {
        scene.end().await?;
    }
    Ok(outcome)
}

async fn kill_until(
    bridge: &mut Bridge,
    done: &CancellationToken,
    lives_ms: Range<u64>,
    mut rng: StdRng,
) -> Result<u32> {
    let mut kills = 0;
    loop {
        let life = Duration::from_millis(rng.gen_range(lives_ms.clone()));
        if done.run_until_cancelled(sleep(life)).await.is_none() {
            return Ok(kills);
        }
        bridge.kill().await?;
        kills += 1;
        bridge.run().await?;
    }
}

async fn alice_writes(people: &People, number: usize) -> Result<()> {
    for _ in 0..number {
        while people.sent_by_alice() > people.look(|seen| seen.at_bob.len()) + AHEAD {
            sleep(LOOK).await;
        }
        people.alice_says().await?;
    }
    Ok(())
}

/// A stanza that a socket has swallowed is never answered: it is not waited for twice.
async fn bob_writes(people: &People, number: usize) -> Result<()> {
    let mut given_up = 0;
    for sent in 0..number {
        let waiting = || {
            let answers = people.look(|seen| seen.receipts.len() + seen.bounces.len());
            people.sent_by_bob().len().saturating_sub(answers)
        };
        let since = Instant::now();
        while waiting() > given_up + BOB_AHEAD && since.elapsed() < BOBS_PATIENCE {
            sleep(LOOK).await;
        }
        if since.elapsed() >= BOBS_PATIENCE {
            given_up = waiting();
        }
        // What came back to Bob never comes to Alice.
        let at_rest = || people.look(|seen| seen.at_alice.len() + seen.bounces.len());
        let is_ahead = || sent > at_rest() + given_up + AHEAD * 4;
        while is_ahead() && since.elapsed() < BOBS_PATIENCE * 4 {
            sleep(LOOK).await;
        }
        people.bob_says().await?;
    }
    Ok(())
}
