//! The bridge is killed. The same with more deaths is `cargo xtask crash`.

use anyhow::{Result, ensure};
use tests::crash::Figures;
use tests::crash::random::{Plan, kill_at_random};
use tests::crash::windows::{Killer, WINDOWS, Window};
use tests::paths;

/// In the description of a window: the message is on its way from Matrix to XMPP.
const TO_XMPP: &str = "M→X";

#[tokio::test]
async fn a_death_at_each_window_towards_xmpp_loses_and_repeats_nothing() -> Result<()> {
    let (deaths, figures) = die_where(|window| window.what.starts_with(TO_XMPP)).await?;
    println!("safety: crash_windows_to_xmpp: {deaths} deaths, {}", said(&figures));
    Ok(())
}

#[tokio::test]
async fn a_death_at_each_window_towards_matrix_loses_and_repeats_nothing() -> Result<()> {
    let (deaths, figures) = die_where(|window| !window.what.starts_with(TO_XMPP)).await?;
    println!("safety: crash_windows_to_matrix: {deaths} deaths, {}", said(&figures));
    Ok(())
}

#[tokio::test]
async fn deaths_at_random_lose_and_repeat_nothing() -> Result<()> {
    let outcome = kill_at_random(Plan { lives_ms: 100..1500, ..Plan::new(100, 1) }).await?;
    println!("safety: crash_random: {} deaths, {}", outcome.kills, said(&outcome.figures));
    ensure!(outcome.figures.is_good() && outcome.kills > 2, "{outcome:?}");
    Ok(())
}

/// One death at each of these windows; gives their number and what became of the messages.
async fn die_where(is_asked: impl Fn(&Window) -> bool) -> Result<(usize, Figures)> {
    let mut killer = Killer::start(1, 1).await?;
    let (mut deaths, mut all) = (0, Figures::default());
    for window in WINDOWS.iter().filter(|window| is_asked(window)) {
        let row = killer.kill_at(*window).await?;
        ensure!(row.figures.is_good(), "{row:?}");
        all.add(&row.figures);
        deaths += 1;
    }
    killer.end().await?;
    Ok((deaths, all))
}

/// What must be zero, and what XEP-0114 cannot promise.
pub(crate) fn said(figures: &Figures) -> String {
    let Figures { sent, lost, twice, undecryptable, reordered, reused, bounced, left, .. } =
        figures;
    format!(
        "{sent} messages: lost {lost}, twice {twice}, undecryptable {undecryptable}, reordered {reordered}, key reuse {reused}; \
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
