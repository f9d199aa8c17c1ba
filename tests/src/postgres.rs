//! Databases on the PostgreSQL server that the suite starts, and a server that a test has for itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use rustix::process::{Signal, geteuid};
use sqlx::{AnyConnection, Connection as _};
use tempfile::TempDir;
use tokio::process::Command;

use crate::ports::free_port;
use crate::process::{self, Process};

/// Names the server's own database, as `postgres://user@host:port/name`.
const SERVER: &str = "GEPHYRA_TEST_POSTGRES";

/// Makes an empty database that nothing else uses; gives its address.
///
/// # Errors
/// When no server is named, or it refuses.
pub async fn new_database() -> Result<String> {
    let server = std::env::var(SERVER)
        .with_context(|| format!("{SERVER} names no server: run `cargo xtask test`"))?;
    let (host, _) =
        server.rsplit_once('/').with_context(|| format!("{SERVER} names no database"))?;
    let name = format!("gephyra_flow_{:016x}", rand::rngs::OsRng.r#gen::<u64>());
    let mut command = process::command("psql");
    command.args(["--quiet", "--no-psqlrc", "--dbname", &server]);
    command.args(["--command", &format!("CREATE DATABASE {name}")]);
    process::run(command).await?;
    Ok(format!("{host}/{name}"))
}

/// Ends every connection to a database, as the server does with those of a machine that is gone.
///
/// # Errors
/// When the server refuses.
pub async fn end_connections_to(url: &str) -> Result<()> {
    sqlx::any::install_default_drivers();
    let mut database = AnyConnection::connect(url).await.context("connecting to PostgreSQL")?;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&mut database)
    .await?;
    database.close().await.context("closing the database")
}

/// A server of a test's own, which can be stopped.
#[derive(Debug)]
pub struct PostgresServer {
    process: Process,
    port: u16,
    logs: PathBuf,
    /// Where its own user comes to, also when the folder of the test is in the home of another.
    data: TempDir,
}

impl PostgresServer {
    /// Makes an empty cluster and starts it, with its log in `logs`.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not come up.
    pub async fn start(logs: &Path) -> Result<Self> {
        std::fs::create_dir_all(logs).context("making the folder for the log of PostgreSQL")?;
        let data = tempfile::tempdir().context("making the folder for PostgreSQL")?;
        if geteuid().is_root() {
            let mut chown = process::command("chown");
            chown.arg("postgres").arg(data.path());
            process::run(chown).await?;
        }
        let mut initdb = program("initdb")?;
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D"]);
        initdb.arg(data.path()).current_dir("/");
        process::run(initdb).await?;
        let port = free_port()?;
        let process = Self::run(data.path(), port, logs).await?;
        Ok(Self { process, port, logs: logs.to_owned(), data })
    }

    /// How it is reached.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops it at once, with connections open and nothing tidied up.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.signal(Signal::QUIT)?;
        self.process.ends(Duration::from_secs(30)).await.map(drop)
    }

    /// Starts it again, with all that it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = Self::run(self.data.path(), self.port, &self.logs).await?;
        Ok(())
    }

    async fn run(data: &Path, port: u16, logs: &Path) -> Result<Process> {
        let mut command = program("postgres")?;
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        command.args(["-c", "fsync=off", "-c", "max_connections=50"]).current_dir("/");
        let process = Process::start("postgres", command, logs)?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        sqlx::any::install_default_drivers();
        let is_up = async {
            let mut tries = tokio::time::interval(Duration::from_millis(50));
            loop {
                tries.tick().await;
                if let Ok(connection) = AnyConnection::connect(&url).await {
                    return connection.close().await;
                }
            }
        };
        let log = process.log().to_owned();
        let is_up = tokio::time::timeout(Duration::from_secs(60), is_up).await;
        is_up.with_context(|| format!("PostgreSQL did not come up, see {}", log.display()))??;
        Ok(process)
    }
}

/// One of the server's programs, as a user that it accepts: it refuses to run as root.
fn program(name: &str) -> Result<Command> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is missing")?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(name)));
    let program = programs.filter(|path| path.is_file()).max().context("PostgreSQL is missing")?;
    if !geteuid().is_root() {
        return Ok(process::command(program));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    Ok(command)
}
