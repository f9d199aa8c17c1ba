//! The bridge itself: the built `gephyra` program, started as an operator would.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use sqlx::{AnyConnection, Connection as _};
use tokio::time::Instant;

use crate::ports::free_port;
use crate::process::{self, Process};
use crate::xmpp_server::{COMPONENT, COMPONENT_SECRET};

/// What the program logs when the XMPP server has let it in.
const STREAM_UP: &str = "xmpp.stream: up";

/// What the bridge is set up with.
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// The program: [`crate::paths::gephyra`] or [`crate::paths::gephyra_with_failpoints`].
    pub program: PathBuf,
    /// Where its files go.
    pub dir: PathBuf,
    /// The homeserver's address for clients.
    pub homeserver_url: String,
    /// The homeserver's name.
    pub server_name: String,
    /// The port on which it takes the homeserver's transactions.
    pub appservice_port: u16,
    /// The XMPP server's port for components.
    pub component_port: u16,
    /// The database; a file in `dir` unless told otherwise.
    pub database_url: Option<String>,
    /// What its process finds in the environment besides.
    pub environment: Environment,
}

/// Variables of a process: names and values.
pub type Environment = Vec<(&'static str, String)>;

/// What a program may write into files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Nothing.
    None,
    /// What it likes.
    Plenty,
}

/// The bridge: its files, and the process while it runs.
#[derive(Debug)]
pub struct Bridge {
    config: BridgeConfig,
    process: Option<Process>,
}

impl Bridge {
    /// Lets the program write its configuration, registration and key (`gephyra init`).
    ///
    /// # Errors
    /// With the program's own words.
    pub async fn set_up(config: BridgeConfig) -> Result<Self> {
        std::fs::create_dir_all(&config.dir).context("making the bridge's folder")?;
        let secret = config.dir.join("component-secret");
        std::fs::write(&secret, COMPONENT_SECRET).context("writing the component's secret")?;
        let mut command = process::command(&config.program);
        command.arg("init");
        command.args(["--homeserver-url", &config.homeserver_url]);
        command.args(["--server-name", &config.server_name]);
        command.args(["--appservice-listen", &loopback(config.appservice_port)]);
        command.args(["--xmpp-component", COMPONENT]);
        command.args(["--xmpp-server", &loopback(config.component_port)]);
        command.arg("--xmpp-secret-file").arg(&secret);
        command.args(["--database-url", &database_url(&config)]);
        command.arg("--dir").arg(&config.dir);
        process::run(command).await.context("`gephyra init`")?;
        Ok(Self { config, process: None })
    }

    /// The registration file, for the homeserver.
    pub fn registration(&self) -> PathBuf {
        self.config.dir.join("appservice.yaml")
    }

    /// What the homeserver proves itself with.
    ///
    /// # Errors
    /// When the registration cannot be read.
    pub fn hs_token(&self) -> Result<String> {
        self.registered("hs_token")
    }

    /// What the bridge proves itself with.
    ///
    /// # Errors
    /// When the registration cannot be read.
    pub fn as_token(&self) -> Result<String> {
        self.registered("as_token")
    }

    fn registered(&self, field: &str) -> Result<String> {
        let text = std::fs::read_to_string(self.registration())?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
        let value = value.with_context(|| format!("the registration has no {field}"))?;
        Ok(value.trim().to_owned())
    }

    /// The Matrix id of the bridge bot.
    pub fn bot(&self) -> String {
        format!("@gephyra:{}", self.config.server_name)
    }

    /// Where it takes the homeserver's transactions.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.config.appservice_port))
    }

    /// Starts the program and waits until it is healthy and on the XMPP server: what contacts write before that comes
    /// back to them.
    ///
    /// # Errors
    /// When it does not become so.
    pub async fn run_connected(&mut self) -> Result<()> {
        let log = self.config.dir.join("gephyra.log");
        let size = || std::fs::metadata(&log).map_or(0, |log| log.len());
        let before = usize::try_from(size())?;
        self.run().await?;
        let is_up = || {
            let log = std::fs::read(&log).unwrap_or_default();
            String::from_utf8_lossy(log.get(before..).unwrap_or_default()).contains(STREAM_UP)
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while !is_up() {
            ensure!(
                Instant::now() < deadline,
                "no stream to the XMPP server, see {}",
                log.display()
            );
            looks.tick().await;
        }
        Ok(())
    }

    /// Starts the program and waits until it is healthy.
    ///
    /// # Errors
    /// When it does not become so.
    pub async fn run(&mut self) -> Result<()> {
        let mut command = self.run_command();
        command.env("FAILPOINT_FILE", self.failpoint_order());
        let process = Process::start("gephyra", command, &self.config.dir)?;
        let log = process.log().to_owned();
        self.process = Some(process);
        self.becomes_healthy().await.with_context(|| format!("see {}", log.display()))
    }

    /// Stops the program as an operator would.
    ///
    /// # Errors
    /// When it does not run, or does not end well.
    pub async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the bridge does not run")?;
        let status = process.stop().await?;
        if status.success() {
            return Ok(());
        }
        bail!("the bridge ended with {status}, see {}", process.log().display())
    }

    /// Kills the program with no chance to tidy up.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.take().context("the bridge does not run")?.kill().await
    }

    /// Makes the program die when it comes to a failpoint for the `nth` time, after a wait there. Only one with
    /// failpoints obeys.
    ///
    /// # Errors
    /// When the order cannot be written.
    pub fn die_at(&self, point: &str, nth: u32, wait: Duration) -> Result<()> {
        // Written aside and moved, so that no half of it is read.
        let draft = self.config.dir.join("failpoint-draft");
        std::fs::write(&draft, format!("{point} {nth} {}", wait.as_millis()))?;
        std::fs::rename(draft, self.failpoint_order()).context("ordering a death")
    }

    /// Waits until the program has died where [`Bridge::die_at`] says.
    ///
    /// # Errors
    /// When it does not, or dies elsewhere.
    pub async fn dies(&mut self, within: Duration) -> Result<()> {
        let process = self.process.as_mut().context("the bridge does not run")?;
        let (log, status) = (process.log().to_owned(), process.ends(within).await);
        let order = self.failpoint_order();
        let is_open = order.exists();
        // It must not be obeyed by the next process.
        let _ = std::fs::remove_file(order);
        let status = status.with_context(|| format!("see {}", log.display()))?;
        self.process = None;
        ensure!(!is_open, "the bridge ended elsewhere with {status}, see {}", log.display());
        Ok(())
    }

    /// Lets the program stand still, as a machine that hangs, until [`Bridge::resume`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.process.as_ref().context("the bridge does not run")?.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.process.as_ref().context("the bridge does not run")?.signal(Signal::CONT)
    }

    /// Lets the program write no byte into any file, or as many as it likes.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn limit_files(&self, room: Room) -> Result<()> {
        let pid = self.pid().context("the bridge does not run")?;
        let limit = match room {
            Room::None => "--fsize=0:unlimited",
            Room::Plenty => "--fsize=unlimited",
        };
        let mut command = process::command("prlimit");
        command.args(["--pid", &pid.to_string(), limit]);
        process::run(command).await.map(drop)
    }

    /// A second program on the same files, which the homeserver does not call: it listens on another port.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn twin(&self) -> Result<Self> {
        let mut config = self.config.clone();
        config.appservice_port = free_port()?;
        config.environment.push(("GEPHYRA_APPSERVICE__LISTEN", loopback(config.appservice_port)));
        Ok(Self { config, process: None })
    }

    /// Waits until the program has ended by itself with an error.
    ///
    /// # Errors
    /// When it still runs, or ended well.
    pub async fn fails(&mut self, within: Duration) -> Result<()> {
        let process = self.process.as_mut().context("the bridge does not run")?;
        let log = process.log().to_owned();
        let status =
            process.ends(within).await.with_context(|| format!("see {}", log.display()))?;
        self.process = None;
        ensure!(!status.success(), "the bridge ended well, see {}", log.display());
        Ok(())
    }

    /// The address of its database.
    pub fn database_url(&self) -> String {
        database_url(&self.config)
    }

    /// Starts a second program on the same files, while the first one runs; gives what it says.
    ///
    /// # Errors
    /// When it is not refused.
    pub async fn second_is_refused(&self) -> Result<String> {
        match process::run(self.run_command()).await {
            Ok(_) => bail!("a second bridge ran on the same database"),
            Err(error) => Ok(error.to_string()),
        }
    }

    fn run_command(&self) -> tokio::process::Command {
        // A file that may not grow is an error of its write, as a full disk is, and not the end of the process.
        let mut command = process::command("env");
        command.arg("--ignore-signal=XFSZ").arg(&self.config.program);
        command.arg("run").arg("-c").arg(self.config.dir.join("config.toml"));
        command.env("GEPHYRA_LOGGING__LEVEL", "debug");
        command.envs(self.config.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn failpoint_order(&self) -> PathBuf {
        self.config.dir.join("failpoint")
    }

    /// All files that the bridge has written, its log among them.
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// Says in the configuration what somebody may do: a user, a homeserver or `*` for everybody. It counts from the
    /// next start.
    ///
    /// # Errors
    /// When the configuration cannot be changed.
    pub fn permit(&self, whom: &str, permission: &str) -> Result<()> {
        let file = self.config.dir.join("config.toml");
        let text = std::fs::read_to_string(&file).context("reading the configuration")?;
        let section = "[permissions]\n";
        ensure!(text.contains(section), "the configuration has no permissions");
        let text = text.replace(section, &format!("{section}\"{whom}\" = \"{permission}\"\n"));
        std::fs::write(&file, text).context("changing the configuration")
    }

    /// Gives a key of the configuration, which must have it, another value. It counts from the next start.
    ///
    /// # Errors
    /// When the configuration cannot be changed.
    pub fn configure(&self, key: &str, value: &str) -> Result<()> {
        let file = self.config.dir.join("config.toml");
        let text = std::fs::read_to_string(&file).context("reading the configuration")?;
        let is_it = |line: &&str| line.starts_with(&format!("{key} = "));
        let old = text.lines().find(is_it).context("the configuration has no such key")?;
        let text = text.replace(old, &format!("{key} = {value}"));
        std::fs::write(&file, text).context("changing the configuration")
    }

    /// Makes what waits in the database of a bridge that does not run older, as if it had come so much earlier.
    ///
    /// # Errors
    /// When it runs, or the database cannot be changed.
    pub async fn age_what_waits(&self, by: Duration) -> Result<()> {
        ensure!(self.process.is_none(), "the bridge still runs");
        sqlx::any::install_default_drivers();
        let mut database = AnyConnection::connect(&database_url(&self.config)).await?;
        for statement in [
            "UPDATE matrix_inbox SET received_ms = received_ms - $1",
            "UPDATE xmpp_inbox SET received_ms = received_ms - $1",
            "UPDATE remote_inbox SET waits_since_ms = waits_since_ms - $1",
        ] {
            let by_ms = i64::try_from(by.as_millis())?;
            sqlx::query(statement).bind(by_ms).execute(&mut database).await?;
        }
        database.close().await.context("closing the database")
    }

    /// The bridge's files, its log and database among them, in which a text stands.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn files_containing(&self, text: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.config.dir).context("listing the bridge's files")? {
            let path = entry?.path();
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// How often a text stands in its log, over all its lives.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn times_logged(&self, text: &str) -> Result<usize> {
        let log = std::fs::read_to_string(self.config.dir.join("gephyra.log"));
        Ok(log.context("reading the bridge's log")?.matches(text).count())
    }

    /// When the event of a homeserver that came last did so by the bridge's clock, in milliseconds since 1970.
    ///
    /// # Errors
    /// When none has come, or the database cannot be read.
    pub async fn newest_event_ms(&self) -> Result<i64> {
        sqlx::any::install_default_drivers();
        let mut database = AnyConnection::connect(&self.database_url()).await?;
        let newest = "SELECT received_ms FROM matrix_inbox ORDER BY id DESC LIMIT 1";
        let newest_ms = sqlx::query_scalar(newest).fetch_one(&mut database).await?;
        database.close().await.context("closing the database")?;
        Ok(newest_ms)
    }

    /// Asks the key log (`gephyra keylog`), whether or not the bridge runs.
    ///
    /// # Errors
    /// With the program's own words.
    pub async fn keylog(&self, arguments: &[&str]) -> Result<String> {
        let mut command = process::command(&self.config.program);
        command.arg("keylog").args(arguments);
        command.arg("-c").arg(self.config.dir.join("config.toml"));
        process::run(command).await
    }

    /// Copies the database (`gephyra backup`), whether or not the bridge runs.
    ///
    /// # Errors
    /// With the program's own words.
    pub async fn back_up(&self, to: &Path) -> Result<String> {
        self.copy_database("backup", "--to", to).await
    }

    /// Puts a backup in place of the database (`gephyra restore`).
    ///
    /// # Errors
    /// With the program's own words.
    pub async fn restore(&self, from: &Path) -> Result<String> {
        self.copy_database("restore", "--from", from).await
    }

    async fn copy_database(&self, command: &str, option: &str, file: &Path) -> Result<String> {
        let mut program = process::command(&self.config.program);
        program.arg(command).arg("-c").arg(self.config.dir.join("config.toml"));
        program.arg(option).arg(file);
        process::run(program).await
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref()?.pid()
    }

    async fn becomes_healthy(&self) -> Result<()> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        let url = format!("http://{}/health", self.address());
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut tries = tokio::time::interval(Duration::from_millis(50));
        while Instant::now() < deadline {
            tries.tick().await;
            let answer = http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
        }
        bail!("the bridge was not healthy within 60 s")
    }
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn database_url(config: &BridgeConfig) -> String {
    let file = || format!("sqlite://{}", config.dir.join("gephyra.db").display());
    config.database_url.clone().unwrap_or_else(file)
}
