//! Lets messages flow over many chats and prints what grows: `cargo xtask soak`.
#![expect(clippy::print_stdout, reason = "the table is what it prints")]

use std::{env, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tests::World;
use tests::soak::ages::grow_older;
use tests::soak::gauges::{Gauges, Sample, Tables, growth_per_thousand};
use tests::soak::{Outcome, Plan, soak};

/// The first samples are left out where the slope is taken: pools, caches and the ghosts' devices fill up.
const WARM_UP: usize = 5;

/// When the database is looked at again, in days from now: behind the rule for events, for room keys and for messages.
const AGES_DAYS: [u64; 3] = [31, 100, 400];

#[tokio::main]
async fn main() -> Result<()> {
    let plan = read_arguments()?;
    let mut world = World::start_quiet("soak").await?;
    println!(
        "{:>8}{:>10}{:>8}{:>12}{:>14}{:>14}{:>16}",
        "seconds",
        "messages",
        "per s",
        "memory KiB",
        "database KiB",
        "its files KiB",
        "to-device rows"
    );
    let mut last: Option<Sample> = None;
    let outcome = soak(&mut world, plan, |sample| {
        print_sample(sample, last);
        last = Some(*sample);
    });
    let outcome = outcome.await?;
    print_figures(plan, &outcome);
    let mut ages = Vec::new();
    let mut age = 0;
    for days in AGES_DAYS {
        grow_older(world.bridge.dir(), age, days).await?;
        age = days;
        ages.push(Gauges::tables_in(&world.bridge.dir().join("gephyra.db")).await?);
    }
    print_tables(&outcome, &ages);
    let Outcome { lost, twice, failures, .. } = outcome;
    ensure!(lost + twice + failures == 0, "a figure that must be 0 is not");
    world.clear();
    Ok(())
}

fn read_arguments() -> Result<Plan> {
    let mut plan = Plan { messages: 2000, ghosts: 50, time: Duration::from_secs(2 * 60 * 60) };
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a number"))?;
        match word.as_str() {
            "--messages" => plan.messages = value.parse()?,
            "--ghosts" => plan.ghosts = value.parse()?,
            "--minutes" => plan.time = Duration::from_secs(60 * value.parse::<u64>()?),
            _ => bail!("{word} is not known"),
        }
    }
    Ok(plan)
}

fn print_sample(sample: &Sample, last: Option<Sample>) {
    let Sample { at, messages, resident_kib, pages_bytes, files_bytes, to_device } = sample;
    let since = last.map_or(0.0, |last| (*at - last.at).as_secs_f64());
    let more = last.map_or(0, |last| messages - last.messages);
    let pace = per(more, since);
    println!(
        "{:>8}{messages:>10}{pace:>8.1}{resident_kib:>12}{:>14}{:>14}{to_device:>16}",
        at.as_secs(),
        pages_bytes / 1024,
        files_bytes / 1024,
    );
}

fn print_figures(plan: Plan, outcome: &Outcome) {
    let Outcome { opening, samples, written, lost, twice, failures, .. } = outcome;
    println!("{} chats made in {} s", plan.ghosts, opening.as_secs());
    println!("{written} of {} messages written", plan.messages);
    if let Some(last) = samples.last() {
        let pace = per(last.messages, last.at.as_secs_f64());
        println!("{pace:.1} messages per second, both ways together");
    }
    if let Some(growth) = growth_per_thousand(samples.get(WARM_UP..).unwrap_or_default()) {
        println!(
            "memory grows by {growth:.0} kB for 1,000 messages after the first {WARM_UP} looks"
        );
    }
    println!("lost {lost}, shown twice {twice}, not opened or given back {failures}");
}

/// What 10,000 messages add to each table, and what time leaves of it.
fn print_tables(outcome: &Outcome, ages: &[Tables]) {
    let written = i64::try_from(outcome.written).unwrap_or(i64::MAX).max(1);
    let share = |bytes: i64| bytes * 10_000 / written;
    let columns: Vec<&Tables> = [&outcome.after].into_iter().chain(ages).collect();
    println!("\nKiB that 10,000 messages add:\n{:<24}{:>12}{}", "table", "at once", heading());
    for (table, begun) in &outcome.before.bytes {
        let kib = columns.iter().map(|tables| {
            let bytes = tables.bytes.get(table).copied().unwrap_or_default();
            format!("{:>12}", share(bytes - begun) / 1024)
        });
        println!("{table:<24}{}", kib.collect::<String>());
    }
    let all = columns.iter().map(|tables| {
        format!("{:>12}", share(tables.all_bytes() - outcome.before.all_bytes()) / 1024)
    });
    println!("{:<24}{}", "all", all.collect::<String>());
    println!("\nrows of devices' records that they add:");
    for kind in outcome.after.records.keys() {
        let of = |tables: &Tables| tables.records.get(kind).copied().unwrap_or_default();
        let rows =
            columns.iter().map(|tables| format!("{:>12}", share(of(tables) - of(&outcome.before))));
        println!("{kind:<24}{}", rows.collect::<String>());
    }
}

fn heading() -> String {
    AGES_DAYS.iter().map(|days| format!("{:>12}", format!("{days} days"))).collect()
}

fn per(number: usize, seconds: f64) -> f64 {
    let number = u32::try_from(number).map_or(f64::NAN, f64::from);
    if seconds > 0.0 { number / seconds } else { 0.0 }
}
