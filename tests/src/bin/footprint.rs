//! What a ghost costs: memory while its device is loaded, and bytes in the database. Measured on the running bridge.
#![expect(clippy::print_stdout, reason = "the measurement is what it prints")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::World;

/// Few enough to stay loaded all at a time.
const GHOSTS: u64 = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let world = World::start("footprint").await?;
    // The first ones fill pools and caches that are not a ghost's.
    make_ghosts(&world, "warm-up", 20).await?;
    let before = measure(&world)?;
    make_ghosts(&world, "measured", GHOSTS).await?;
    let after = measure(&world)?;
    println!("memory per loaded ghost: {} KiB", (after.memory - before.memory) / 1024 / GHOSTS);
    println!("database per ghost:      {} bytes", (after.database - before.database) / GHOSTS);
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

/// Bytes that the bridge occupies.
struct Footprint {
    memory: u64,
    database: u64,
}

fn measure(world: &World) -> Result<Footprint> {
    let pid = world.bridge.pid().context("the bridge does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|text| text.trim().strip_suffix(" kB"));
    let kib: u64 = resident.context("no resident size")?.trim().parse()?;
    Ok(Footprint { memory: kib * 1024, database: database_size(world.bridge.dir())? })
}

fn database_size(dir: &Path) -> Result<u64> {
    let sizes = ["gephyra.db", "gephyra.db-wal"].map(|name| fs::metadata(dir.join(name)));
    let [database, log] = sizes;
    Ok(database.context("no database")?.len() + log.map_or(0, |log| log.len()))
}
