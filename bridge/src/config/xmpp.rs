//! `[xmpp]`: the component on the XMPP server.

use std::path::{Path, PathBuf};

use jid::DomainPart;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{ConfigError, LoopbackAddress, Secret};

/// The component (XEP-0114) and where it connects to.
#[derive(Debug, Clone)]
pub struct XmppConfig {
    /// The component's domain, which Matrix users' addresses end in.
    pub component: DomainPart,
    /// The server's component port.
    pub server: LoopbackAddress,
    /// The secret that the server asks of the component.
    pub secret: Secret,
}

/// The section as it stands in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct XmppSection {
    #[serde(serialize_with = "serialize_domain", deserialize_with = "deserialize_domain")]
    pub(super) component: DomainPart,
    pub(super) server: LoopbackAddress,
    #[serde(default, skip_serializing)]
    pub(super) secret: Option<Secret>,
    #[serde(default)]
    pub(super) secret_file: Option<PathBuf>,
}

pub(super) const COMMENTS: super::Comments = &[
    ("", "The XMPP server, which the bridge joins as a component (XEP-0114)."),
    (
        "component",
        "The component's domain: Matrix users get the addresses user%server@component. It stays as it is\n\
         once the bridge has run.",
    ),
    (
        "server",
        "The server's component port, on this machine: the protocol has no encryption of its own.",
    ),
    (
        "secret_file",
        "File with the secret that the server's configuration holds for this component. The secret\n\
         itself can stand here as `secret` instead.",
    ),
];

impl XmppSection {
    /// Reads the secret from where the section says it is.
    pub(super) fn load(self, base: &Path) -> Result<XmppConfig, ConfigError> {
        let secret = match (self.secret, self.secret_file) {
            (Some(secret), None) => secret,
            (None, Some(file)) => Secret::load_file(&base.join(file))?,
            (Some(_), Some(_)) => return Err(ConfigError::TwoSecrets),
            (None, None) => return Err(ConfigError::NoSecret),
        };
        Ok(XmppConfig { component: self.component, server: self.server, secret })
    }
}

/// Checks the component's domain.
///
/// # Errors
/// [`DomainError`] when it is not a domain of XMPP.
pub fn parse_domain(text: &str) -> Result<DomainPart, DomainError> {
    DomainPart::new(text).map(std::borrow::Cow::into_owned).map_err(|_| DomainError)
}

fn serialize_domain<S: serde::Serializer>(domain: &DomainPart, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(domain.as_str())
}

fn deserialize_domain<'de, D: Deserializer<'de>>(from: D) -> Result<DomainPart, D::Error> {
    parse_domain(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// Not a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a domain like bridge.example.org")]
pub struct DomainError;
