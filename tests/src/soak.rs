//! Many messages over many chats, and what grows meanwhile: `cargo xtask soak`.
//!
//! Real servers and the bridge as an operator has it; both legs of every message are encrypted. Most contacts are a
//! [`crowd`] that needs little memory, and two are independent clients. Messages flow as fast as the servers take
//! them, with a bounded number on their way.

pub mod ages;
pub mod chats;
pub mod crowd;
pub mod gauges;
mod member;

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::World;
use chats::Chats;
use gauges::{Gauges, Sample, Tables};

/// Each side's chats are written in by so many hands, each of which has chats of its own: so the order within a chat
/// is that of the numbers.
const HANDS: usize = 8;

/// How often is looked.
const SAMPLES: usize = 20;

/// What is not shown so long after the last that was is lost.
const QUIET: Duration = Duration::from_secs(60);

/// How much of what.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Messages, half of them each way.
    pub messages: usize,
    /// Contacts with a chat of their own, and a ghost each.
    pub ghosts: usize,
    /// Nothing more is written after so long.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// How long it took to make the chats.
    pub opening: Duration,
    /// Memory and databases over time.
    pub samples: Vec<Sample>,
    /// The tables when the first message was written.
    pub before: Tables,
    /// After the last.
    pub after: Tables,
    /// Messages that were written.
    pub written: usize,
    /// Messages that nobody was shown.
    pub lost: usize,
    /// Messages that were shown again.
    pub twice: usize,
    /// What could not be opened, and what came back.
    pub failures: usize,
}

/// Lets the messages flow; `look` is given every sample when it is taken. The bridge is stopped at the end.
///
/// # Errors
/// When something does not come up, or refuses.
pub async fn soak(world: &mut World, plan: Plan, look: impl FnMut(&Sample)) -> Result<Outcome> {
    ensure!(plan.ghosts > 0 && plan.messages > 0, "nobody writes anything");
    let opening = Gauges::start(world)?;
    let chats = Chats::open(world, plan.ghosts).await?;
    let story = async {
        greet(&chats, plan.ghosts).await?;
        let opening = opening.read(0).await?.at;
        let gauges = Gauges::start(world)?;
        let before = gauges.tables().await?;
        let samples = flow(&chats, &gauges, plan, look).await?;
        let after = gauges.tables().await?;
        world.bridge.stop().await?;
        let written = chats.written() - plan.ghosts;
        let (lost, twice) = chats.lost_and_twice();
        let failures = *chats.failures.borrow();
        Ok(Outcome { opening, samples, before, after, written, lost, twice, failures })
    };
    tokio::select! {
        ended = chats.watch() => { ended?; bail!("a client has ended") }
        outcome = story => outcome,
    }
}

/// Alice writes to each contact once: their sessions begin with it. These messages are not counted.
async fn greet(chats: &Chats, ghosts: usize) -> Result<()> {
    let mut shown = chats.shown.subscribe();
    write_all(chats, ghosts, 0..ghosts, 0..0).await?;
    let greeted = timeout(QUIET, shown.wait_for(|shown| *shown == ghosts)).await;
    greeted.context("not every contact could be greeted")??;
    Ok(())
}

/// Lets all messages flow, and looks at intervals and at the end.
async fn flow(
    chats: &Chats,
    gauges: &Gauges,
    plan: Plan,
    mut look: impl FnMut(&Sample),
) -> Result<Vec<Sample>> {
    let Plan { messages, ghosts, time } = plan;
    let from_alice = ghosts..ghosts + messages / 2;
    let from_contacts = 0..messages - messages / 2;
    let mut samples = Vec::new();
    let done = CancellationToken::new();
    let flowing = async {
        let all_is_written = CancellationToken::new();
        let writing = async {
            let _done = all_is_written.clone().drop_guard();
            write_all(chats, ghosts, from_alice, from_contacts).await
        };
        let watching = async {
            if timeout(time, all_is_written.cancelled()).await.is_err() {
                chats.fall_silent();
            }
        };
        tokio::join!(writing, watching).0?;
        come_to_rest(chats).await;
        done.cancel();
        anyhow::Ok(())
    };
    let mut shown = chats.shown.subscribe();
    let sampling = async {
        for step in 0..SAMPLES {
            let due = ghosts + messages * step / SAMPLES;
            let by_then = *shown.wait_for(|shown| *shown >= due).await?;
            let sample = gauges.read(by_then - ghosts).await?;
            look(&sample);
            samples.push(sample);
        }
        anyhow::Ok(())
    };
    let sampled = done.run_until_cancelled(sampling);
    let (flowed, sampled) = tokio::join!(flowing, sampled);
    flowed?;
    sampled.transpose()?;
    let last = gauges.read(*chats.shown.borrow() - ghosts).await?;
    look(&last);
    samples.push(last);
    Ok(samples)
}

/// Both sides write the messages with these numbers.
async fn write_all(
    chats: &Chats,
    ghosts: usize,
    from_alice: Range<usize>,
    from_contacts: Range<usize>,
) -> Result<()> {
    let of = |hand: usize| move |number: &usize| number % ghosts % HANDS == hand;
    let alice = (0..HANDS).map(|hand| chats.alice_writes(from_alice.clone().filter(of(hand))));
    let contacts =
        (0..HANDS).map(|hand| chats.contacts_write(from_contacts.clone().filter(of(hand))));
    tokio::try_join!(try_join_all(alice), try_join_all(contacts))?;
    Ok(())
}

/// Waits until all messages were shown, or nothing is shown any more.
async fn come_to_rest(chats: &Chats) {
    let (mut shown, written) = (chats.shown.subscribe(), chats.written());
    while *shown.borrow_and_update() < written
        && matches!(timeout(QUIET, shown.changed()).await, Ok(Ok(())))
    {}
}
