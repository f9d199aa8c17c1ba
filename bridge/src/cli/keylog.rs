//! `gephyra keylog`: checks and prints the key log, while the bridge runs or not.

use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat};
use clap::Subcommand;

use crate::{
    config::{Config, ConfigError},
    store::{
        ConnectError, KeyLogCheck, KeyLogRow, StoreError, StoreKey, StoreKeyError, open_for_reading,
    },
};

use super::run::utf8_environment;

/// What is done with the log.
#[derive(Debug, Subcommand)]
pub enum KeyLogCommand {
    /// Check that no row was altered, dropped, swapped or inserted
    Verify {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print what happened to the keys of a contact or of a Matrix user
    Show {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// The contact's address or the Matrix id
        owner: String,
    },
}

impl KeyLogCommand {
    /// Does it, and returns what is to be read.
    pub(super) fn execute(self) -> Result<String, KeyLogError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(KeyLogError::Runtime)?;
        match self {
            Self::Verify { config } => runtime.block_on(verify(&config)),
            Self::Show { config, owner } => runtime.block_on(show(&config, &owner)),
        }
    }
}

async fn verify(config: &Path) -> Result<String, KeyLogError> {
    let mut tx = open(config).await?;
    match tx.key_log().check().await? {
        KeyLogCheck::Whole { rows, head } => Ok(format!(
            "The key log is whole: {rows} rows.\nHead: {head}\n\
             That its newest rows were cut off is seen only by whoever has noted an earlier head: \
             note this one\noutside this machine, and look whether the number of rows ever goes \
             down.\n"
        )),
        KeyLogCheck::Broken { seq } => Err(KeyLogError::Broken { seq }),
    }
}

async fn show(config: &Path, owner: &str) -> Result<String, KeyLogError> {
    let mut tx = open(config).await?;
    let rows = tx.key_log().load_about(owner).await?;
    if rows.is_empty() {
        return Err(KeyLogError::Nothing);
    }
    let mut lines = vec![row(["TIME", "EVENT", "DECIDED BY", "LEG", "CHAT OF", "DEVICE", "KEY"])];
    lines.extend(rows.iter().map(line));
    Ok(lines.concat())
}

fn line(entry: &KeyLogRow) -> String {
    let time = DateTime::from_timestamp_millis(entry.time_ms)
        .map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
        .unwrap_or_else(|| entry.time_ms.to_string());
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let (chat_of, device) = (or_dash(&entry.local_user), or_dash(&entry.device));
    // Whoever distrusts a person need not know a key of theirs.
    let key = or_dash(&entry.public_key);
    row([&time, &entry.event, &entry.decided_by, &entry.leg, &chat_of, &device, &key])
}

/// Columns of the widest usual content; what is wider only moves the rest.
fn row(cells: [&str; 7]) -> String {
    let [time, event, decided_by, leg, chat_of, device, key] = cells;
    format!("{time:24}  {event:10}  {decided_by:24}  {leg:6}  {chat_of:24}  {device:10}  {key}\n")
}

async fn open(config: &Path) -> Result<crate::store::Transaction, KeyLogError> {
    let database = Config::load(config, utf8_environment())?.database;
    let key = StoreKey::load(&database.key_file)?;
    Ok(open_for_reading(database.url.as_str(), &key).await?)
}

/// Why the key log was not printed, or what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum KeyLogError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The system refused what every program needs.
    #[error("the system refused threads")]
    Runtime(#[source] std::io::Error),
    /// The key file cannot be used.
    #[error("the key file cannot be used")]
    Key(#[from] StoreKeyError),
    /// The database cannot be opened.
    #[error("the database cannot be opened")]
    Open(#[from] ConnectError),
    /// The database failed.
    #[error("the database failed; it has a key log once the bridge has run")]
    Store(#[from] StoreError),
    /// The log was altered.
    #[error("the key log is broken at row {seq}: somebody has altered, dropped or inserted rows")]
    Broken {
        /// The first row that is not as it was written.
        seq: i64,
    },
    /// There is nothing to print.
    #[error("the key log has nothing about this contact or Matrix user")]
    Nothing,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use ruma::user_id;

    use super::*;
    use crate::{
        cli::{Cli, CliError},
        network::Decider,
        store::{Database, KeyEvent, KeyLogEntry, LoggedKey},
    };

    fn execute(arguments: &[&str], config: &Path) -> Result<String, CliError> {
        let config = config.to_str().unwrap();
        let words = ["gephyra", "keylog"].into_iter().chain(arguments.iter().copied());
        let mut out = Vec::new();
        Cli::parse_from(words.chain(["-c", config])).execute(&mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// The files of an operator, and their database with two entries, still owned by the bridge.
    async fn bridge(dir: &Path) -> (PathBuf, Database) {
        let secret = dir.join("secret");
        std::fs::write(&secret, "hunter2\n").unwrap();
        let files = dir.join("bridge");
        let words = [
            "gephyra",
            "init",
            "--homeserver-url=http://localhost:8008",
            "--server-name=example.org",
            "--appservice-listen=127.0.0.1:29340",
            "--xmpp-component=matrix.example.org",
            "--xmpp-server=127.0.0.1:5347",
        ];
        let paths = [
            format!("--xmpp-secret-file={}", secret.display()),
            format!("--dir={}", files.display()),
        ];
        let words = words.into_iter().map(str::to_owned).chain(paths);
        Cli::parse_from(words).execute(&mut Vec::new()).unwrap();
        let config = files.join("config.toml");
        let database = Config::load(&config, std::iter::empty()).unwrap().database;
        let key = StoreKey::load(&database.key_file).unwrap();
        let db =
            Database::connect(database.url.as_str(), &key, &database.witness_file).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        for (time_ms, event, master_key) in
            [(1_700_000_000_123, KeyEvent::FirstSeen, "k"), (7, KeyEvent::Distrusted, "")]
        {
            let key = LoggedKey::Matrix { user: user_id!("@alice:example.org"), master_key };
            let entry = KeyLogEntry { time_ms, key, event, decided_by: &Decider::Nobody };
            tx.key_log().append(&entry).await.unwrap();
        }
        tx.commit().await.unwrap();
        (config, db)
    }

    #[test]
    fn the_log_is_checked_and_printed_while_the_bridge_runs() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (config, db) = runtime.block_on(bridge(dir.path()));
        let checked = execute(&["verify"], &config).unwrap();
        assert!(checked.starts_with("The key log is whole: 2 rows.\nHead: "), "{checked}");
        let shown = execute(&["show", "@alice:example.org"], &config).unwrap();
        assert!(shown.contains("\n2023-11-14T22:13:20.123Z  first_seen  nobody"), "{shown}");
        assert!(shown.ends_with(" -\n"), "it is about no key: {shown}");
        let nothing = execute(&["show", "@bob:example.org"], &config);
        assert!(matches!(nothing, Err(CliError::KeyLog(KeyLogError::Nothing))));

        let database = Config::load(&config, std::iter::empty()).unwrap().database;
        runtime.block_on(async {
            use sqlx::{Connection as _, Executor as _};
            let mut thief = sqlx::AnyConnection::connect(database.url.as_str()).await.unwrap();
            thief.execute("UPDATE key_log SET event = 'approved' WHERE seq = 2").await.unwrap();
        });
        let broken = execute(&["verify"], &config);
        assert!(matches!(broken, Err(CliError::KeyLog(KeyLogError::Broken { seq: 2 }))));
        // The bridge still owns its database.
        runtime.block_on(async { db.begin().await.unwrap().commit().await.unwrap() });
    }
}
