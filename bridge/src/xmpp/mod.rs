//! XMPP, the first network: an XEP-0114 component that speaks for every Matrix user.
//!
//! Owns everything that is a stanza, a JID or a PEP node. Knows no Matrix room and no
//! homeserver: what comes goes through the seam in [`crate::network`].

mod address;
mod adhoc;
mod client;
mod connection;
mod convert;
mod core;
mod decrypt;
mod devices;
mod encrypt;
mod expiry;
mod heal;
mod link;
mod outbox;
mod pep;
mod presence;
mod reader;
mod router;
mod stanza;
mod stream;
mod trust;
mod uri;
mod worker;
mod xml;

use std::time::Duration;

use jid::BareJid;
use zeroize::Zeroizing;

pub use self::client::XmppClient;
use crate::network::{Capabilities, InvalidContact, Network, RemoteUserId};

/// How the component reaches its server, and what it does there.
#[derive(Clone)]
pub struct XmppConfig {
    /// The component's domain (`bridge.example.org`).
    pub component: BareJid,
    /// Where the server listens for components: `host:port`.
    pub server: String,
    /// The secret that the server knows for this component.
    pub secret: Zeroizing<String>,
    /// How long a stanza waits for a decision about the device that has sent it.
    pub hold: Duration,
}

/// Shows no secret.
impl std::fmt::Debug for XmppConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XmppConfig")
            .field("component", &self.component.as_str())
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// The network's name.
const NAME: &str = "xmpp";

/// Longest text in one message, in bytes: with its encryption and the fallback it stays well
/// under the 256 KiB that servers let through.
const MAX_TEXT_BYTES: usize = 128 * 1024;

/// XMPP as a network.
#[derive(Debug, Clone)]
pub struct Xmpp {
    component: BareJid,
}

impl Xmpp {
    /// XMPP as seen from this component's domain.
    pub fn new(component: BareJid) -> Self {
        Self { component }
    }
}

impl Network for Xmpp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { max_text_bytes: MAX_TEXT_BYTES, encryption: "OMEMO", emotes: true }
    }

    fn parse_contact(&self, text: &str) -> Result<RemoteUserId, InvalidContact> {
        let text = text.trim().trim_start_matches("xmpp:");
        let invalid = |reason| InvalidContact { reason };
        let jid = jid::Jid::new(text)
            .map_err(|_| invalid("it is not of the form name@server"))?
            .try_into_full()
            .map_or_else(Ok, |_| Err(invalid("leave out the part after the slash")))?;
        if jid.node().is_none() {
            return Err(invalid("the part before the @ is missing"));
        }
        if jid.domain() == self.component.domain() {
            return Err(invalid("it belongs to this bridge"));
        }
        Ok(RemoteUserId::new(jid.as_str()))
    }
}

#[cfg(test)]
mod tests;
