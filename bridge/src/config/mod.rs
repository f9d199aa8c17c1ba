//! The configuration: one TOML file, one module per section.
//!
//! Knows the files it names (registration, secrets) and nothing of what is built from them. No
//! error repeats a value, because any value may be a secret in the wrong place.

mod address;
mod appservice;
mod database;
mod homeserver;
mod logging;
mod permissions;
mod policy;
mod registration;
mod render;
mod secret;
mod source;
mod xmpp;

use std::path::Path;

use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

pub use self::{
    address::{AddressError, LoopbackAddress, parse_protected_url},
    appservice::{AppserviceConfig, parse_listen},
    database::{DatabaseConfig, DatabaseUrl, DatabaseUrlError},
    homeserver::HomeserverConfig,
    logging::{LogFormat, LogLevel, LoggingConfig},
    permissions::{Permission, Permissions, Subject, SubjectError},
    policy::{HoldHours, PlaintextFromContacts, PolicyConfig},
    registration::{Registration, RegistrationError, UnfitRegistration},
    render::{ExampleError, InitialConfig, example_config, example_registration},
    secret::{Secret, SecretFileError},
    xmpp::{DomainError, XmppConfig, parse_domain},
};

/// Localpart of the bridge bot.
pub const BOT_LOCALPART: &str = "gephyra";

/// What the localparts of all XMPP contacts' ghosts begin with.
pub const GHOST_PREFIX: &str = "xmpp_";

/// What a section's keys mean, for the example; the first entry (`""`) is about the section.
type Comments = &'static [(&'static str, &'static str)];

/// Everything the bridge must be told, read and checked. Paths are absolute.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Matrix side.
    pub homeserver: HomeserverConfig,
    /// What the homeserver calls.
    pub appservice: AppserviceConfig,
    /// The tokens and namespaces.
    pub registration: Registration,
    /// The bridge bot's user id.
    pub bot: OwnedUserId,
    /// The store.
    pub database: DatabaseConfig,
    /// The XMPP side.
    pub xmpp: XmppConfig,
    /// Who may use the bridge.
    pub permissions: Permissions,
    /// What becomes of unencrypted messages, and of messages that wait.
    pub policy: PolicyConfig,
    /// What is logged.
    pub logging: LoggingConfig,
}

/// The file as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    homeserver: HomeserverConfig,
    appservice: AppserviceConfig,
    database: database::DatabaseSection,
    xmpp: xmpp::XmppSection,
    permissions: Permissions,
    #[serde(default)]
    policy: PolicyConfig,
    #[serde(default)]
    logging: LoggingConfig,
}

impl Config {
    /// Reads the file, the environment above it (`GEPHYRA_SECTION__KEY`), and the registration and
    /// secrets that it names. Paths in the file are relative to the file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file or variable, the key and what to do.
    pub fn load(
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let unreadable =
            |source| ConfigError::Unreadable { path: path.display().to_string(), source };
        // A bare name has an empty folder, beside which a database would stand at the root.
        let path = &std::path::absolute(path).map_err(unreadable)?;
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let file: ConfigFile = source::extract(path, &text, environment)?;
        file.load(path.parent().unwrap_or(Path::new("")))
    }
}

impl ConfigFile {
    fn load(self, base: &Path) -> Result<Config, ConfigError> {
        let Self { homeserver, mut appservice, database, xmpp, permissions, policy, logging } =
            self;
        appservice.registration = base.join(&appservice.registration);
        let database = database.load(base)?;
        let registration = Registration::load(&appservice.registration, &homeserver.server_name)?;
        let bot = UserId::parse(format!("@{BOT_LOCALPART}:{}", homeserver.server_name))
            .map_err(|_| ConfigError::ServerName)?;
        let xmpp = xmpp.load(base)?;
        Ok(Config {
            homeserver,
            appservice,
            registration,
            bot,
            database,
            xmpp,
            permissions,
            policy,
            logging,
        })
    }
}

/// The configuration cannot be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or not allowed to us.
    #[error("cannot read the configuration {path}; `gephyra init` makes one")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}, line {line}: not valid TOML; texts stand in \"quotes\", one key a line")]
    Syntax {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// A key is unknown or missing, or its value is not what it must be.
    #[error("{place}: {key}: {problem}")]
    Invalid {
        /// The file or the environment variable.
        place: String,
        /// Section and key.
        key: String,
        /// What is wrong, without the value.
        problem: String,
    },
    /// `secret` and `secret_file` together.
    #[error("[xmpp] has both secret and secret_file; keep one of them")]
    TwoSecrets,
    /// Neither `secret` nor `secret_file`.
    #[error("[xmpp] has no secret; set secret_file to the file that holds the component's secret")]
    NoSecret,
    /// `url` and `url_file` together.
    #[error("[database] has both url and url_file; keep one of them")]
    TwoDatabaseUrls,
    /// Neither `url` nor `url_file`.
    #[error("[database] has no url; set it to \"sqlite:FILE\" or \"postgres://user@host/name\"")]
    NoDatabaseUrl,
    /// The file that `url_file` names holds something else.
    #[error("the database address in {path} cannot be used")]
    DatabaseUrlFile {
        /// The file.
        path: String,
        /// What it must be.
        #[source]
        source: DatabaseUrlError,
    },
    /// A file with a secret is missing or empty.
    #[error("a secret is missing")]
    Secret(#[from] SecretFileError),
    /// The registration is missing or does not fit.
    #[error("the registration cannot be used")]
    Registration(#[from] RegistrationError),
    /// The server name leaves no room for user ids.
    #[error("homeserver.server_name is too long for user ids")]
    ServerName,
}

#[cfg(test)]
mod tests;
