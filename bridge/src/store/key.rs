//! The key that seals secret columns.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

/// 32 random bytes from which the sealing key is derived. Without them the database is worthless,
/// with them it is open: keep the file apart from the database's backups.
pub struct StoreKey(Zeroizing<[u8; StoreKey::LENGTH]>);

impl StoreKey {
    /// Length of the key, and of its file, in bytes.
    pub const LENGTH: usize = 32;

    /// Takes a key from memory.
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads a key file: exactly 32 bytes that only its owner (and a group, as systemd
    /// credentials have it) may read.
    ///
    /// # Errors
    /// When it cannot be read, has another size, or is open to others.
    pub fn load(path: &Path) -> Result<Self, StoreKeyError> {
        let mut file = File::open(path).map_err(StoreKeyError::Read)?;
        let mode = file.metadata().map_err(StoreKeyError::Read)?.permissions().mode() & 0o777;
        if mode & 0o027 != 0 {
            return Err(StoreKeyError::TooOpen { mode });
        }
        let mut bytes = Zeroizing::new([0; Self::LENGTH]);
        file.read_exact(bytes.as_mut()).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => StoreKeyError::WrongSize,
            _ => StoreKeyError::Read(error),
        })?;
        match file.read(&mut [0]).map_err(StoreKeyError::Read)? {
            0 => Ok(Self(bytes)),
            _ => Err(StoreKeyError::WrongSize),
        }
    }

    /// Makes a new key and writes it to a new file with mode 0400.
    ///
    /// # Errors
    /// When the file exists already or cannot be written.
    pub fn write_new(
        path: &Path,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Self, StoreKeyError> {
        let mut bytes = Zeroizing::new([0; Self::LENGTH]);
        rng.fill_bytes(bytes.as_mut());
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(path)
            .map_err(StoreKeyError::Write)?;
        file.write_all(bytes.as_ref()).map_err(StoreKeyError::Write)?;
        file.sync_all().map_err(StoreKeyError::Write)?;
        Ok(Self(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

/// Shows nothing of the key.
impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKey(…)")
    }
}

/// A key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreKeyError {
    /// It cannot be read.
    #[error("the key file (database.key_file) cannot be read; the bridge's user must own it")]
    Read(#[source] std::io::Error),
    /// It cannot be written.
    #[error("the key file cannot be written")]
    Write(#[source] std::io::Error),
    /// Others than its owner may read or change it.
    #[error(
        "the key file (database.key_file) has mode {mode:04o}, which is open to others: set it to 0400"
    )]
    TooOpen {
        /// Its permission bits.
        mode: u32,
    },
    /// It is not a key file.
    #[error("the key file (database.key_file) must hold exactly 32 bytes")]
    WrongSize,
}
