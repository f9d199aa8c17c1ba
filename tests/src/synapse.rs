//! A real homeserver, with no experimental feature switched on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::distributions::{Alphanumeric, DistString};
use rand::rngs::OsRng;
use serde_json::{Value, json};

use crate::process::{self, Process};
use crate::{certificate, paths};

/// What a homeserver is started with.
#[derive(Debug, Clone)]
pub struct SynapseConfig {
    /// Where its database, keys and log go.
    pub dir: PathBuf,
    /// Its name: `localhost`, or `localhost:PORT` with the federation port where it federates.
    pub server_name: String,
    /// The port for clients.
    pub client_port: u16,
    /// The TLS port for other homeservers.
    pub federation_port: Option<u16>,
    /// The registration files of its application services.
    pub registrations: Vec<PathBuf>,
}

/// A running homeserver.
#[derive(Debug)]
pub struct Synapse {
    config: SynapseConfig,
    process: Process,
    http: reqwest::Client,
}

/// A registered account.
#[derive(Debug, Clone)]
pub struct Account {
    /// The full Matrix id.
    pub user_id: String,
    /// What to type at login.
    pub localpart: String,
    /// The password.
    pub password: String,
}

impl Synapse {
    /// Starts a homeserver and waits until it listens.
    ///
    /// # Errors
    /// When Synapse is not installed or does not come up.
    pub async fn start(config: SynapseConfig) -> Result<Self> {
        std::fs::create_dir_all(&config.dir).context("making the homeserver's folder")?;
        if config.federation_port.is_some() {
            certificate::make(&config.dir).await?;
        }
        let file = config.dir.join("homeserver.yaml");
        std::fs::write(&file, settings(&config).to_string()).context("writing homeserver.yaml")?;
        let process = Self::run(&config).await?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { config, process, http })
    }

    /// The address for clients.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.config.client_port)
    }

    /// The homeserver's name.
    pub fn server_name(&self) -> &str {
        &self.config.server_name
    }

    /// Where its log is kept.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Registers an account.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn register(&self, localpart: &str) -> Result<Account> {
        let password = format!("{localpart}-password");
        let body = json!({
            "username": localpart,
            "password": password,
            "inhibit_login": true,
            "auth": { "type": "m.login.dummy" },
        });
        let url = format!("{}/_matrix/client/v3/register", self.url());
        let answer = self.http.post(url).json(&body).send().await.context("registering")?;
        ensure!(answer.status().is_success(), "the homeserver refused to register {localpart}");
        let user_id = format!("@{localpart}:{}", self.config.server_name);
        Ok(Account { user_id, localpart: localpart.to_owned(), password })
    }

    /// A file of the media repository, as somebody with an account gets it.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn download(&self, account: &Account, mxc: &str) -> Result<Vec<u8>> {
        let login = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": account.localpart },
            "password": account.password,
        });
        let url = format!("{}/_matrix/client/v3/login", self.url());
        let answer = self.http.post(url).json(&login).send().await?.error_for_status()?;
        let session: serde_json::Value = answer.json().await?;
        let token = session.get("access_token").and_then(|token| token.as_str());
        let place = mxc.strip_prefix("mxc://").context("no mxc address")?;
        let url = format!("{}/_matrix/client/v1/media/download/{place}", self.url());
        let request = self.http.get(url).bearer_auth(token.context("no access token")?);
        Ok(request.send().await?.error_for_status()?.bytes().await?.to_vec())
    }

    /// Stops the homeserver.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await.map(drop)
    }

    /// Starts the homeserver again, with all that it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = Self::run(&self.config).await?;
        Ok(())
    }

    async fn run(config: &SynapseConfig) -> Result<Process> {
        let mut command = process::command(paths::python("venv-synapse")?);
        command.args(["-m", "synapse.app.homeserver", "-c"]);
        command.arg(config.dir.join("homeserver.yaml"));
        let process = Process::start("synapse", command, &config.dir)?;
        let listening = format!("listening on TCP port {}", config.client_port);
        process.wait_for_line(&listening, Duration::from_secs(120)).await?;
        Ok(process)
    }
}

/// The settings as JSON, which is YAML too.
fn settings(config: &SynapseConfig) -> Value {
    let file = |name: &str| config.dir.join(name);
    let mut listeners = Vec::new();
    if let Some(port) = config.federation_port {
        listeners.push(listener(port, true, &["federation"]));
    }
    listeners.push(listener(config.client_port, false, &["client", "federation"]));
    let mut settings = json!({
        "server_name": config.server_name,
        "public_baseurl": format!("http://127.0.0.1:{}/", config.client_port),
        "listeners": listeners,
        "database": { "name": "sqlite3", "args": { "database": file("homeserver.db") } },
        "log_config": file("log.yaml"),
        "media_store_path": file("media"),
        "signing_key": signing_key(),
        // The cheapest that there is: nobody attacks these passwords.
        "bcrypt_rounds": 4,
        "pid_file": file("homeserver.pid"),
        "macaroon_secret_key": "only for tests",
        "form_secret": "only for tests",
        "report_stats": false,
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "trusted_key_servers": [],
        "ip_range_blacklist": [],
        "federation_verify_certificates": false,
        "presence": { "enabled": false },
        "filter_timeline_limit": 1000,
        "app_service_config_files": config.registrations,
    });
    let mut add = |extra: Value| {
        if let (Some(all), Value::Object(extra)) = (settings.as_object_mut(), extra) {
            all.extend(extra);
        }
    };
    add(rate_limits());
    if config.federation_port.is_some() {
        add(json!({
            "tls_certificate_path": file("tls.crt"),
            "tls_private_key_path": file("tls.key"),
        }));
    }
    // Written beside the settings: the log goes to standard output, where the test waits for the listening line.
    let _ = std::fs::write(file("log.yaml"), log_settings().to_string());
    settings
}

/// A new key as Synapse writes it: algorithm, version and 32 bytes in base64, whose last character holds four bits.
fn signing_key() -> String {
    let mut seed = Alphanumeric.sample_string(&mut OsRng, 42);
    seed.push('A');
    format!("ed25519 a_test {seed}")
}

fn listener(port: u16, tls: bool, resources: &[&str]) -> Value {
    json!({
        "port": port,
        "tls": tls,
        "type": "http",
        "bind_addresses": ["127.0.0.1"],
        "resources": [{ "names": resources, "compress": false }],
    })
}

/// Limits so high that a test of the bridge never meets them.
fn rate_limits() -> Value {
    let high = json!({ "per_second": 100_000, "burst_count": 100_000 });
    json!({
        "rc_message": high,
        "rc_registration": high,
        "rc_login": { "address": high, "account": high, "failed_attempts": high },
        "rc_joins": { "local": high, "remote": high },
        "rc_joins_per_room": high,
        "rc_invites": { "per_room": high, "per_user": high, "per_issuer": high },
        "rc_key_requests": high,
        "rc_room_creation": high,
        "rc_federation": { "sleep_limit": 100_000, "reject_limit": 100_000, "concurrent": 100 },
    })
}

fn log_settings() -> Value {
    json!({
        "version": 1,
        "formatters": { "line": { "format": "%(asctime)s %(levelname)s %(name)s - %(message)s" } },
        "handlers": {
            "out": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "line",
            }
        },
        "loggers": { "synapse.app": { "level": "INFO" } },
        "root": { "level": "WARNING", "handlers": ["out"] },
        "disable_existing_loggers": false,
    })
}
