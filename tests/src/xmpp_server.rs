//! The XMPP server of a world: one of those that people run.

use std::path::PathBuf;

use anyhow::Result;

use crate::ejabberd::Ejabberd;
use crate::prosody::Prosody;

/// The domain of its accounts.
pub const DOMAIN: &str = "localhost";

/// The component's domain.
pub const COMPONENT: &str = "bridge.localhost";

/// The domain of contacts who live in a component of their own.
pub const CROWD: &str = "crowd.localhost";

/// What either component proves itself with.
pub const COMPONENT_SECRET: &str = "only-for-tests";

/// What an XMPP server is started with.
#[derive(Debug, Clone)]
pub struct XmppServerConfig {
    /// Where its data and log go.
    pub dir: PathBuf,
    /// The port for clients.
    pub client_port: u16,
    /// The port for the bridge.
    pub component_port: u16,
}

/// Which server it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum XmppSoftware {
    /// Prosody.
    #[default]
    Prosody,
    /// ejabberd.
    Ejabberd,
}

/// A running XMPP server.
#[derive(Debug)]
pub enum XmppServer {
    /// Prosody.
    Prosody(Prosody),
    /// ejabberd.
    Ejabberd(Ejabberd),
}

impl XmppServer {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub async fn start(software: XmppSoftware, config: XmppServerConfig) -> Result<Self> {
        Ok(match software {
            XmppSoftware::Prosody => Self::Prosody(Prosody::start(config).await?),
            XmppSoftware::Ejabberd => Self::Ejabberd(Ejabberd::start(config).await?),
        })
    }

    /// Makes sure that there is an account. Gives its bare JID and password.
    ///
    /// # Errors
    /// When the server does not take it.
    pub async fn register(&self, localpart: &str) -> Result<(String, String)> {
        match self {
            Self::Prosody(server) => server.register(localpart),
            Self::Ejabberd(server) => server.register(localpart).await,
        }
    }

    /// The port for clients.
    pub fn client_port(&self) -> u16 {
        self.config().client_port
    }

    /// The port for the bridge.
    pub fn component_port(&self) -> u16 {
        self.config().component_port
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
        match self {
            Self::Prosody(server) => server.stop().await,
            Self::Ejabberd(server) => server.stop().await,
        }
    }

    /// Starts the server again, with the accounts that it had.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        match self {
            Self::Prosody(server) => server.start_again().await,
            Self::Ejabberd(server) => server.start_again().await,
        }
    }

    fn config(&self) -> &XmppServerConfig {
        match self {
            Self::Prosody(server) => server.config(),
            Self::Ejabberd(server) => server.config(),
        }
    }
}
