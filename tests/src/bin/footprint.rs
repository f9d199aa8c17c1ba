//! What a ghost costs: memory while its device is loaded, and bytes in the database. Measured on the running bridge.
#![expect(clippy::print_stdout, reason = "the measurement is what it prints")]

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::World;
use tests::soak::gauges::resident_kib;

/// Few enough to stay loaded all at a time.
const GHOSTS: u64 = 100;

/// The first ones fill pools and caches that are not a ghost's.
const WARM_UP: u64 = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let mut world = World::start("footprint").await?;
    make_ghosts(&world, "first", WARM_UP).await?;
    let empty = database_size(&mut world).await?;
    make_ghosts(&world, "warm-up", WARM_UP).await?;
    let before = memory(&world)?;
    make_ghosts(&world, "measured", GHOSTS).await?;
    let loaded = memory(&world)?.saturating_sub(before);
    let stored = database_size(&mut world).await?.saturating_sub(empty);
    println!("memory per loaded ghost\t{} KiB", loaded / 1024 / GHOSTS);
    println!("database per stored ghost\t{} bytes", stored / (WARM_UP + GHOSTS));
    world.end().await
}

/// Asks the bridge about contacts as the homeserver does, which makes their ghosts.
async fn make_ghosts(world: &World, name: &str, number: u64) -> Result<()> {
    let registration = fs::read_to_string(world.bridge.registration())?;
    let token = registration.lines().find_map(|line| line.strip_prefix("hs_token:"));
    let token = token.context("no hs_token in the registration")?.trim().trim_matches('"');
    let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
    for index in 0..number {
        let ghost = world.ghost_of(&format!("{name}-{index}@example.org"));
        let address = world.bridge.address();
        let url = format!("http://{address}/_matrix/app/v1/users/{ghost}");
        let answer = http.get(url).bearer_auth(token).send().await?;
        ensure!(answer.status().is_success(), "the bridge did not make a ghost");
    }
    Ok(())
}

/// Bytes that the bridge occupies in memory.
fn memory(world: &World) -> Result<u64> {
    Ok(resident_kib(world.bridge.pid().context("the bridge does not run")?)? * 1024)
}

/// Bytes of the database's file. The bridge is stopped for it: then nothing is left in the log
/// beside the file.
async fn database_size(world: &mut World) -> Result<u64> {
    world.bridge.stop().await?;
    let size = fs::metadata(world.bridge.dir().join("gephyra.db")).context("no database")?.len();
    world.bridge.run().await?;
    Ok(size)
}
