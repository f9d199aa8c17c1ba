//! The bridge is killed. The same with more deaths is `cargo xtask crash`.

use anyhow::{Result, ensure};
use tests::crash::Figures;
use tests::crash::random::kill_at_random;
use tests::crash::windows::{Killer, WINDOWS};
use tests::paths;

#[tokio::test]
async fn a_death_at_each_window_loses_and_repeats_nothing() -> Result<()> {
    let mut killer = Killer::start(1, 1).await?;
    let mut all = Figures::default();
    for window in WINDOWS {
        let row = killer.kill_at(*window).await?;
        ensure!(row.figures.is_good(), "{row:?}");
        all.add(&row.figures);
    }
    println!(
        "safety: crash_windows: {} deaths, {} messages: {}",
        WINDOWS.len(),
        all.sent,
        said(&all)
    );
    killer.end().await
}

#[tokio::test]
async fn deaths_at_random_lose_and_repeat_nothing() -> Result<()> {
    let outcome = kill_at_random(80, 1, Vec::new()).await?;
    let Figures { sent, .. } = outcome.figures;
    println!(
        "safety: crash_random: {} deaths, {sent} messages: {}",
        outcome.kills,
        said(&outcome.figures)
    );
    ensure!(outcome.figures.is_good(), "{outcome:?}");
    Ok(())
}

/// What must be zero, and what XEP-0114 cannot promise.
fn said(figures: &Figures) -> String {
    let Figures { lost, twice, undecryptable, reordered, reused, bounced, left, .. } = figures;
    format!(
        "lost {lost}, twice {twice}, undecryptable {undecryptable}, reordered {reordered}, key reuse {reused}; \
         bounced {bounced}, left in a socket {left}"
    )
}

#[test]
fn the_program_as_shipped_has_no_failpoints() -> Result<()> {
    const NAMES: [&str; 3] = ["w02_transaction_committed", "w07_event_sent", "FAILPOINT_FILE"];
    let named_in = |program: std::path::PathBuf| -> Result<usize> {
        let bytes = std::fs::read(program)?;
        let is_there = |name: &str| bytes.windows(name.len()).any(|part| part == name.as_bytes());
        Ok(NAMES.into_iter().filter(|name| is_there(name)).count())
    };
    assert_eq!(named_in(paths::gephyra_with_failpoints()?)?, 3, "the search finds nothing");
    assert_eq!(named_in(paths::gephyra()?)?, 0);
    Ok(())
}
