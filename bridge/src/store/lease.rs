//! One process owns a database.
//!
//! SQLite: an operating system's lock on a file beside the database. PostgreSQL: an advisory
//! lock on a connection of its own. Both end with the process, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use sqlx::{AnyConnection, Connection as _, Executor as _};

/// "gephyra" in ASCII: advisory locks are numbers, one space per PostgreSQL database.
const ADVISORY_LOCK: i64 = 0x0067_6570_6879_7261;

/// How long to wait on PostgreSQL for a process that has just died: its server notices within
/// moments.
const ADVISORY_LOCK_TIMEOUT: &str = "SET lock_timeout = '1s'";

/// `lock_not_available`
const LOCK_TIMED_OUT: &str = "55P03";

/// Held for as long as this process owns the database.
pub(super) enum Lease {
    /// The locked file.
    File(File),
    /// The connection that has the lock.
    Advisory(AnyConnection),
}

impl Lease {
    /// Takes the lock file beside a SQLite database.
    pub(super) fn take_file(database: &Path) -> Result<Self, LeaseError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LeaseError::LockFile)?;
        match file.try_lock() {
            Ok(()) => Ok(Self::File(file)),
            Err(TryLockError::WouldBlock) => Err(LeaseError::Taken),
            Err(TryLockError::Error(error)) => Err(LeaseError::LockFile(error)),
        }
    }

    /// Takes the advisory lock of a PostgreSQL database.
    pub(super) async fn take_advisory(url: &str) -> Result<Self, LeaseError> {
        let mut connection =
            AnyConnection::connect(url).await.map_err(LeaseError::LockConnection)?;
        connection.execute(ADVISORY_LOCK_TIMEOUT).await.map_err(LeaseError::LockConnection)?;
        match lock(&mut connection).await {
            Ok(()) => Ok(Self::Advisory(connection)),
            Err(sqlx::Error::Database(cause))
                if cause.code().as_deref() == Some(LOCK_TIMED_OUT) =>
            {
                Err(LeaseError::Taken)
            }
            Err(error) => Err(LeaseError::LockConnection(error)),
        }
    }

    /// Whether it still holds. A connection can be lost, with its lock, while the process goes on.
    pub(super) async fn holds(&mut self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Advisory(connection) => connection.ping().await.is_ok(),
        }
    }

    /// Gives the database free at once. The end of the process would do so too.
    pub(super) async fn release(self) -> Result<(), sqlx::Error> {
        match self {
            Self::File(file) => file.unlock().map_err(sqlx::Error::Io),
            Self::Advisory(mut connection) => {
                sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut connection).await?;
                connection.close().await
            }
        }
    }
}

async fn lock(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_lock($1)").bind(ADVISORY_LOCK).execute(connection).await?;
    Ok(())
}

/// The lease was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another process has it.
    #[error("another running process owns this database; stop it first")]
    Taken,
    /// The lock file beside the database cannot be used.
    #[error("the lock file beside the database cannot be used")]
    LockFile(#[source] std::io::Error),
    /// The connection that holds the lock failed.
    #[error("the database refused the connection that holds the lock")]
    LockConnection(#[source] sqlx::Error),
}
