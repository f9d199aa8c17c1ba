//! Opening a database.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sqlx::{
    Any, AnyConnection, AnyPool, Executor as _, Pool,
    any::AnyPoolOptions,
    migrate::{MigrateError, Migrator},
    sqlite::SqliteConnectOptions,
};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use rand_core::{OsRng, RngCore as _};

use super::{
    Cell, LeaseError, SealError, Sealer, StoreError, StoreKey, Transaction,
    lease::Lease,
    transaction::Outcome,
    witness::{Position, Witness},
};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

const READERS: u32 = 4;
const CANARY_CELL: Cell<'_> = Cell { table: "store_owner", column: "canary", row: &["1"] };
const CANARY: &[u8] = b"gephyra";

/// Counts the commit. On PostgreSQL the row stays locked, so that nobody takes over before this
/// transaction has ended. SQLite has locked the file already.
const FENCE_QUERY: &str = "UPDATE store_owner SET commits = commits + 1 RETURNING epoch, commits";

/// An open database that this process owns. Clones share it.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    backend: Backend,
    /// It may hold a password.
    url: Zeroizing<String>,
    /// One connection, so writers queue up fairly and none is told "busy".
    writer: AnyPool,
    /// The database itself refuses writes on these.
    readers: AnyPool,
    sealer: Arc<Sealer>,
    epoch: i64,
    witness: Arc<Witness>,
    is_rolled_back: bool,
    /// Whether the last transaction that may write could begin, and was committed if it came to that.
    takes_writes: Arc<AtomicBool>,
    /// Cancelled when a transaction has found another owner.
    fenced: CancellationToken,
    /// Empty once it is closed.
    lease: Mutex<Option<Lease>>,
}

/// Where the data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Sqlite,
    Postgres,
}

impl Database {
    /// Opens the database at `url` (`sqlite:` with a file's path, or `postgres:`), takes the
    /// lease, brings the tables up to date, checks the key, raises the fencing epoch and compares
    /// the database with its witness, the file `witness`. If [`Self::is_rolled_back`], put
    /// that right before anything is sent.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(url: &str, key: &StoreKey, witness: &Path) -> Result<Self, ConnectError> {
        sqlx::any::install_default_drivers();
        let (backend, lease) = match Location::parse(url)? {
            Location::Sqlite(path) => {
                create_private_file(&path).map_err(ConnectError::File)?;
                (Backend::Sqlite, Lease::take_file(&path)?)
            }
            Location::Postgres => (Backend::Postgres, Lease::take_advisory(url).await?),
        };
        let writer = open_pool(url, 1, backend.writer_settings()).await?;
        MIGRATIONS.run(&writer).await.map_err(ConnectError::Migrate)?;
        let sealer = Arc::new(Sealer::new(key).map_err(ConnectError::Key)?);
        let witness = Arc::new(Witness::new(witness));
        let seen = witness.read().map_err(ConnectError::Witness)?;
        let Owned { epoch, position, is_rolled_back } = take_over(&writer, &sealer, seen).await?;
        if !is_rolled_back {
            witness.start(position).map_err(ConnectError::Witness)?;
        }
        let readers = open_pool(url, READERS, backend.reader_settings()).await?;
        let lease = Mutex::new(Some(lease));
        let url = Zeroizing::new(url.to_owned());
        let fenced = CancellationToken::new();
        let inner = Inner {
            backend,
            url,
            writer,
            readers,
            sealer,
            epoch,
            witness,
            is_rolled_back,
            takes_writes: Arc::new(AtomicBool::new(true)),
            fenced,
            lease,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Whether this was found to be an older copy when it was opened: keys that follow its state
    /// may have been used.
    pub fn is_rolled_back(&self) -> bool {
        self.0.is_rolled_back
    }

    /// Commits the transaction that has put an older copy right. From then on the database has a
    /// history of its own, and its witness follows it.
    ///
    /// # Errors
    /// When the database or the witness file failed: then it is done again at the next start.
    pub async fn recovered(&self, mut tx: Transaction) -> Result<(), StoreError> {
        let lineage = new_lineage();
        let (commits,): (i64,) = sqlx::query_as(
            "UPDATE store_owner SET rolled_back = 0, lineage = $1 RETURNING commits",
        )
        .bind(&lineage)
        .fetch_one(tx.parts().0)
        .await?;
        tx.commit().await?;
        let started = self.0.witness.start(Position { lineage, commits });
        Ok(started.map_err(sqlx::Error::Io)?)
    }

    /// Begins a transaction that may write. It is the only one until it ends, so keep it short,
    /// and open no other one meanwhile. Dropped without [`Transaction::commit`] it changes
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process owns the database by now, or it was set back to
    /// an older state.
    pub async fn begin(&self) -> Result<Transaction, StoreError> {
        let begun = self.begin_counted().await;
        let (inner, epoch, commits) =
            begun.inspect_err(|_| self.0.takes_writes.store(false, Ordering::Relaxed))?;
        // A database that was set back under us would let keys be used again.
        if epoch != self.0.epoch || self.0.witness.has_seen(commits) {
            self.0.fenced.cancel();
            return Err(StoreError::Fenced);
        }
        let tx = Transaction::new(inner, Arc::clone(&self.0.sealer));
        Ok(tx.with_outcome(Outcome {
            witness: Arc::clone(&self.0.witness),
            commits,
            takes_writes: Arc::clone(&self.0.takes_writes),
        }))
    }

    /// A transaction that has counted its commit, with the epoch and the count that it has found.
    async fn begin_counted(
        &self,
    ) -> Result<(sqlx::Transaction<'static, Any>, i64, i64), sqlx::Error> {
        let mut inner = match self.0.backend {
            Backend::Sqlite => self.begin_on_sqlite().await?,
            Backend::Postgres => self.0.writer.begin().await?,
        };
        let (epoch, commits): (i64, i64) =
            sqlx::query_as(FENCE_QUERY).fetch_one(&mut *inner).await?;
        Ok((inner, epoch, commits))
    }

    /// SQLite ends a transaction by itself when the disk is full or fails. Its connection does not learn of that, and
    /// would refuse every other: it is replaced.
    async fn begin_on_sqlite(&self) -> Result<sqlx::Transaction<'static, Any>, sqlx::Error> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        match self.0.writer.begin_with(BEGIN).await {
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.0.writer.acquire().await?.close().await?;
                self.0.writer.begin_with(BEGIN).await
            }
            begun => begun,
        }
    }

    /// Begins a transaction that can only read, beside any writer. The database refuses its
    /// writes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read(&self) -> Result<Transaction, StoreError> {
        let inner = self.0.readers.begin().await?;
        Ok(Transaction::new(inner, Arc::clone(&self.0.sealer)))
    }

    /// Returns when a transaction was refused because this process owns the database no more.
    pub async fn fenced(&self) {
        self.0.fenced.cancelled().await;
    }

    /// Whether it took what was last to be written. A full disk lets everybody read.
    pub fn takes_writes(&self) -> bool {
        self.0.takes_writes.load(Ordering::Relaxed)
    }

    /// Makes sure that this process still owns the database; takes the lease again where a
    /// restart of the database has ended it. Where it took no writes, it is asked again.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process owns it by now; anything else says nothing.
    pub async fn confirm_owner(&self) -> Result<(), StoreError> {
        let mut lease = self.0.lease.lock().await;
        if let Some(held) = lease.as_mut()
            && !held.holds().await
        {
            *lease = Some(match Lease::take_advisory(&self.0.url).await {
                Ok(again) => again,
                Err(LeaseError::Taken) => return Err(StoreError::Fenced),
                Err(LeaseError::LockFile(error)) => return Err(sqlx::Error::Io(error).into()),
                Err(LeaseError::LockConnection(error)) => return Err(error.into()),
            });
        }
        drop(lease);
        let tx = self.begin().await?;
        if self.takes_writes() { Ok(()) } else { tx.commit().await }
    }

    /// How much room the whole database takes, in bytes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn size_bytes(&self) -> Result<i64, StoreError> {
        let query = match self.0.backend {
            Backend::Sqlite => {
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            }
            Backend::Postgres => "SELECT pg_database_size(current_database())",
        };
        let (size,): (i64,) = sqlx::query_as(query).fetch_one(&self.0.readers).await?;
        Ok(size)
    }

    /// Closes all connections once they are idle, then gives the lease back.
    ///
    /// # Errors
    /// When the lease could not be given back; it ends with the process.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.0.readers.close().await;
        self.0.writer.close().await;
        match self.0.lease.lock().await.take() {
            Some(lease) => Ok(lease.release().await?),
            None => Ok(()),
        }
    }
}

/// Opens a database that may be another process's, and begins a transaction that can only read. It
/// takes no lease, makes nothing and changes no table.
///
/// # Errors
/// See [`ConnectError`].
pub async fn open_for_reading(url: &str, key: &StoreKey) -> Result<Transaction, ConnectError> {
    sqlx::any::install_default_drivers();
    let backend = match Location::parse(url)? {
        Location::Sqlite(_) => Backend::Sqlite,
        Location::Postgres => Backend::Postgres,
    };
    let readers = open_pool(url, 1, backend.reader_settings()).await?;
    let mut tx = readers.begin().await.map_err(ConnectError::Connect)?;
    let sealer = check_key(&mut tx, key).await?;
    Ok(Transaction::new(tx, Arc::new(sealer)))
}

/// Checks that a database was sealed under this key.
pub(super) async fn check_key(
    conn: &mut AnyConnection,
    key: &StoreKey,
) -> Result<Sealer, ConnectError> {
    let canary = find_canary(conn).await?.ok_or(ConnectError::WrongKey)?;
    check_canary(&canary, key)
}

/// Checks that a canary was sealed under this key.
pub(super) fn check_canary(canary: &[u8], key: &StoreKey) -> Result<Sealer, ConnectError> {
    let sealer = Sealer::new(key).map_err(ConnectError::Key)?;
    sealer.open(CANARY_CELL, canary).map_err(|_| ConnectError::WrongKey)?;
    Ok(sealer)
}

async fn find_canary(conn: &mut AnyConnection) -> Result<Option<Vec<u8>>, ConnectError> {
    let (canary,): (Option<Vec<u8>>,) = sqlx::query_as("SELECT canary FROM store_owner")
        .fetch_one(conn)
        .await
        .map_err(ConnectError::Connect)?;
    Ok(canary)
}

/// Shows nothing of where it is.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("backend", &self.0.backend).finish_non_exhaustive()
    }
}

impl Backend {
    fn writer_settings(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                 PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 10000; \
                 PRAGMA secure_delete = ON"
            }
            Self::Postgres => "SET synchronous_commit = on",
        }
    }

    fn reader_settings(self) -> &'static str {
        match self {
            Self::Sqlite => "PRAGMA query_only = ON; PRAGMA busy_timeout = 10000",
            Self::Postgres => "SET default_transaction_read_only = on",
        }
    }
}

/// What a URL names.
pub(super) enum Location {
    Sqlite(PathBuf),
    Postgres,
}

impl Location {
    pub(super) fn parse(url: &str) -> Result<Self, ConnectError> {
        match url.split_once(':') {
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres),
            Some(("sqlite", _)) => sqlite_file(url).map(Self::Sqlite),
            _ => Err(ConnectError::Url),
        }
    }
}

/// The path in the URL. A database in memory would forget what was acknowledged.
fn sqlite_file(url: &str) -> Result<PathBuf, ConnectError> {
    let options = SqliteConnectOptions::from_str(url).map_err(|_| ConnectError::Url)?;
    let path = options.get_filename();
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    if in_memory || path.as_os_str().is_empty() {
        return Err(ConnectError::Url);
    }
    Ok(path.to_owned())
}

/// SQLite's other files take the mode of this one.
fn create_private_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

async fn open_pool(
    url: &str,
    connections: u32,
    settings: &'static str,
) -> Result<Pool<Any>, ConnectError> {
    AnyPoolOptions::new()
        .max_connections(connections)
        .after_connect(move |connection, _| {
            Box::pin(async move { connection.execute(settings).await.map(drop) })
        })
        .connect(url)
        .await
        .map_err(ConnectError::Connect)
}

/// What taking the database over has shown.
struct Owned {
    epoch: i64,
    position: Position,
    is_rolled_back: bool,
}

/// Where the owner's row stood.
#[derive(sqlx::FromRow)]
struct OwnerRow {
    epoch: i64,
    lineage: Option<String>,
    commits: i64,
    rolled_back: i64,
}

impl OwnerRow {
    /// Whether the database is an older copy than its witness says it must be. One that lost its
    /// witness may be one.
    fn is_rolled_back(&self, seen: Option<&Position>) -> bool {
        let is_behind = match (&self.lineage, seen) {
            // It is of a version without witnesses.
            (None, None) => false,
            (Some(lineage), Some(seen)) => *lineage != seen.lineage || self.commits < seen.commits,
            (Some(_), None) | (None, Some(_)) => true,
        };
        self.rolled_back != 0 || is_behind
    }
}

fn new_lineage() -> String {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// Checks the key against the canary that the first run left, then raises the epoch and keeps in
/// mind whether the database is an older copy.
async fn take_over(
    writer: &AnyPool,
    sealer: &Sealer,
    seen: Option<Position>,
) -> Result<Owned, ConnectError> {
    let mut tx = writer.begin().await.map_err(ConnectError::Connect)?;
    let canary = match find_canary(&mut tx).await? {
        Some(sealed) => {
            sealer.open(CANARY_CELL, &sealed).map_err(|_| ConnectError::WrongKey)?;
            sealed
        }
        None => sealer.seal(CANARY_CELL, CANARY).map_err(|_| ConnectError::WrongKey)?,
    };
    let before: OwnerRow =
        sqlx::query_as("SELECT epoch, lineage, commits, rolled_back FROM store_owner")
            .fetch_one(&mut *tx)
            .await
            .map_err(ConnectError::Connect)?;
    if before.epoch == 0 && seen.is_some() {
        return Err(ConnectError::Missing);
    }
    let is_rolled_back = before.is_rolled_back(seen.as_ref());
    let lineage = before.lineage.unwrap_or_else(new_lineage);
    let (epoch, commits): (i64, i64) = sqlx::query_as(
        "UPDATE store_owner SET epoch = epoch + 1, canary = $1, lineage = $2, rolled_back = $3, \
         commits = commits + 1 RETURNING epoch, commits",
    )
    .bind(canary)
    .bind(&lineage)
    .bind(i64::from(is_rolled_back))
    .fetch_one(&mut *tx)
    .await
    .map_err(ConnectError::Connect)?;
    tx.commit().await.map_err(ConnectError::Connect)?;
    Ok(Owned { epoch, position: Position { lineage, commits }, is_rolled_back })
}

/// A database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL names no database of a kind that is supported.
    #[error("the database URL must be sqlite:///path/to/file or postgres://user@host/name")]
    Url,
    /// The SQLite file cannot be made or opened.
    #[error(
        "the database file (database.url) cannot be opened; the bridge's user must be able to write it and its folder"
    )]
    File(#[source] std::io::Error),
    /// Another process owns it.
    #[error("the database cannot be owned by this process")]
    Lease(#[from] LeaseError),
    /// The database does not answer.
    #[error("the database does not answer")]
    Connect(#[source] sqlx::Error),
    /// Its tables cannot be brought up to date.
    #[error("the tables cannot be brought up to date")]
    Migrate(#[source] MigrateError),
    /// The key gives no sealing key.
    #[error("the key cannot be used")]
    Key(#[source] SealError),
    /// The witness cannot be read or written.
    #[error(
        "the witness of the database cannot be used; name a file that the bridge can write in \
             database.witness_file"
    )]
    Witness(#[source] std::io::Error),
    /// There is a witness of a database, and the database is new.
    #[error(
        "the database is empty, but its witness knows one that was in use: bring that back, or \
             delete the witness file to begin anew"
    )]
    Missing,
    /// It was sealed under another key.
    #[error("the database was sealed under another key: use the key file it was made with")]
    WrongKey,
}
