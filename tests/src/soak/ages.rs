//! What time leaves of a database: housekeeping's rounds, without waiting for the time to pass.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bridge::clock::Clock;
use bridge::config::Config;
use bridge::housekeeping::look_once;
use bridge::store::{Database, StoreKey};
use matrix_sdk::ruma::MilliSecondsSinceUnixEpoch;
use sqlx::{AnyConnection, Connection as _, Executor as _};

/// As often as a bridge that is stopped now and then.
const EVERY_DAYS: u64 = 10;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock that stands.
struct At(SystemTime);

impl Clock for At {
    fn now(&self) -> SystemTime {
        self.0
    }
}

/// Keeps house in the database of a bridge that does not run as it will have done between two ages in days from now,
/// and gives the pages back that are free then.
///
/// # Errors
/// When the database cannot be used.
pub async fn grow_older(dir: &Path, from_days: u64, to_days: u64) -> Result<()> {
    let config = Config::load(&dir.join("config.toml"), [])?;
    let database = &config.database;
    let key = StoreKey::load(&database.key_file)?;
    let db = Database::connect(database.url.as_str(), &key, &database.witness_file).await?;
    let now = SystemTime::UNIX_EPOCH
        + Duration::from_millis(MilliSecondsSinceUnixEpoch::now().get().into());
    let mut day = from_days;
    loop {
        let clock = At(now + DAY * u32::try_from(day)?);
        look_once(&db, &clock, config.policy.hold_hours.as_duration()).await?;
        if day >= to_days {
            break;
        }
        day = (day + EVERY_DAYS).min(to_days);
    }
    db.close().await?;
    let mut file = AnyConnection::connect(database.url.as_str()).await?;
    file.execute("VACUUM").await?;
    Ok(file.close().await?)
}
