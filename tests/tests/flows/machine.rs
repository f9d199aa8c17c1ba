//! The machine fails the bridge: its database is away, its disk is full, its clock jumps, a second process starts.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::bridge::Room;
use tests::crash::Figures;
use tests::crash::people::People;
use tests::crash::scene::{Scene, Start};
use tests::journal::SOON;
use tests::postgres::{self, PostgresServer};
use tests::world::Setting;
use tests::{World, paths};
use tokio::time::{interval, sleep, timeout};

use crate::crashes::said;

/// What was written meanwhile arrives within this time: a busy machine works on a backlog for minutes.
const ARRIVAL: Duration = Duration::from_secs(900);

/// How long an outage lasts: `cargo xtask safety` asks for minutes, by this variable, in seconds.
const OUTAGE_SECONDS: &str = "GEPHYRA_OUTAGE_SECONDS";

const HOUR_MS: i64 = 60 * 60 * 1000;

fn outage() -> Result<Duration> {
    let seconds = env::var(OUTAGE_SECONDS).ok().map_or(Ok(20), |seconds| seconds.parse())?;
    Ok(Duration::from_secs(seconds))
}

#[tokio::test]
async fn postgresql_that_is_away_costs_no_message() -> Result<()> {
    let dir = paths::scratch("postgres-away-server")?;
    let mut server = PostgresServer::start(&dir).await?;
    let setting = Setting { database_url: Some(server.url()), ..Setting::default() };
    let mut scene = Scene::open_in("postgres-away", setting).await?;
    let start = scene.begin();
    let outage = outage()?;
    let away = async {
        server.stop().await?;
        carries_next_to_nothing(&scene.people, outage).await?;
        server.start_again().await
    };
    scene.people.talk_while(away).await?;
    let figures = count(&mut scene, &start).await?;
    println!(
        "safety: postgres_away: {} s without PostgreSQL, {}",
        outage.as_secs(),
        said(&figures)
    );
    scene.end().await?;
    drop(server);
    Ok(std::fs::remove_dir_all(dir)?)
}

#[tokio::test]
async fn a_full_disk_costs_no_message() -> Result<()> {
    let mut scene = Scene::open_in("full-disk", Setting::default()).await?;
    let start = scene.begin();
    let outage = outage()?;
    let Scene { world, people, .. } = &scene;
    let process = world.bridge.pid();
    let full = async {
        world.bridge.limit_files(Room::None).await?;
        carries_next_to_nothing(people, outage).await?;
        world.bridge.limit_files(Room::Plenty).await
    };
    people.talk_while(full).await?;
    let figures = count(&mut scene, &start).await?;
    ensure!(scene.world.bridge.pid() == process, "the bridge has ended");
    println!("safety: full_disk: {} s without room, {}", outage.as_secs(), said(&figures));
    scene.end().await
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_each_way_costs_no_message() -> Result<()> {
    let dir = paths::scratch("clock-file")?;
    let clock = dir.join("offset");
    // Read at each look at the clock: moved there whole.
    let set = |offset: &str| {
        let draft = dir.join("draft");
        std::fs::write(&draft, offset)?;
        std::fs::rename(draft, &clock)
    };
    set("+0")?;
    let environment = vec![
        ("LD_PRELOAD", libfaketime()?.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
    let setting = Setting { environment, ..Setting::default() };
    let mut scene = Scene::open_in("clock-jumps", setting).await?;
    let start = scene.begin();
    let bridge = &scene.world.bridge;
    let jumps = async {
        for (offset, days) in [("+1d", 1), ("-1d", -2), ("+0", 1)] {
            let before_ms = bridge.newest_event_ms().await?;
            set(offset)?;
            carries(&scene.people, 10).await?;
            let jumped_ms = bridge.newest_event_ms().await? - before_ms;
            // Ten messages take some time as well.
            let is_seen = (0..HOUR_MS).contains(&(jumped_ms - days * 24 * HOUR_MS));
            ensure!(is_seen, "{offset}: the bridge's clock went on by {jumped_ms} ms");
        }
        Ok(())
    };
    scene.people.talk_while(jumps).await?;
    let figures = count(&mut scene, &start).await?;
    println!("safety: clock_jumps: 3 jumps, each seen by the bridge, {}", said(&figures));
    scene.end().await?;
    Ok(std::fs::remove_dir_all(dir)?)
}

#[tokio::test]
async fn a_second_process_on_a_database_does_not_start() -> Result<()> {
    let mut refused = 0;
    for database_url in [None, Some(postgres::new_database().await?)] {
        let world = match database_url {
            None => World::start("second-process").await?,
            Some(url) => World::start_on("second-process-postgres", url).await?,
        };
        let said = world.bridge.second_is_refused().await?;
        ensure!(said.contains("another running process owns this database"), "{said}");
        refused += 1;
        world.end().await?;
    }
    println!("safety: second_process: refused on {refused} of 2 databases");
    Ok(())
}

#[tokio::test]
async fn a_process_that_was_replaced_sends_nothing_twice() -> Result<()> {
    let database_url = postgres::new_database().await?;
    let setting = Setting { database_url: Some(database_url.clone()), ..Setting::default() };
    let mut scene = Scene::open_in("replaced", setting).await?;
    let start = scene.begin();
    let Scene { world, people, link, .. } = &mut scene;
    let mut twin = world.bridge.twin()?;
    let replaced = async {
        carries(people, 5).await?;
        // The machine hangs, and the database gives its connections up.
        world.bridge.pause()?;
        postgres::end_connections_to(&database_url).await?;
        link.cut();
        twin.run().await?;
        world.bridge.resume()?;
        world.bridge.fails(Duration::from_secs(30)).await?;
        twin.stop().await?;
        world.bridge.run_connected().await?;
        carries(people, 10).await
    };
    people.talk_while(replaced).await?;
    let figures = count(&mut scene, &start).await?;
    println!("safety: replaced_process: it ended by itself, {}", said(&figures));
    scene.end().await
}

/// Waits until so many more messages of each side were shown to the other.
async fn carries(people: &People, more: usize) -> Result<()> {
    let shown = || people.look(|seen| (seen.at_alice.len(), seen.at_bob.len()));
    let (at_alice, at_bob) = shown();
    let carried = async {
        let mut looks = interval(Duration::from_millis(50));
        while shown().0 < at_alice + more || shown().1 < at_bob + more {
            looks.tick().await;
        }
    };
    timeout(SOON, carried).await.context("nothing is carried any more")
}

/// Lets so much time pass. Of what Alice writes meanwhile less than half may reach Bob: what is missing is missing.
async fn carries_next_to_nothing(people: &People, outage: Duration) -> Result<()> {
    let now = || (people.sent_by_alice(), people.look(|seen| seen.at_bob.len()));
    let (written, shown) = now();
    sleep(outage).await;
    let (written, shown) = (now().0 - written, now().1 - shown);
    ensure!(shown < written / 2, "{shown} of {written} were carried: nothing was missing");
    Ok(())
}

/// Waits until everything has arrived and counts; all that must be zero is.
async fn count(scene: &mut Scene, start: &Start) -> Result<Figures> {
    let figures = scene.count(start, ARRIVAL).await?;
    ensure!(figures.is_good() && figures.sent > 20, "{figures:?}");
    scene.has_recorded()?;
    Ok(figures)
}

/// The library of that name, for programs with threads.
fn libfaketime() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(|folder| Some(folder.ok()?.path()));
    let files = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.is_file()).context("libfaketime is not installed")
}
