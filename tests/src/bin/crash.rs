//! Kills the bridge and prints what became of the messages: `cargo xtask crash`.
#![expect(clippy::print_stdout, reason = "the table is what it prints")]

use std::env;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tests::crash::figures::Figures;
use tests::crash::random::{Plan, kill_at_random};
use tests::crash::windows::{self, Killer};
use tests::evil_hs::Rule;

/// What the command line asks for.
#[derive(Debug, Default)]
struct Arguments {
    windows: bool,
    times: Option<u32>,
    messages: Option<usize>,
    seed: u64,
    only: Option<String>,
    rules: Option<PathBuf>,
    longest_life: u32,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut read = Self { seed: 1, longest_life: 6, ..Self::default() };
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--windows" {
                read.windows = true;
                continue;
            }
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--times" => read.times = Some(value.parse()?),
                "--messages" => read.messages = Some(value.parse()?),
                "--seed" => read.seed = value.parse()?,
                "--only" => read.only = Some(value),
                "--longest-life" => read.longest_life = value.parse()?,
                "--rules" => read.rules = Some(value.into()),
                _ => bail!("{word} is not known"),
            }
        }
        Ok(read)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    println!("seed {}", arguments.seed);
    let mut is_good = true;
    if arguments.windows {
        is_good &= kill_at_windows(&arguments).await?;
    }
    if let Some(messages) = arguments.messages {
        is_good &= kill_while(messages, &arguments).await?;
    }
    ensure!(is_good, "a figure that must be 0 is not");
    Ok(())
}

async fn kill_at_windows(arguments: &Arguments) -> Result<bool> {
    let began = Instant::now();
    let times = arguments.times.unwrap_or(50);
    let windows = windows::called(arguments.only.as_deref())?;
    let mut killer = Killer::start(times, arguments.seed).await?;
    println!("{}", windows::heading());
    let mut all = Figures::default();
    for window in windows {
        let took = Instant::now();
        let row = killer.kill_at(window).await?;
        println!("{}", row.to_line(took));
        all.add(&row.figures);
    }
    println!("{:<50} |{all}   {} s", "all", began.elapsed().as_secs());
    println!("W13, a database of an old backup, was not run: it is a line of `cargo xtask safety`");
    killer.end().await?;
    Ok(all.is_good())
}

async fn kill_while(messages: usize, arguments: &Arguments) -> Result<bool> {
    let rules = arguments.rules.as_deref().map(Rule::read_all).transpose()?;
    let plan = Plan::new(messages, arguments.seed).with_longest_life(arguments.longest_life);
    let outcome = kill_at_random(Plan { rules: rules.unwrap_or_default(), ..plan }).await?;
    println!("kill -9 at random: {} kills, {} s", outcome.kills, outcome.took.as_secs());
    println!("{}\n{}", Figures::HEADING, outcome.figures);
    outcome.rules.iter().for_each(|rule| println!("{rule}"));
    ensure!(outcome.kills > 0, "all was said before the first kill: more messages are needed");
    Ok(outcome.figures.is_good())
}
