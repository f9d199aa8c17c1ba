//! Free loopback ports.

use std::net::TcpListener;

use anyhow::{Context, Result};
use rand::Rng;

/// A loopback port that nobody listens on. It lies below the range from which the system takes the ports of outgoing
/// connections, so that none of those can take it before its server does.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> Result<u16> {
    let mut rng = rand::rngs::OsRng;
    (0..200)
        .map(|_| rng.gen_range(15_000..32_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free loopback port was found")
}
