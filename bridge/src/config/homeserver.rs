//! `[homeserver]`: the Matrix side.

use ruma::OwnedServerName;
use serde::{Deserialize, Serialize};
use url::Url;

use super::address;

/// Where the homeserver is and what it is called.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeserverConfig {
    /// Base of its client-server API: `https`, or `http` on this machine.
    #[serde(deserialize_with = "address::deserialize_protected_url")]
    pub url: Url,
    /// The part of its users' ids after the colon.
    pub server_name: OwnedServerName,
}

pub(super) const COMMENTS: super::Comments = &[
    ("", "The Matrix homeserver."),
    (
        "url",
        "Base address of its client-server API, as the bridge reaches it. https, or http on this\n\
         machine: the tokens must not cross a network in the clear. No proxy of the environment is used.",
    ),
    (
        "server_name",
        "The part of its users' ids after the colon. It stays as it is once the bridge has run.",
    ),
];
