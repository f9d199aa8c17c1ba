//! `gephyra backup` and `gephyra restore`.

use std::path::{Path, PathBuf};

use clap::Args;
use rand::rngs::OsRng;

use crate::{
    clock::SystemClock,
    config::{Config, ConfigError},
    recovery::{Recovered, RecoveryError, recover},
    store::{self, BackupError, ConnectError, Database, StoreError, StoreKey, StoreKeyError},
};

use super::run::utf8_environment;

/// What is copied, and where to.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The file to make
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// What is put back, and where.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// A file that `gephyra backup` has made
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

impl BackupArgs {
    /// Makes the copy, and returns what is to be read.
    pub(super) fn execute(self) -> Result<String, CopyError> {
        let (config, key) = load(&self.config)?;
        block_on(async {
            store::back_up(config.database.url.as_str(), &key, &self.to).await?;
            Ok(format!(
                "{} is a copy of the database as it was a moment ago. It is of use only together \
                 with the key file\n{}, which is not in it: keep a copy of that file elsewhere.\n",
                self.to.display(),
                config.database.key_file.display(),
            ))
        })
    }
}

impl RestoreArgs {
    /// Puts the copy in place, and returns what is to be read.
    pub(super) fn execute(self) -> Result<String, CopyError> {
        let (config, key) = load(&self.config)?;
        let database = &config.database;
        block_on(async {
            let url = database.url.as_str();
            let aside = store::restore(url, &key, &self.from, &SystemClock).await?;
            let db = Database::connect(url, &key, &database.witness_file).await?;
            let recovered = recover(&db, &SystemClock, &mut OsRng).await?;
            db.close().await?;
            Ok(report(aside.as_deref(), recovered))
        })
    }
}

fn report(aside: Option<&Path>, recovered: Option<Recovered>) -> String {
    let mut text = "The backup is in place.\n".to_owned();
    if let Some(aside) = aside {
        text += &format!("The database that was there is now {}.\n", aside.display());
    }
    if let Some(recovered) = recovered {
        text += &words(&recovered);
    }
    text + "Start the bridge to go on.\n"
}

/// What an operator must know of a database that was put right.
fn words(recovered: &Recovered) -> String {
    let Recovered { matrix_devices, omemo_devices, omemo_sessions } = recovered;
    format!(
        "No key that was in use after the backup is used again: {matrix_devices} Matrix devices \
         are replaced under the same\nidentities, the prekeys of {omemo_devices} OMEMO devices are \
         new, and {omemo_sessions} OMEMO sessions are replaced before\nanything is sent. What \
         people have approved, verified or distrusted since the backup must be decided again.\n"
    )
}

fn load(config: &Path) -> Result<(Config, StoreKey), CopyError> {
    let config = Config::load(config, utf8_environment())?;
    let key = StoreKey::load(&config.database.key_file)?;
    Ok((config, key))
}

fn block_on<T>(work: impl Future<Output = Result<T, CopyError>>) -> Result<T, CopyError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CopyError::Runtime)?.block_on(work)
}

/// Nothing was copied or put back.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The key file cannot be used.
    #[error("the key file cannot be used")]
    Key(#[from] StoreKeyError),
    /// The system refused what every program needs.
    #[error("the system refused threads")]
    Runtime(#[source] std::io::Error),
    /// The copy was not made or not put back.
    #[error("the copy was not completed")]
    Copy(#[from] BackupError),
    /// The restored database does not open. The next start of the bridge puts it right.
    #[error("the restored database does not open")]
    Open(#[from] ConnectError),
    /// It does not close.
    #[error("the restored database failed")]
    Store(#[from] StoreError),
    /// It was not put right. The next start of the bridge tries again.
    #[error("the restored database was not put right")]
    Recovery(#[from] RecoveryError),
}
