//! The world in which the bridge dies. It is built once: only the bridge is started again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep, timeout};

use super::figures::{Figures, Mark};
use super::people::People;
use super::wire::{self, Positions};
use crate::evil_hs::{EvilHomeserver, Order, Rule};
use crate::faults::XmppLink;
use crate::journal::SOON;
use crate::omemo::Namespace;
use crate::world::{Program, Setting, World};

/// How often is looked whether something has come.
const LOOK: Duration = Duration::from_millis(50);

/// How long one message may take before another is sent to see whether anything arrives.
const PROBE: Duration = Duration::from_secs(30);

/// People who talk, and what is recorded of it.
#[derive(Debug)]
pub struct Scene {
    /// The servers and the bridge.
    pub world: World,
    /// The people.
    pub people: People,
    /// What carries the stream between the XMPP server and the bridge.
    pub link: XmppLink,
    evil: EvilHomeserver,
    positions: Positions,
    counted_requests: usize,
    counted_streams: usize,
}

/// Where a count begins.
#[derive(Debug)]
pub struct Start {
    mark: Mark,
    reused: usize,
    stream: usize,
}

impl Scene {
    /// Starts the servers, the clients and this build of the bridge.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn open(name: &str, program: Program) -> Result<Self> {
        Self::open_in(name, Setting { program, ..Setting::default() }).await
    }

    /// Starts the servers, the clients and the bridge in this setting.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn open_in(name: &str, setting: Setting) -> Result<Self> {
        let (world, evil, link) = World::start_recorded(name, setting).await?;
        let people = People::meet(&world).await?;
        Ok(Self {
            world,
            people,
            evil,
            link,
            positions: Positions::default(),
            counted_requests: 0,
            counted_streams: 0,
        })
    }

    /// Lets the homeserver fail by these rules, until the orders are dropped.
    pub fn obey(&self, rules: Vec<Rule>) -> Vec<Order> {
        rules.into_iter().map(|rule| self.evil.obey(rule)).collect()
    }

    /// Begins to count.
    pub fn begin(&mut self) -> Start {
        self.record();
        let (alice, bob) = (self.people.sent_by_alice(), self.people.sent_by_bob().len());
        let mark = self.people.look(|seen| Mark::now(alice, bob, seen));
        let stream = self.link.read(|streams| streams.len().saturating_sub(1));
        Start { mark, reused: self.positions.reused(), stream }
    }

    /// Waits until everything that the bridge has is shown, and counts.
    ///
    /// # Errors
    /// When a client has gone.
    pub async fn count(&mut self, start: &Start, within: Duration) -> Result<Figures> {
        self.settle(start, within).await?;
        self.record();
        let (alice, bob) = (self.people.sent_by_alice(), self.people.sent_by_bob());
        let mut figures = self.people.look(|seen| {
            let streams = |all: &[_]| all.get(start.stream..).unwrap_or_default().to_vec();
            Figures::count(&start.mark, alice, &bob, seen, &self.link.read(streams))
        });
        figures.reused = self.positions.reused() - start.reused;
        Ok(figures)
    }

    /// Waits for a message of Bob's in each namespace and then for one of Alice's, behind which everything arrives that the
    /// bridge has. What does not come in time is missing from the count.
    async fn settle(&self, start: &Start, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        for _ in Namespace::BOTH {
            while Instant::now() < deadline {
                let number = self.people.bob_says().await?;
                if self.is_shown_to_alice(number).await? {
                    break;
                }
            }
        }
        self.people.alice_says().await?;
        let (alice, bob) = (self.people.sent_by_alice(), self.people.sent_by_bob());
        let is_open = || self.people.look(|seen| seen.owes(&start.mark, alice, &bob));
        while is_open() && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether a message of Bob's has come to Alice, and did not come back.
    async fn is_shown_to_alice(&self, number: usize) -> Result<bool> {
        let stanzas = self.people.sent_by_bob();
        let stanza = stanzas.get(number).context("no such message")?;
        let shown = async {
            loop {
                let (is_shown, is_back) = self
                    .people
                    .look(|seen| (seen.at_alice.contains(&number), seen.bounces.contains(stanza)));
                if is_shown || is_back {
                    return is_shown;
                }
                sleep(LOOK).await;
            }
        };
        let is_shown = timeout(PROBE, shown).await.unwrap_or(false);
        if !is_shown {
            // The bridge is not there yet.
            sleep(LOOK * 4).await;
        }
        Ok(is_shown)
    }

    /// Takes note of every key that was used since the last time.
    fn record(&mut self) {
        let positions = &mut self.positions;
        self.counted_requests = self.evil.requests().read(|all| {
            all.iter().skip(self.counted_requests).for_each(|it| positions.add_request(it));
            all.len()
        });
        self.counted_streams = self.link.read(|all| {
            for stream in all.iter().skip(self.counted_streams) {
                wire::messages(&stream.to_server).iter().for_each(|it| positions.add_stanza(it));
            }
            // The newest stream goes on: it is looked at again.
            all.len().saturating_sub(1)
        });
    }

    /// Starts the bridge again.
    ///
    /// # Errors
    /// When it does not become healthy.
    pub async fn restart(&mut self) -> Result<()> {
        self.world.bridge.run().await
    }

    /// Shows that the recording bites: something was encrypted on both sides.
    ///
    /// # Errors
    /// When nothing was recorded.
    pub fn has_recorded(&mut self) -> Result<()> {
        self.record();
        ensure!(self.positions.has_both(), "the recording has seen no encryption");
        Ok(())
    }

    /// Ends the scene well.
    ///
    /// # Errors
    /// When the bridge does not end well.
    pub async fn end(self) -> Result<()> {
        timeout(SOON, self.world.end()).await.context("the bridge did not end")?
    }
}
