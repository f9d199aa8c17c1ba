//! A homeserver, an XMPP server and the bridge between them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bridge::{Bridge, BridgeConfig, Environment};
use crate::element::ElementUser;
use crate::evil_hs::{EvilHomeserver, EvilPorts};
use crate::faults::XmppLink;
use crate::ghost_account::GhostAccount;
use crate::names;
use crate::omemo::{Device, OmemoUser};
use crate::paths;
use crate::ports::free_port;
use crate::synapse::{Synapse, SynapseConfig};
use crate::xmpp_server::{COMPONENT, XmppServer, XmppServerConfig, XmppSoftware};

/// Everything that two people need to talk to each other.
#[derive(Debug)]
pub struct World {
    /// The bridge.
    pub bridge: Bridge,
    /// The homeserver.
    pub homeserver: Synapse,
    /// The XMPP server.
    pub xmpp: XmppServer,
    files: Files,
}

/// Where the homeserver listens, and under which name.
#[derive(Debug, Default, Clone, Copy)]
enum Homeserver {
    /// Alone, called `localhost`.
    #[default]
    Alone,
    /// Known to other homeservers by its federation port.
    Federating,
}

/// Which build of the bridge it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The one that operators have.
    #[default]
    AsShipped,
    /// The one that dies where it is told to.
    WithFailpoints,
}

/// What differs for the bridge in a world that is recorded.
#[derive(Debug, Default)]
pub struct Setting {
    /// The build.
    pub program: Program,
    /// Its database; a file unless told otherwise.
    pub database_url: Option<String>,
    /// What its process finds in the environment besides.
    pub environment: Environment,
}

/// What differs from the plain world.
#[derive(Debug, Default)]
struct Plan {
    program: Program,
    homeserver: Homeserver,
    xmpp: XmppSoftware,
    links: Links,
    database_url: Option<String>,
    environment: Environment,
}

/// The ports at which links stand in for a server or the bridge.
#[derive(Debug, Default)]
struct Links {
    homeserver: Option<EvilPorts>,
    xmpp: Option<u16>,
}

/// The folder of one test. It is left behind, and named, unless the story came to its end.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    done: bool,
}

impl World {
    /// Starts all three, on free ports and with a new folder.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start(name: &str) -> Result<Self> {
        Self::build(name, Plan::default()).await
    }

    /// As [`World::start`], with a bridge that does not log every step.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start_quiet(name: &str) -> Result<Self> {
        let environment = vec![("GEPHYRA_LOGGING__LEVEL", "info".to_owned())];
        Self::build(name, Plan { environment, ..Plan::default() }).await
    }

    /// As [`World::start`], with ejabberd in place of Prosody.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start_with_ejabberd(name: &str) -> Result<Self> {
        let plan = Plan { xmpp: XmppSoftware::Ejabberd, ..Plan::default() };
        Self::build(name, plan).await
    }

    /// As [`World::start`], with the bridge on this database.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start_on(name: &str, database_url: String) -> Result<Self> {
        let database_url = Some(database_url);
        Self::build(name, Plan { database_url, ..Plan::default() }).await
    }

    /// As [`World::start`], with a homeserver that other homeservers can reach.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start_federating(name: &str) -> Result<Self> {
        let plan = Plan { homeserver: Homeserver::Federating, ..Plan::default() };
        Self::build(name, plan).await
    }

    /// As [`World::start`], with a homeserver that the test makes forge, replay, delay and drop.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start_with_evil_homeserver(name: &str) -> Result<(Self, EvilHomeserver)> {
        let ports = EvilPorts::choose()?;
        let evil = EvilHomeserver::start(ports).await?;
        let links = Links { homeserver: Some(ports), xmpp: None };
        let world = Self::build(name, Plan { links, ..Plan::default() }).await?;
        Ok((world, evil))
    }

    /// As [`World::start`], with a link between XMPP server and bridge into which stanzas can be put.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start_with_xmpp_link(name: &str) -> Result<(Self, XmppLink)> {
        let port = free_port()?;
        let links = Links { homeserver: None, xmpp: Some(port) };
        let world = Self::build(name, Plan { links, ..Plan::default() }).await?;
        let link = XmppLink::start(port, world.xmpp.component_port()).await?;
        Ok((world, link))
    }

    /// As [`World::start`], with a recording proxy on either side of the bridge.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn start_recorded(
        name: &str,
        setting: Setting,
    ) -> Result<(Self, EvilHomeserver, XmppLink)> {
        let Setting { program, database_url, environment } = setting;
        let (ports, port) = (EvilPorts::choose()?, free_port()?);
        let evil = EvilHomeserver::start(ports).await?;
        let links = Links { homeserver: Some(ports), xmpp: Some(port) };
        let plan = Plan { program, links, database_url, environment, ..Plan::default() };
        let world = Self::build(name, plan).await?;
        let link = XmppLink::start(port, world.xmpp.component_port()).await?;
        Ok((world, evil, link))
    }

    async fn build(name: &str, plan: Plan) -> Result<Self> {
        let Plan { program, homeserver: kind, xmpp: software, links, database_url, environment } =
            plan;
        let files = Files { dir: paths::scratch(name)?, done: false };
        let mut synapse = homeserver_config(files.dir.join("homeserver"), kind)?;
        if let Some(ports) = links.homeserver {
            synapse.client_port = ports.synapse;
        }
        let client_port = links.homeserver.map_or(synapse.client_port, |ports| ports.client);
        let xmpp = XmppServerConfig {
            dir: files.dir.join("xmpp"),
            client_port: free_port()?,
            component_port: free_port()?,
        };
        let program = match program {
            Program::AsShipped => paths::gephyra()?,
            Program::WithFailpoints => paths::gephyra_with_failpoints()?,
        };
        let bridge = Bridge::set_up(BridgeConfig {
            program,
            dir: files.dir.join("bridge"),
            homeserver_url: format!("http://127.0.0.1:{client_port}"),
            server_name: synapse.server_name.clone(),
            appservice_port: links.homeserver.map_or_else(free_port, |ports| Ok(ports.bridge))?,
            component_port: links.xmpp.unwrap_or(xmpp.component_port),
            database_url,
            environment,
        });
        let mut bridge = bridge.await?;
        if let Some(ports) = links.homeserver {
            redirect(&bridge.registration(), ports.push)?;
        }
        if let Homeserver::Federating = kind {
            bridge.permit("*", "user")?;
        }
        let registrations = vec![bridge.registration()];
        let (homeserver, xmpp) = tokio::try_join!(
            Synapse::start(SynapseConfig { registrations, ..synapse }),
            XmppServer::start(software, xmpp)
        )?;
        bridge.run().await?;
        Ok(Self { bridge, homeserver, xmpp, files })
    }

    /// A second homeserver, known to the first one by its federation port.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_other_homeserver(&self) -> Result<Synapse> {
        let dir = self.dir().join("other-homeserver");
        Synapse::start(homeserver_config(dir, Homeserver::Federating)?).await
    }

    /// A new person on Element at this homeserver.
    ///
    /// # Errors
    /// When the client does not come up.
    pub async fn element_user(&self, localpart: &str) -> Result<ElementUser> {
        Ok(ElementUser::start(&self.homeserver, localpart, self.dir()).await?.0)
    }

    /// A new person on an OMEMO client at this XMPP server.
    ///
    /// # Errors
    /// When the client does not come up.
    pub async fn omemo_user(&self, localpart: &str) -> Result<OmemoUser> {
        OmemoUser::start(&self.xmpp, localpart, self.dir()).await
    }

    /// A device of a person on this XMPP server.
    ///
    /// # Errors
    /// When the client does not come up.
    pub async fn omemo_device(&self, localpart: &str, device: &Device<'_>) -> Result<OmemoUser> {
        OmemoUser::start_device(&self.xmpp, localpart, self.dir(), device).await
    }

    /// The ghost of a person on XMPP, by their JID.
    pub fn ghost_of(&self, jid: &str) -> String {
        names::ghost_of(jid, self.homeserver.server_name())
    }

    /// The account of a ghost, past the bridge. The ghost must have a device.
    ///
    /// # Errors
    /// When the homeserver does not know it.
    pub async fn account_of(&self, ghost: &str) -> Result<GhostAccount> {
        GhostAccount::open(&self.homeserver, &self.bridge, ghost).await
    }

    /// Lets a ghost of which the bridge knows nothing have a device, as a database that is gone leaves it.
    ///
    /// # Errors
    /// When the homeserver refuses.
    pub async fn leave_device_of(&self, ghost: &str) -> Result<()> {
        GhostAccount::make(&self.homeserver, &self.bridge, ghost).await.map(drop)
    }

    /// The JID under which a person on Matrix appears on XMPP, by their Matrix id.
    pub fn jid_of(&self, user_id: &str) -> String {
        names::jid_of(user_id, COMPONENT)
    }

    /// The folder of this test.
    pub fn dir(&self) -> &Path {
        &self.files.dir
    }

    /// Ends the story well: stops the bridge in an orderly way and clears the folder.
    ///
    /// # Errors
    /// When the bridge does not end well.
    pub async fn end(mut self) -> Result<()> {
        self.bridge.stop().await?;
        self.clear();
        Ok(())
    }

    /// Ends a story whose bridge does not run any more, and clears the folder.
    pub fn clear(mut self) {
        self.files.done = true;
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.done {
            paths::clear(&self.dir);
            return;
        }
        #[expect(clippy::print_stderr, reason = "a failed test says where its logs are")]
        {
            eprintln!("the logs of this test are kept in {}", self.dir.display());
        }
    }
}

fn homeserver_config(dir: PathBuf, kind: Homeserver) -> Result<SynapseConfig> {
    let federation_port = match kind {
        Homeserver::Alone => None,
        Homeserver::Federating => Some(free_port()?),
    };
    let server_name =
        federation_port.map_or_else(|| "localhost".to_owned(), |port| format!("localhost:{port}"));
    let client_port = free_port()?;
    Ok(SynapseConfig { dir, server_name, client_port, federation_port, registrations: vec![] })
}

/// Makes the homeserver send its transactions to another port.
fn redirect(registration: &Path, port: u16) -> Result<()> {
    let text = std::fs::read_to_string(registration).context("reading the registration")?;
    let lines = text.lines().map(|line| {
        if line.starts_with("url:") {
            format!("url: http://127.0.0.1:{port}\n")
        } else {
            format!("{line}\n")
        }
    });
    std::fs::write(registration, lines.collect::<String>()).context("writing the registration")
}
