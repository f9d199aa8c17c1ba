//! What is read off while messages flow: memory, databases, and what waits at the homeserver.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sqlx::{AnyConnection, Connection as _};

use crate::world::World;

/// One look.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Since the messages began.
    pub at: Duration,
    /// Messages that were shown by then.
    pub messages: usize,
    /// What the bridge occupies in memory.
    pub resident_kib: u64,
    /// The pages of its database.
    pub pages_bytes: i64,
    /// The files of its database, the log of its writes among them.
    pub files_bytes: u64,
    /// To-device messages that wait at the homeserver for the bridge's devices.
    pub to_device: i64,
}

/// Where it is read.
#[derive(Debug)]
pub struct Gauges {
    began: Instant,
    bridge: u32,
    database: PathBuf,
    homeserver: PathBuf,
}

impl Gauges {
    /// Begins to count the time.
    ///
    /// # Errors
    /// When the bridge does not run.
    pub fn start(world: &World) -> Result<Self> {
        sqlx::any::install_default_drivers();
        Ok(Self {
            began: Instant::now(),
            bridge: world.bridge.pid().context("the bridge does not run")?,
            database: world.bridge.dir().join("gephyra.db"),
            homeserver: world.dir().join("homeserver/homeserver.db"),
        })
    }

    /// Looks at all of them.
    ///
    /// # Errors
    /// When one cannot be read.
    pub async fn read(&self, messages: usize) -> Result<Sample> {
        const PAGES: &str =
            "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        const WAITING: &str = "SELECT COUNT(*) FROM device_inbox \
             WHERE user_id LIKE '@xmpp\\_%' ESCAPE '\\' OR user_id LIKE '@gephyra:%'";
        let files = ["", "-wal", "-shm"].map(|end| format!("{}{end}", self.database.display()));
        let sizes = files.iter().map(|file| fs::metadata(file).map_or(0, |file| file.len()));
        Ok(Sample {
            at: self.began.elapsed(),
            messages,
            resident_kib: resident_kib(self.bridge)?,
            pages_bytes: number(&self.database, PAGES).await?,
            files_bytes: sizes.sum(),
            to_device: number(&self.homeserver, WAITING).await?,
        })
    }

    /// Bytes of each table of the bridge's database with its indexes. The records of devices are told apart by what
    /// they are, in rows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn tables(&self) -> Result<Tables> {
        Self::tables_in(&self.database).await
    }

    /// As [`Gauges::tables`], of this file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn tables_in(file: &Path) -> Result<Tables> {
        let mut database = open(file).await?;
        let bytes = sqlx::query_as(
            "SELECT COALESCE(parts.tbl_name, pages.name), CAST(SUM(pages.pgsize) AS BIGINT) \
             FROM dbstat AS pages LEFT JOIN sqlite_schema AS parts ON parts.name = pages.name \
             GROUP BY 1",
        );
        let bytes: Vec<(String, i64)> = bytes.fetch_all(&mut database).await?;
        let records = sqlx::query_as("SELECT kind, COUNT(*) FROM crypto_records GROUP BY kind");
        let records: Vec<(String, i64)> = records.fetch_all(&mut database).await?;
        database.close().await?;
        Ok(Tables { bytes: bytes.into_iter().collect(), records: records.into_iter().collect() })
    }
}

/// How large the bridge's tables are.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Bytes by table.
    pub bytes: BTreeMap<String, i64>,
    /// Rows of the devices' records by kind.
    pub records: BTreeMap<String, i64>,
}

impl Tables {
    /// Bytes of all tables.
    pub fn all_bytes(&self) -> i64 {
        self.bytes.values().sum()
    }
}

/// By how much memory grows, in kB for 1,000 messages: the slope of the line that fits best (least squares). `None`
/// when there is none.
pub fn growth_per_thousand(samples: &[Sample]) -> Option<f64> {
    let points: Vec<(f64, f64)> = samples
        .iter()
        .filter_map(|it| {
            Some((u32::try_from(it.messages).ok()?, u32::try_from(it.resident_kib).ok()?))
        })
        .map(|(messages, kib)| (f64::from(messages) / 1000.0, f64::from(kib)))
        .collect();
    let count = f64::from(u32::try_from(points.len()).ok()?);
    let mean = |part: fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let common: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (spread > 0.0).then(|| common / spread)
}

/// What a process occupies in memory.
///
/// # Errors
/// When there is no such process.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("the bridge has ended")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|text| text.trim().strip_suffix(" kB"));
    Ok(resident.context("no resident size")?.trim().parse()?)
}

async fn number(database: &Path, query: &'static str) -> Result<i64> {
    let mut database = open(database).await?;
    let (number,): (i64,) = sqlx::query_as(query).fetch_one(&mut database).await?;
    database.close().await?;
    Ok(number)
}

async fn open(database: &Path) -> Result<AnyConnection> {
    let url = format!("sqlite://{}?mode=ro", database.display());
    AnyConnection::connect(&url).await.with_context(|| format!("opening {}", database.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(messages: usize, resident_kib: u64) -> Sample {
        Sample {
            at: Duration::ZERO,
            messages,
            resident_kib,
            pages_bytes: 0,
            files_bytes: 0,
            to_device: 0,
        }
    }

    #[test]
    fn growth_is_the_slope_of_the_line_that_fits_best() {
        let line = [sample(0, 100), sample(1000, 107), sample(2000, 114), sample(4000, 128)];
        let slope = growth_per_thousand(&line).unwrap();
        assert!((slope - 7.0).abs() < 1e-9, "{slope}");
        let flat = [sample(0, 100), sample(1000, 104), sample(2000, 100)];
        assert!(growth_per_thousand(&flat).unwrap().abs() < 1e-9);
        assert!(growth_per_thousand(&line[..1]).is_none());
    }
}
