//! Stored state: one version byte, then JSON.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::error::StateError;

/// Serialises into memory that is wiped when dropped.
pub(crate) fn to_bytes(
    version: u8,
    state: &impl Serialize,
) -> Result<Zeroizing<Vec<u8>>, StateError> {
    // The exact size first: a vector that grows would leave copies of secrets behind.
    let mut size = Counter(1);
    serde_json::to_writer(&mut size, state).map_err(|_| StateError::Damaged)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.0));
    bytes.push(version);
    serde_json::to_writer(&mut *bytes, state).map_err(|_| StateError::Damaged)?;
    Ok(bytes)
}

pub(crate) fn from_bytes<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, StateError> {
    match bytes.split_first() {
        Some((found, json)) if *found == version => {
            serde_json::from_slice(json).map_err(|_| StateError::Damaged)
        }
        other => Err(StateError::Version(other.map(|(found, _)| *found))),
    }
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
