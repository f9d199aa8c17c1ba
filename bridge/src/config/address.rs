//! Addresses that secrets may be sent to: over TLS, or without leaving the machine.

use std::{fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use url::{Host, Url};

/// A `host:port` on this machine, for a protocol that has no encryption of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct LoopbackAddress {
    host: String,
    port: u16,
}

impl LoopbackAddress {
    /// `localhost` or an IP address of this machine, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<LoopbackAddress> for String {
    fn from(address: LoopbackAddress) -> Self {
        address.to_string()
    }
}

impl FromStr for LoopbackAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = SocketAddr::from_str(text) {
            if !address.ip().is_loopback() {
                return Err(AddressError::OtherMachine);
            }
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let port = port.parse().map_err(|_| AddressError::NoPort)?;
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(Self { host: "localhost".to_owned(), port });
        }
        Err(AddressError::OtherMachine)
    }
}

impl<'de> Deserialize<'de> for LoopbackAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Parses the address of an HTTP server that gets our tokens.
///
/// # Errors
/// [`AddressError`] when it is no http address or would send tokens in the clear to another machine.
pub fn parse_protected_url(text: &str) -> Result<Url, AddressError> {
    let url = Url::parse(text).map_err(|_| AddressError::NotHttp)?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(AddressError::NotABase);
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_this_machine(&url) => Ok(url),
        "http" => Err(AddressError::OtherMachine),
        _ => Err(AddressError::NotHttp),
    }
}

pub(super) fn deserialize_protected_url<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Url, D::Error> {
    parse_protected_url(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What is wrong with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another machine, and no encryption on the way.
    #[error(
        "is not on this machine; use 127.0.0.1, [::1] or localhost, and for another machine an \
         encrypted way there (https, or a tunnel that ends here)"
    )]
    OtherMachine,
    /// The port is missing or not a number below 65536.
    #[error("must be host:port, for example 127.0.0.1:5347")]
    NoPort,
    /// Not a web address.
    #[error("must be an address like https://matrix.example.org or http://localhost:8008")]
    NotHttp,
    /// A base address has no user, query or fragment.
    #[error("must not have a user name, a query (?) or a fragment (#)")]
    NotABase,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unencrypted_addresses_stay_on_this_machine() {
        for good in ["127.0.0.1:5347", "[::1]:5347", "localhost:5347"] {
            assert_eq!(good.parse::<LoopbackAddress>().unwrap().to_string(), good);
        }
        for bad in ["192.0.2.1:5347", "xmpp.example.org:5347", "0.0.0.0:5347", "[::]:1"] {
            assert_eq!(bad.parse::<LoopbackAddress>(), Err(AddressError::OtherMachine), "{bad}");
        }
        for bad in ["localhost", "localhost:", "localhost:70000", ""] {
            assert_eq!(bad.parse::<LoopbackAddress>(), Err(AddressError::NoPort), "{bad}");
        }
    }

    #[test]
    fn tokens_leave_the_machine_over_tls_only() {
        for good in ["https://matrix.example.org", "http://localhost:8008/", "http://[::1]:8008"] {
            parse_protected_url(good).unwrap();
        }
        for bad in ["http://matrix.example.org", "http://localhost.example.org:8008"] {
            assert_eq!(parse_protected_url(bad), Err(AddressError::OtherMachine), "{bad}");
        }
        for bad in ["matrix.example.org", "ftp://localhost", "localhost:8008"] {
            assert_eq!(parse_protected_url(bad), Err(AddressError::NotHttp), "{bad}");
        }
        assert_eq!(parse_protected_url("https://a/?b"), Err(AddressError::NotABase));
    }
}
