//! Free loopback ports.

use std::fs::{self, File};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rand::Rng;

/// The locks on the ports that this process has given out. They end with it, however it ends.
static GIVEN_OUT: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A loopback port that nobody listens on, and that no other test is given while this one runs. It lies below the range
/// from which the system takes the ports of outgoing connections, so that none of those can take it before its server
/// does.
///
/// # Errors
/// When no port is free.
pub fn free_port() -> Result<u16> {
    let mut rng = rand::rngs::OsRng;
    let port = (0..200).map(|_| rng.gen_range(15_000..32_000)).find(|port| is_free(*port));
    port.context("no free loopback port was found")
}

fn is_free(port: u16) -> bool {
    reserve(port).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn reserve(port: u16) -> Result<()> {
    let dir = std::env::temp_dir().join("gephyra-test-ports");
    fs::create_dir_all(&dir)?;
    let file = File::create(dir.join(port.to_string()))?;
    file.try_lock()?;
    GIVEN_OUT.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    Ok(())
}
