//! A real ejabberd.
//!
//! It runs as an Erlang node without a name. Such a node needs no port mapper (epmd), opens no port for other nodes and
//! writes no cookie into the home folder, so that servers of several tests know nothing of each other.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::StatusCode;
use serde_json::json;
use tokio::process::Command;

use crate::certificate;
use crate::ports::free_port;
use crate::process::{self, Process};
use crate::xmpp_server::{COMPONENT, COMPONENT_SECRET, DOMAIN, XmppServerConfig};

/// A running ejabberd.
#[derive(Debug)]
pub struct Ejabberd {
    config: XmppServerConfig,
    api_port: u16,
    process: Process,
}

impl Ejabberd {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// When ejabberd is not installed or does not come up.
    pub async fn start(config: XmppServerConfig) -> Result<Self> {
        std::fs::create_dir_all(config.dir.join("spool")).context("making the server's folder")?;
        certificate::make(&config.dir).await?;
        let api_port = free_port()?;
        std::fs::write(config.dir.join("ejabberd.yml"), settings(&config, api_port))
            .context("writing the server's settings")?;
        let process = Self::run(&config).await?;
        Ok(Self { config, api_port, process })
    }

    /// Makes sure that there is an account, through the server's interface for administrators. Gives its bare JID and
    /// password.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn register(&self, localpart: &str) -> Result<(String, String)> {
        let password = format!("{localpart}-password");
        let url = format!("http://127.0.0.1:{}/api/register", self.api_port);
        let account = json!({ "user": localpart, "host": DOMAIN, "password": password });
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        let answer = http.post(url).json(&account).send().await.context("adding an account")?;
        match answer.status() {
            // The account of a person whose second device this is exists already.
            StatusCode::OK | StatusCode::CONFLICT => {
                Ok((format!("{localpart}@{DOMAIN}"), password))
            }
            status => bail!("ejabberd refused an account with {status}: {}", answer.text().await?),
        }
    }

    /// What it was started with.
    pub fn config(&self) -> &XmppServerConfig {
        &self.config
    }

    /// Stops the server.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await.map(drop)
    }

    /// Starts the server again, with the accounts that it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = Self::run(&self.config).await?;
        Ok(())
    }

    async fn run(config: &XmppServerConfig) -> Result<Process> {
        let process = Process::start("ejabberd", command(&config.dir)?, &config.dir)?;
        for service in ["ejabberd_c2s", "ejabberd_http", "ejabberd_service"] {
            let listens = |line: &String| {
                line.contains("Start accepting TCP connections") && line.ends_with(service)
            };
            let what = format!("{service}, see {}", process.log().display());
            let found = |line: &String| listens(line).then_some(());
            process.lines().wait_for(&what, Duration::from_secs(60), found).await?;
        }
        Ok(process)
    }
}

/// The server itself. `ejabberdctl foreground` would start it under a name, and for root as another user.
fn command(dir: &Path) -> Result<Command> {
    let mut command = process::command("erl");
    command.env("ERL_LIBS", libraries()?);
    command.env("ERL_CRASH_DUMP_BYTES", "0");
    command.env("CONTRIB_MODULES_PATH", dir.join("modules"));
    command.env("EJABBERD_CONFIG_PATH", dir.join("ejabberd.yml"));
    command.env("EJABBERD_LOG_PATH", dir.join("server.log"));
    command.args(["-noinput", "-mnesia", "dir"]);
    command.arg(format!("\"{}\"", dir.join("spool").display()));
    command.args(["-s", "ejabberd"]);
    Ok(command)
}

/// Where the package keeps the server's code, which depends on the machine's architecture: its own script knows.
fn libraries() -> Result<String> {
    let script = "/usr/sbin/ejabberdctl";
    let text = std::fs::read_to_string(script)
        .with_context(|| format!("{script} is missing: run `cargo xtask install`"))?;
    let set = text.lines().find_map(|line| line.strip_prefix("ERL_LIBS="));
    Ok(set.with_context(|| format!("no ERL_LIBS in {script}"))?.trim_matches('\'').to_owned())
}

/// The modules are those of Debian's ejabberd.yml that concern one-to-one chats, and the archive.
fn settings(config: &XmppServerConfig, api_port: u16) -> String {
    let XmppServerConfig { dir, client_port, component_port } = config;
    let dir = dir.display();
    format!(
        r#"hosts: ["{DOMAIN}"]
loglevel: info
log_rotate_count: 0
certfiles: ["{dir}/tls.crt", "{dir}/tls.key"]
listen:
  - port: {client_port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    starttls: true
    max_stanza_size: 4194304
  - port: {component_port}
    ip: "127.0.0.1"
    module: ejabberd_service
    hosts:
      "{COMPONENT}":
        password: "{COMPONENT_SECRET}"
  - port: {api_port}
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers: {{ "/api": mod_http_api }}
api_permissions:
  "accounts of the tests": {{ who: [{{ ip: "127.0.0.1/8" }}], what: [register] }}
auth_password_format: scram
modules:
  mod_adhoc: {{}}
  mod_avatar: {{}}
  mod_blocking: {{}}
  mod_caps: {{}}
  mod_carboncopy: {{}}
  mod_client_state: {{}}
  mod_disco: {{}}
  mod_http_api: {{}}
  mod_last: {{}}
  mod_mam: {{ default: always }}
  mod_muc: {{}}
  mod_offline: {{}}
  mod_ping: {{}}
  mod_pres_counter: {{ count: 1000, interval: 60 }}
  mod_privacy: {{}}
  mod_private: {{}}
  mod_pubsub: {{ plugins: [flat, pep] }}
  mod_roster: {{ versioning: true }}
  mod_stream_mgmt: {{ resend_on_timeout: if_offline }}
  mod_time: {{}}
  mod_vcard: {{ search: false }}
  mod_vcard_xupdate: {{}}
  mod_version: {{}}
"#
    )
}
