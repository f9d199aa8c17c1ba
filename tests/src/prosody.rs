//! A real XMPP server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::certificate;
use crate::process::{self, Process};

/// The domain of its accounts.
pub const DOMAIN: &str = "localhost";

/// The component's domain.
pub const COMPONENT: &str = "bridge.localhost";

/// What the component proves itself with.
pub const COMPONENT_SECRET: &str = "only-for-tests";

/// What an XMPP server is started with.
#[derive(Debug, Clone)]
pub struct ProsodyConfig {
    /// Where its data and log go.
    pub dir: PathBuf,
    /// The port for clients.
    pub client_port: u16,
    /// The port for the bridge.
    pub component_port: u16,
}

/// A running XMPP server.
#[derive(Debug)]
pub struct Prosody {
    config: ProsodyConfig,
    process: Process,
}

impl Prosody {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// When Prosody is not installed or does not come up.
    pub async fn start(config: ProsodyConfig) -> Result<Self> {
        std::fs::create_dir_all(config.dir.join("data")).context("making the server's folder")?;
        certificate::make(&config.dir).await?;
        let file = config.dir.join("prosody.cfg.lua");
        std::fs::write(&file, settings(&config)).context("writing the server's settings")?;
        let process = Self::run(&config, &file).await?;
        Ok(Self { config, process })
    }

    /// Adds an account, in the form in which the server itself stores it. Gives its bare JID and password.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn register(&self, localpart: &str) -> Result<(String, String)> {
        let password = format!("{localpart}-password");
        let accounts = self.config.dir.join("data").join(DOMAIN).join("accounts");
        std::fs::create_dir_all(&accounts).context("making the folder of accounts")?;
        let account = format!("return {{ [\"password\"] = \"{password}\" }};\n");
        std::fs::write(accounts.join(format!("{localpart}.dat")), account)
            .context("writing an account")?;
        Ok((format!("{localpart}@{DOMAIN}"), password))
    }

    /// The port for clients.
    pub fn client_port(&self) -> u16 {
        self.config.client_port
    }

    /// The port for the bridge.
    pub fn component_port(&self) -> u16 {
        self.config.component_port
    }

    /// Stops the server and starts it again.
    ///
    /// # Errors
    /// When it does not end or does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Stops the server.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await.map(drop)
    }

    /// Starts the server again, with the accounts and archives that it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = Self::run(&self.config, &self.config.dir.join("prosody.cfg.lua")).await?;
        Ok(())
    }

    async fn run(config: &ProsodyConfig, file: &std::path::Path) -> Result<Process> {
        let mut command = process::command("prosody");
        command.arg("-F").arg("--config").arg(file);
        let process = Process::start("prosody", command, &config.dir)?;
        for service in ["c2s", "component"] {
            let line = format!("Activated service '{service}' on ");
            process.wait_for_line(&line, Duration::from_secs(30)).await?;
        }
        Ok(process)
    }
}

fn settings(config: &ProsodyConfig) -> String {
    let ProsodyConfig { dir, client_port, component_port } = config;
    let dir = dir.display();
    format!(
        r#"run_as_root = true
pidfile = "{dir}/prosody.pid"
data_path = "{dir}/data"
certificates = "{dir}"
ssl = {{ key = "{dir}/tls.key"; certificate = "{dir}/tls.crt" }}
log = {{ info = "*console" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {client_port} }}
component_ports = {{ {component_port} }}
component_interfaces = {{ "127.0.0.1" }}
s2s_ports = {{ }}
http_ports = {{ }}
https_ports = {{ }}
modules_enabled = {{
    "roster"; "saslauth"; "disco"; "ping"; "private"; "vcard4"; "vcard_legacy"; "pep"; "carbons"; "mam";
    "blocklist"; "bookmarks"; "time"; "version"; "uptime"; "csi_simple"; "tls";
}}
modules_disabled = {{ "s2s" }}
allow_registration = false
c2s_require_encryption = false
c2s_stanza_size_limit = 4194304
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
limits = {{ }}
VirtualHost "{DOMAIN}"
Component "{COMPONENT}"
    component_secret = "{COMPONENT_SECRET}"
    component_conflict_resolve = "kick_old"
"#
    )
}
