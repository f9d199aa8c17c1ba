//! Copies of a database that may be in use, and their return.
//!
//! SQLite copies itself (`VACUUM INTO`); PostgreSQL's own `pg_dump` and `pg_restore` do it there.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};

use crate::clock::Clock;

use super::{
    ConnectError, LeaseError, StoreKey,
    database::{Location, MIGRATIONS, check_canary, check_key},
    lease::Lease,
    program_address::ProgramAddress,
};

/// Writes a consistent copy of the database at `url`, which another process may be using, to the
/// new file `to`, readable by its owner only.
///
/// # Errors
/// See [`BackupError`]. No file is left then.
pub async fn back_up(url: &str, key: &StoreKey, to: &Path) -> Result<(), BackupError> {
    sqlx::any::install_default_drivers();
    let location = Location::parse(url)?;
    let mut database = connect(url).await?;
    check_key(&mut database, key).await?;
    create_new(to)?;
    // In a URL the first part of a relative path would be a host, and `..` taken away without a look at the disk.
    let to = &fs::canonicalize(to).map_err(BackupError::Target)?;
    let copied = match location {
        Location::Sqlite(_) => copy_sqlite(&mut database, to).await,
        Location::Postgres => {
            let arguments = [OsStr::new("--format=custom"), OsStr::new("--file"), to.as_os_str()];
            run("pg_dump", url, arguments)
        }
    };
    if copied.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(to);
    }
    copied
}

/// Puts a copy that [`back_up`] has written into the place of the database at `url`, which nobody
/// may be using, and marks it as an older copy. A SQLite database that is there is moved aside, to a
/// name with the time; its new path is returned. A PostgreSQL database must exist; its tables are replaced.
///
/// # Errors
/// See [`BackupError`]. Nothing has changed then, unless the mark alone is missing.
pub async fn restore(
    url: &str,
    key: &StoreKey,
    from: &Path,
    clock: &dyn Clock,
) -> Result<Option<PathBuf>, BackupError> {
    sqlx::any::install_default_drivers();
    let from = &fs::canonicalize(from).map_err(BackupError::Source)?;
    match Location::parse(url)? {
        Location::Sqlite(path) => {
            let lease = Lease::take_file(&path)?;
            check_sqlite_copy(from, key).await?;
            fold_log(&path).await;
            let aside = put_in_place(&path, from, clock.now())?;
            mark(url).await?;
            lease.release().await.map_err(ConnectError::Connect)?;
            Ok(aside)
        }
        Location::Postgres => {
            let lease = Lease::take_advisory(url).await?;
            check_postgres_copy(from, key)?;
            let arguments = [
                OsStr::new("--clean"),
                OsStr::new("--if-exists"),
                OsStr::new("--no-owner"),
                OsStr::new("--single-transaction"),
                from.as_os_str(),
            ];
            let list = listed([OsStr::new("--list"), from.as_os_str()])?;
            run("pg_restore", url, arguments)?;
            drop_newer_tables(url, &tables_in(&list)).await?;
            mark(url).await?;
            lease.release().await.map_err(ConnectError::Connect)?;
            Ok(None)
        }
    }
}

async fn connect(url: &str) -> Result<AnyConnection, ConnectError> {
    AnyConnection::connect(url).await.map_err(ConnectError::Connect)
}

fn create_new(path: &Path) -> Result<File, BackupError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(BackupError::Target)
}

async fn copy_sqlite(database: &mut AnyConnection, to: &Path) -> Result<(), BackupError> {
    let path =
        to.to_str().ok_or_else(|| BackupError::Target(io::ErrorKind::InvalidInput.into()))?;
    let copied = sqlx::query("VACUUM INTO $1").bind(path).execute(&mut *database).await;
    copied.map_err(ConnectError::Connect)?;
    // Whoever only copies it back is protected too.
    mark(&sqlite_url(to)).await?;
    File::open(to).and_then(|file| file.sync_all()).map_err(BackupError::Target)
}

async fn mark(url: &str) -> Result<(), BackupError> {
    let mut copy = connect(url).await?;
    MIGRATIONS.run(&mut copy).await.map_err(ConnectError::Migrate)?;
    let marked = copy.execute("UPDATE store_owner SET rolled_back = 1").await;
    marked.map_err(ConnectError::Connect)?;
    Ok(copy.close().await.map_err(ConnectError::Connect)?)
}

async fn check_sqlite_copy(from: &Path, key: &StoreKey) -> Result<(), BackupError> {
    let mut copy = connect(&format!("{}?mode=ro", sqlite_url(from))).await?;
    check_key(&mut copy, key).await?;
    Ok(copy.close().await.map_err(ConnectError::Connect)?)
}

/// Reads the canary out of a copy before anything is replaced by it.
fn check_postgres_copy(from: &Path, key: &StoreKey) -> Result<(), BackupError> {
    let arguments = ["--data-only", "--table=store_owner", "--file=-"].map(OsStr::new);
    let text = listed(arguments.into_iter().chain([from.as_os_str()]))?;
    check_canary(&canary_in(&text).ok_or(ConnectError::WrongKey)?, key)?;
    Ok(())
}

/// What `pg_restore` writes about a copy.
fn listed<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String, BackupError> {
    const PROGRAM: &str = "pg_restore";
    let output = Command::new(PROGRAM).args(arguments).stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| BackupError::NoProgram { program: PROGRAM, source })?;
    if !output.status.success() {
        return Err(BackupError::Program { program: PROGRAM });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The tables in the list of a copy, of which a line is `215; 1259 16386 TABLE public portals owner`.
fn tables_in(list: &str) -> BTreeSet<&str> {
    let words = list.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let tables = words.filter_map(|words| match words.as_slice() {
        [_, _, _, "TABLE", schema, name, ..] if *schema != "DATA" => Some(*name),
        _ => None,
    });
    tables.collect()
}

/// `pg_restore` replaces what the copy has. Tables that came with a later version are not in it, and would be in the way
/// when the start makes them again.
async fn drop_newer_tables(url: &str, copied: &BTreeSet<&str>) -> Result<(), BackupError> {
    if !copied.contains("store_owner") {
        // It is in every copy: the list was not understood.
        return Ok(());
    }
    let mut database = connect(url).await?;
    for table in MIGRATIONS.iter().flat_map(|migration| tables_made_by(migration.sql.as_str())) {
        if !copied.contains(table) {
            let drop = AssertSqlSafe(format!("DROP TABLE IF EXISTS {table} CASCADE"));
            database.execute(drop).await.map_err(ConnectError::Connect)?;
        }
    }
    Ok(database.close().await.map_err(ConnectError::Connect)?)
}

fn tables_made_by(migration: &str) -> impl Iterator<Item = &str> {
    let made = migration.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
    made.filter_map(|rest| rest.split(' ').next())
}

/// The canary in the text of a `COPY store_owner (…) FROM stdin;`.
fn canary_in(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("COPY "));
    let columns = lines.next()?.split_once('(')?.1.split_once(')')?.0;
    let position = columns.split(", ").position(|column| column == "canary")?;
    hex::decode(lines.next()?.split('\t').nth(position)?.strip_prefix("\\\\x")?).ok()
}

/// The library decodes `%hh` in the path and ends it at `?`.
fn sqlite_url(path: &Path) -> String {
    format!("sqlite://{}", path.to_string_lossy().replace('%', "%25").replace('?', "%3F"))
}

/// What a bridge that was killed has left in the database's log goes into its file, where it can be read: a machine that
/// dies while the files change their names leaves nothing behind in the log then. A damaged database stays as it is.
async fn fold_log(path: &Path) {
    let Ok(mut database) = connect(&sqlite_url(path)).await else { return };
    if let Err(error) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").await {
        tracing::warn!(%error, "store.restore: the log of the database that is replaced cannot be read");
    }
    // The files are moved whatever it says.
    let _ = database.close().await;
}

/// The copy is complete under another name before anything is moved.
fn put_in_place(path: &Path, from: &Path, now: SystemTime) -> Result<Option<PathBuf>, BackupError> {
    let incoming = beside(path, ".restoring");
    match fs::remove_file(&incoming) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(BackupError::Target(error));
        }
        _ => {}
    }
    if let Err(error) = copy(from, &incoming) {
        // The first error is the one to tell.
        let _ = fs::remove_file(&incoming);
        return Err(error);
    }
    let aside = move_aside(path, now).map_err(BackupError::Target)?;
    fs::rename(&incoming, path).map_err(BackupError::Target)?;
    Ok(aside)
}

/// The mode is not copied: whatever the backup's is, the bridge alone reads and writes its database.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let mut source = File::open(from).map_err(BackupError::Source)?;
    let mut target = create_new(to)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = source.read(&mut buffer).map_err(BackupError::Source)?;
        match buffer.get(..length) {
            Some(piece) if !piece.is_empty() => {
                target.write_all(piece).map_err(BackupError::Target)?;
            }
            _ => return target.sync_all().map_err(BackupError::Target),
        }
    }
}

/// The files of a SQLite database belong together. The database itself keeps its name beside the new
/// one, so that there is one at any moment.
fn move_aside(path: &Path, now: SystemTime) -> io::Result<Option<PathBuf>> {
    if !path.exists() {
        return Ok(None);
    }
    let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let aside = beside(path, &format!(".replaced-{}", since_1970.as_millis()));
    // What may be refused comes first, so that the log stays beside the name then.
    fs::hard_link(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(Some(aside))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Runs one of PostgreSQL's programs on the database at `url`. The password goes through the
/// environment, where other users do not see it.
fn run<'a>(
    program: &'static str,
    url: &str,
    arguments: impl IntoIterator<Item = &'a OsStr>,
) -> Result<(), BackupError> {
    let address = ProgramAddress::parse(url).map_err(|_| ConnectError::Url)?;
    let mut command = Command::new(program);
    command.arg("--dbname").arg(address.url.as_str()).args(arguments);
    if let Some(password) = address.password {
        command.env("PGPASSWORD", password);
    }
    let status = command.status().map_err(|source| BackupError::NoProgram { program, source })?;
    if status.success() { Ok(()) } else { Err(BackupError::Program { program }) }
}

/// No copy was made or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database, or the copy, cannot be opened.
    #[error("the database cannot be opened")]
    Open(#[from] ConnectError),
    /// The bridge is running.
    #[error("the database cannot be replaced")]
    Lease(#[from] LeaseError),
    /// The copy cannot be read.
    #[error("the backup cannot be read")]
    Source(#[source] io::Error),
    /// The file cannot be made.
    #[error("the file cannot be written; an existing one is never overwritten")]
    Target(#[source] io::Error),
    /// A program of PostgreSQL is missing.
    #[error("{program} does not start; install PostgreSQL's client programs")]
    NoProgram {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program of PostgreSQL has failed.
    #[error("{program} has failed; what it has said stands above")]
    Program {
        /// Which.
        program: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use assert_matches::assert_matches;

    use super::*;

    #[test]
    fn a_copy_that_fails_leaves_nothing_and_names_the_side_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gephyra.db");
        let missing = folder.path().join("missing");
        for from in [missing.as_path(), folder.path()] {
            let placed = put_in_place(&path, from, UNIX_EPOCH);
            assert_matches!(placed, Err(BackupError::Source(_)));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        let nowhere = missing.join("gephyra.db");
        fs::write(&path, "a backup").unwrap();
        assert_matches!(put_in_place(&nowhere, &path, UNIX_EPOCH), Err(BackupError::Target(_)));
    }
}
