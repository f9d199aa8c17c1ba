//! A real Prosody.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::certificate;
use crate::process::{self, Process};
use crate::xmpp_server::{COMPONENT, COMPONENT_SECRET, CROWD, DOMAIN, XmppServerConfig};

/// A running Prosody.
#[derive(Debug)]
pub struct Prosody {
    config: XmppServerConfig,
    process: Process,
}

impl Prosody {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// When Prosody is not installed or does not come up.
    pub async fn start(config: XmppServerConfig) -> Result<Self> {
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

    /// What it was started with.
    pub fn config(&self) -> &XmppServerConfig {
        &self.config
    }

    /// Stops the server. Prosody 0.12 trips over a signal that comes while it ends a client's session (an error in its
    /// `mod_posix`) and then goes on: it is killed.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        match self.process.stop().await {
            Ok(_) => Ok(()),
            Err(_) => self.process.kill().await,
        }
    }

    /// Starts the server again, with the accounts and archives that it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = Self::run(&self.config, &self.config.dir.join("prosody.cfg.lua")).await?;
        Ok(())
    }

    async fn run(config: &XmppServerConfig, file: &std::path::Path) -> Result<Process> {
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

fn settings(config: &XmppServerConfig) -> String {
    let XmppServerConfig { dir, client_port, component_port } = config;
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
Component "{CROWD}"
    component_secret = "{COMPONENT_SECRET}"
"#
    )
}
