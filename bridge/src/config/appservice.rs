//! `[appservice]`: what the homeserver calls.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::AddressError;

/// Where the homeserver reaches the bridge, and the file that both sides read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppserviceConfig {
    /// Address to listen on, on this machine.
    #[serde(deserialize_with = "deserialize_listen")]
    pub listen: SocketAddr,
    /// The registration: `appservice.yaml`.
    pub registration: PathBuf,
}

pub(super) const COMMENTS: super::Comments = &[
    ("", "What the homeserver calls."),
    (
        "listen",
        "Address to listen on, on this machine; a reverse proxy with TLS can stand in front. The\n\
         registration's `url` must lead here.",
    ),
    (
        "registration",
        "The registration; the homeserver reads a copy of it. Its tokens stand nowhere else.",
    ),
];

/// Checks an address to listen on.
///
/// # Errors
/// [`AddressError`] when it is not `ip:port` or is open to other machines.
pub fn parse_listen(text: &str) -> Result<SocketAddr, AddressError> {
    let address: SocketAddr = text.parse().map_err(|_| AddressError::NoPort)?;
    if !address.ip().is_loopback() {
        return Err(AddressError::OtherMachine);
    }
    Ok(address)
}

fn deserialize_listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_listen(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}
