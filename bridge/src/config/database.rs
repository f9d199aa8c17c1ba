//! `[database]`: the one store.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use sqlx::{
    postgres::{PgConnectOptions, PgSslMode},
    sqlite::SqliteConnectOptions,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{ConfigError, Secret};

/// The database and the key that seals its secret columns.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// Which database.
    pub url: DatabaseUrl,
    /// File with the 32 bytes that seal secrets in the database.
    pub key_file: PathBuf,
    /// File outside the database that says how far it has come.
    pub witness_file: PathBuf,
}

/// The section as it stands in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatabaseSection {
    #[serde(default)]
    pub(super) url: Option<DatabaseUrl>,
    #[serde(default)]
    pub(super) url_file: Option<PathBuf>,
    pub(super) key_file: PathBuf,
    #[serde(default)]
    pub(super) witness_file: Option<PathBuf>,
}

pub(super) const COMMENTS: super::Comments = &[
    ("", "The database. One running bridge owns it."),
    (
        "url",
        "`sqlite:FILE` (beside this file unless it starts with /) or `postgres://user@host/name`, for\n\
         another machine with `?sslmode=verify-full&sslrootcert=FILE`. One with a password in it can stand\n\
         in a file of its own, named by `url_file` instead.",
    ),
    (
        "key_file",
        "32 random bytes that seal every secret in the database, readable by the bridge only. Keep a\n\
         copy, apart from the database: neither is of use without the other.\n\
         `witness_file` can name the small file that says how far the database has come, by which the bridge\n\
         notices that an old copy was put in its place. Without the name it is FILE.witness beside an SQLite\n\
         database, or gephyra.witness beside this file. Leave it out of backups, and take it along when the\n\
         database moves: a database without it counts as an old copy.",
    ),
];

impl DatabaseSection {
    /// Reads the address from where the section says it is.
    pub(super) fn load(self, base: &Path) -> Result<DatabaseConfig, ConfigError> {
        let url = match (self.url, self.url_file) {
            (Some(url), None) => url,
            (None, Some(file)) => {
                let path = base.join(file);
                Secret::load_file(&path)?.expose().parse().map_err(|source| {
                    ConfigError::DatabaseUrlFile { path: path.display().to_string(), source }
                })?
            }
            (Some(_), Some(_)) => return Err(ConfigError::TwoDatabaseUrls),
            (None, None) => return Err(ConfigError::NoDatabaseUrl),
        };
        let url = url.resolved(base);
        let witness_file = match (self.witness_file, url.sqlite_file()) {
            (Some(file), _) => base.join(file),
            (None, Some(mut file)) => {
                file.as_mut_os_string().push(".witness");
                file
            }
            (None, None) => base.join("gephyra.witness"),
        };
        Ok(DatabaseConfig { url, key_file: base.join(self.key_file), witness_file })
    }
}

/// Address of a database. It may hold a password, so it never prints.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The address for the database library.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where an SQLite database is.
    fn sqlite_file(&self) -> Option<PathBuf> {
        let options: SqliteConnectOptions =
            self.0.starts_with("sqlite:").then(|| self.0.parse().ok())??;
        Some(options.get_filename().to_owned())
    }

    /// Takes the path of an SQLite file from `base` on, unless it is absolute.
    fn resolved(self, base: &Path) -> Self {
        let Some(rest) = self.0.strip_prefix("sqlite:") else {
            return self;
        };
        let path = rest.strip_prefix("//").unwrap_or(rest);
        if path.starts_with('/') || path.starts_with(":memory:") {
            return self;
        }
        // The library decodes `%hh` in the path and ends it at `?`.
        let base = base.to_string_lossy().replace('%', "%25").replace('?', "%3F");
        Self(format!("sqlite://{base}/{path}"))
    }
}

/// Shows nothing of the address.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("sqlite", rest)) if !rest.trim_start_matches('/').is_empty() => {}
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                check_way_to_postgres(text)?;
            }
            _ => return Err(DatabaseUrlError::NoDatabase),
        }
        Ok(Self(text.to_owned()))
    }
}

/// Secrets are sealed before they are sent, but who talks to whom is not. What the address leaves
/// open comes from the variables of PostgreSQL's own programs (`PGHOST`, `PGSSLMODE`), as later when
/// the bridge connects.
fn check_way_to_postgres(url: &str) -> Result<(), DatabaseUrlError> {
    let options: PgConnectOptions = url.parse().map_err(|_| DatabaseUrlError::NoDatabase)?;
    let host = options.get_host().trim_matches(['[', ']']);
    let is_here = options.get_socket().is_some()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if is_here || matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
        Ok(())
    } else {
        Err(DatabaseUrlError::OtherMachine)
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error of serde would repeat the value.
        let text = String::deserialize(deserializer)
            .map_err(|_| D::Error::custom(DatabaseUrlError::NoDatabase))?;
        text.parse().map_err(D::Error::custom)
    }
}

/// What is wrong with the address of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Neither kind of database.
    #[error("must be \"sqlite:FILE\" or \"postgres://user@host/name\"")]
    NoDatabase,
    /// Another machine, and no encryption on the way.
    #[error(
        "is not on this machine; use localhost or its socket, and for another machine add \
         ?sslmode=verify-full&sslrootcert=FILE with the authorities that may have signed its certificate, \
         for example /etc/ssl/certs/ca-certificates.crt"
    )]
    OtherMachine,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(url: &str) -> String {
        url.parse::<DatabaseUrl>().unwrap().resolved(Path::new("/etc/50%?")).0
    }

    #[test]
    fn an_sqlite_file_stands_beside_the_configuration() {
        assert_eq!(resolved("sqlite:gephyra.db"), "sqlite:///etc/50%25%3F/gephyra.db");
        assert_eq!(resolved("sqlite://gephyra.db"), "sqlite:///etc/50%25%3F/gephyra.db");
    }

    #[test]
    fn absolute_files_and_servers_stay() {
        for url in ["sqlite:/srv/g.db", "sqlite:///srv/g.db", "postgres://me@localhost/g"] {
            assert_eq!(resolved(url), url);
        }
    }

    #[test]
    fn the_witness_stands_beside_the_database() {
        let witness_of = |url: &str| {
            let section = DatabaseSection {
                url: Some(url.parse().unwrap()),
                url_file: None,
                key_file: "key".into(),
                witness_file: None,
            };
            section.load(Path::new("/etc/50%?")).unwrap().witness_file
        };
        assert_eq!(witness_of("sqlite:g.db"), Path::new("/etc/50%?/g.db.witness"));
        assert_eq!(witness_of("sqlite:/srv/g.db"), Path::new("/srv/g.db.witness"));
        assert_eq!(witness_of("postgres:///g?host=/run"), Path::new("/etc/50%?/gephyra.witness"));
    }

    #[test]
    fn other_databases_are_refused() {
        for url in ["mysql://localhost/g", "gephyra.db", "sqlite:", "postgres:g", ""] {
            assert_eq!(url.parse::<DatabaseUrl>(), Err(DatabaseUrlError::NoDatabase), "{url}");
        }
    }

    #[test]
    fn postgres_on_another_machine_is_reached_over_verified_tls_only() {
        for good in [
            "postgres://localhost/g",
            "postgres://me@[::1]:5433/g",
            "postgres://%2Frun%2Fpostgresql/g",
            "postgres:///g?host=/run/postgresql",
            "postgresql://db.example.org/g?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        ] {
            good.parse::<DatabaseUrl>().unwrap();
        }
        for bad in [
            "postgres://db.example.org/g",
            "postgres://db.example.org/g?sslmode=require",
            "postgres://localhost/g?hostaddr=192.0.2.1",
            "postgres://localhost.example.org/g",
        ] {
            assert_eq!(bad.parse::<DatabaseUrl>(), Err(DatabaseUrlError::OtherMachine), "{bad}");
        }
    }

    #[test]
    fn a_password_in_the_address_does_not_print() {
        let url: DatabaseUrl = "postgres://me:hunter2@localhost/g".parse().unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
