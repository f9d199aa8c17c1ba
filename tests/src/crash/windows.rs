//! Deaths at each window of a crash. What happened last is the name of the failpoint (`bridge/src/failpoints.rs`).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::figures::Figures;
use super::people::People;
use super::scene::Scene;
use crate::bridge::Bridge;
use crate::world::Program;

/// How long the bridge may take to come to a failpoint.
const REACHED: Duration = Duration::from_secs(90);

/// How long everything may take to arrive after the deaths at one window.
const ARRIVAL: Duration = Duration::from_secs(180);

/// Time for an answer that is on its way to leave the process.
const ANSWER_LEAVES: Duration = Duration::from_millis(50);

/// The process comes to the failpoint for this time at most, so that it dies with some of the work done.
const MOST_HITS: u32 = 3;

/// What a person at the second process must read.
const REFUSAL: &str = "another running process owns this database";

/// A window of a crash.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Its name in the list of windows, W1 to W14.
    pub name: &'static str,
    /// Which way the message goes, and what has happened when the process dies.
    pub what: &'static str,
    /// How the process is made to die.
    death: Death,
}

#[derive(Debug, Clone, Copy)]
enum Death {
    /// At a failpoint, while people talk and more is done.
    At(&'static str, Stir),
    /// At none: a second process is started, and refused.
    Second,
}

/// What brings the bridge to a failpoint, besides messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stir {
    Nothing,
    /// It comes once in a life of the process, by itself.
    Start,
    NewRoomKey,
    OneTimeKeyUsed,
    PrekeyUsed,
    NewGhost,
}

const fn at(name: &'static str, what: &'static str, point: &'static str, stir: Stir) -> Window {
    Window { name, what, death: Death::At(point, stir) }
}

use Stir::{NewGhost, NewRoomKey, Nothing, OneTimeKeyUsed, PrekeyUsed, Start};

/// All of them but W13, a database of an old backup. M is Matrix, X is XMPP.
#[rustfmt::skip]
pub const WINDOWS: &[Window] = &[
    at("W1", "M→X transaction read, not committed", "w01_transaction_received", Nothing),
    at("W1", "X→M stanza read, not committed", "w01_stanza_received", Nothing),
    at("W2", "M→X committed, 200 not sent", "w02_transaction_committed", Nothing),
    at("W2", "X→M committed, receipt not sent", "w02_stanza_committed", Nothing),
    at("W3", "M→X 200 sent, not processed", "w03_transaction_answered", Nothing),
    at("W3", "X→M stanza not decrypted yet", "w03_stanza_pending", Nothing),
    at("W3", "X→M decrypted, not processed", "w03_remote_event_pending", Nothing),
    at("W4", "M→X Megolm opened, not committed", "w04_event_decrypted", Nothing),
    at("W4", "X→M OMEMO opened, not committed", "w04_stanza_decrypted", Nothing),
    at("W5", "M→X index bound, text not passed on", "w05_index_committed", Nothing),
    at("W5", "X→M ratchet and text committed", "w05_ratchet_committed", Nothing),
    at("W5", "machine changed, not committed", "w05_machine_changed", Nothing),
    at("W5", "machine committed, not used", "w05_machine_committed", Nothing),
    at("W6", "M→X encrypted, not committed", "w06_stanza_encrypted", Nothing),
    at("W6", "M→X committed, not sent", "w06_stanza_committed", Nothing),
    at("W6", "X→M encrypted, not committed", "w06_event_encrypted", Nothing),
    at("W6", "X→M committed, not sent", "w06_event_committed", Nothing),
    at("W7", "X→M event sent, reply lost", "w07_event_sent", Nothing),
    at("W8", "X→M room key sent to some devices", "w08_room_key_sent", NewRoomKey),
    at("W9", "one-time keys uploaded, reply lost", "w09_keys_uploaded", OneTimeKeyUsed),
    at("W9", "identity uploaded, reply lost", "w09_identity_uploaded", NewGhost),
    at("W9", "one-time keys claimed, reply lost", "w09_keys_claimed", Start),
    at("W10", "M→X stanza written, stream dies", "w10_stanza_written", Nothing),
    at("W10", "M→X stanza confirmed, not noted", "w10_stanza_confirmed", Nothing),
    at("W11", "X→M stanza in our buffer", "w11_stanza_read", Nothing),
    at("W12", "X→M prekey used, bundle not published", "w12_prekey_used", PrekeyUsed),
    Window { name: "W14", what: "a second process on the database", death: Death::Second },
];

/// The windows of a name, or all of them.
///
/// # Errors
/// When there is none of that name.
pub fn called(name: Option<&str>) -> Result<Vec<Window>> {
    let Some(name) = name else { return Ok(WINDOWS.to_vec()) };
    let called: Vec<_> = WINDOWS.iter().filter(|window| window.name == name).copied().collect();
    let mut known: Vec<_> = WINDOWS.iter().map(|window| window.name).collect();
    known.dedup();
    ensure!(!called.is_empty(), "there is no window {name}, only {}", known.join(", "));
    Ok(called)
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// The window.
    pub window: Window,
    /// How often the process died there or, for W14, the second one was refused.
    pub times: u32,
    /// What became of the messages.
    pub figures: Figures,
}

/// Kills so often at each window, in one scene.
#[derive(Debug)]
pub struct Killer {
    scene: Scene,
    times: u32,
    rng: StdRng,
    http: reqwest::Client,
    ghosts: u32,
}

impl Killer {
    /// Starts everything, with a bridge that has failpoints. The seed chooses how often a failpoint is passed.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn start(times: u32, seed: u64) -> Result<Self> {
        let scene = Scene::open("crash-windows", Program::WithFailpoints).await?;
        let http = reqwest::Client::builder().timeout(REACHED).build()?;
        Ok(Self { scene, times, rng: StdRng::seed_from_u64(seed), http, ghosts: 0 })
    }

    /// Kills at one window, lets everything come to rest, and counts.
    ///
    /// # Errors
    /// When the window is not reached, or the bridge does not come up again.
    pub async fn kill_at(&mut self, window: Window) -> Result<Row> {
        let start = self.scene.begin();
        for _ in 0..self.times {
            match window.death {
                Death::At(point, stir) => self.die_at(point, stir).await,
                Death::Second => self.second_process().await,
            }
            .with_context(|| format!("{} {}", window.name, window.what))?;
        }
        let figures = self.scene.count(&start, ARRIVAL).await?;
        Ok(Row { window, times: self.times, figures })
    }

    /// Ends the scene well.
    ///
    /// # Errors
    /// When nothing was recorded, or the bridge does not end well.
    pub async fn end(mut self) -> Result<()> {
        self.scene.has_recorded()?;
        self.scene.end().await
    }

    async fn die_at(&mut self, point: &str, stir: Stir) -> Result<()> {
        // What is not of every message comes rarely: its first time is the one.
        let most = if stir == Nothing { MOST_HITS } else { 1 };
        let nth = self.rng.gen_range(1..=most);
        let wait = if point == "w03_transaction_answered" { ANSWER_LEAVES } else { Duration::ZERO };
        let Scene { world, people, .. } = &mut self.scene;
        let bridge = &mut world.bridge;
        bridge.die_at(point, nth, wait)?;
        let (address, token) = (bridge.address(), bridge.hs_token()?);
        let is_dead = CancellationToken::new();
        let dies = async {
            let died = bridge.dies(REACHED).await;
            is_dead.cancel();
            died
        };
        let talks = async {
            while !is_dead.is_cancelled() {
                if stir == NewGhost {
                    self.ghosts += 1;
                    let ghost = people.ghost.replacen("bob", &format!("new-{}", self.ghosts), 1);
                    let url = format!("http://{address}/_matrix/app/v1/users/{ghost}");
                    // The bridge dies before it answers.
                    let _ = self.http.get(url).bearer_auth(&token).send().await;
                }
                talk(people, stir).await?;
                let pause = tokio::time::sleep(ANSWER_LEAVES);
                is_dead.run_until_cancelled(pause).await;
            }
            anyhow::Ok(())
        };
        let (died, talked) = tokio::join!(dies, talks);
        died?;
        talked?;
        self.scene.restart().await
    }

    async fn second_process(&mut self) -> Result<()> {
        let Scene { world, people, .. } = &self.scene;
        let (refused, talked) = tokio::join!(refused(&world.bridge), talk(people, Nothing));
        refused?;
        talked
    }
}

async fn refused(bridge: &Bridge) -> Result<()> {
    let said = bridge.second_is_refused().await?;
    ensure!(said.contains(REFUSAL), "a second bridge ended for another reason: {said}");
    Ok(())
}

/// Both write once.
async fn talk(people: &People, stir: Stir) -> Result<()> {
    match stir {
        NewRoomKey => people.ask_for_new_room_key().await?,
        OneTimeKeyUsed => people.use_up_one_time_key().await?,
        PrekeyUsed => {
            // The bridge may be gone before it has answered for its bundle.
            let _ = people.use_up_prekey().await;
            // Alice waits until the bridge knows the new sessions.
            return people.bob_says().await.map(drop);
        }
        NewGhost | Start | Nothing => {}
    }
    tokio::try_join!(people.alice_says(), people.bob_says())?;
    Ok(())
}

/// The heading of the table.
pub fn heading() -> String {
    format!("{:<5}{:<40}{:>5} |{}", "", "the process dies:", "times", Figures::HEADING)
}

impl Row {
    /// The row as text.
    pub fn to_line(&self, took: Instant) -> String {
        let Self { window, times, figures } = self;
        let seconds = took.elapsed().as_secs();
        format!("{:<5}{:<40}{times:>5} |{figures}   {seconds} s", window.name, window.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_there_is_not_is_refused() {
        assert_eq!(called(None).unwrap().len(), WINDOWS.len());
        assert_eq!(called(Some("W7")).unwrap().len(), 1);
        let refused = called(Some("W99")).unwrap_err().to_string();
        assert!(refused.contains("no window W99") && refused.contains("W1, W2, "), "{refused}");
    }
}
