//! Sealing of secret columns: XChaCha20-Poly1305 under a key derived from the [`StoreKey`].
//!
//! A sealed cell is bound to its table, column and row: moved elsewhere it does not open.
//! Layout: one version byte, 24 bytes of random nonce, ciphertext with tag.
//!
//! What a row is looked up by and comes from outside goes through [`Sealer::blind`].

use chacha20poly1305::{
    AeadCore as _, KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, OsRng, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{StoreError, StoreKey};

const VERSION: u8 = 1;
const NONCE_LENGTH: usize = 24;
const BLIND_LENGTH: usize = 16;

/// The place of a sealed value.
#[derive(Debug, Clone, Copy)]
pub struct Cell<'a> {
    /// Its table.
    pub table: &'static str,
    /// Its column.
    pub column: &'static str,
    /// What names its row: unique in the table, and never changed.
    pub row: &'a [&'a str],
}

impl Cell<'_> {
    /// Every part with its length before it, so that no two cells read the same.
    fn associated_data(&self) -> Vec<u8> {
        let parts = [self.table, self.column].into_iter().chain(self.row.iter().copied());
        let mut data = vec![VERSION];
        for part in parts {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        data
    }

    fn error(&self, source: SealError) -> StoreError {
        StoreError::Sealed { table: self.table, column: self.column, source }
    }
}

/// Seals and opens the cells of one database.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    blinding: Hkdf<Sha256>,
    linking: Hmac<Sha256>,
}

impl Sealer {
    /// Length of a link, in bytes.
    pub const LINK_LENGTH: usize = 32;

    /// Derives the keys for sealing, blinding and linking (HKDF-SHA-256).
    ///
    /// # Errors
    /// [`SealError::Derivation`], which HKDF reserves for much longer keys.
    pub fn new(key: &StoreKey) -> Result<Self, SealError> {
        let root = Hkdf::<Sha256>::new(None, key.as_bytes());
        let derive = |label: &[u8]| {
            let mut derived = Zeroizing::new([0; StoreKey::LENGTH]);
            root.expand(label, derived.as_mut())
                .map(|()| derived)
                .map_err(|_| SealError::Derivation)
        };
        let sealing = derive(b"gephyra sealed column v1")?;
        let blinding = derive(b"gephyra blinded column v1")?;
        let linking = derive(b"gephyra linked rows v1")?;
        Ok(Self {
            cipher: XChaCha20Poly1305::new(sealing.as_ref().into()),
            blinding: Hkdf::from_prk(blinding.as_ref()).map_err(|_| SealError::Derivation)?,
            linking: <Hmac<Sha256> as Mac>::new_from_slice(linking.as_ref())
                .map_err(|_| SealError::Derivation)?,
        })
    }

    /// What ties a row to the one before it, so that rows cannot be altered without the key:
    /// HMAC-SHA-256 over the parts, each with its length before it.
    pub fn link<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> [u8; Self::LINK_LENGTH] {
        let mut mac = self.linking.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// What stands in a column for a value that is only looked up: 16 bytes that say nothing
    /// without the key. `cell.row` is what is looked up; it may be of any length and hold any
    /// character, which a text column with an index may not.
    ///
    /// # Errors
    /// [`SealError::Derivation`], which HKDF reserves for much longer results.
    pub fn blind(&self, cell: Cell<'_>) -> Result<Vec<u8>, StoreError> {
        let mut blinded = vec![0; BLIND_LENGTH];
        self.blinding
            .expand(&cell.associated_data(), &mut blinded)
            .map_err(|_| cell.error(SealError::Derivation))?;
        Ok(blinded)
    }

    /// Seals a value for its cell.
    ///
    /// # Errors
    /// Only for values that no memory holds.
    pub fn seal(&self, cell: Cell<'_>, plaintext: &[u8]) -> Result<Vec<u8>, StoreError> {
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let payload = Payload { msg: plaintext, aad: &cell.associated_data() };
        let ciphertext =
            self.cipher.encrypt(&nonce, payload).map_err(|_| cell.error(SealError::TooLong))?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LENGTH + ciphertext.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// Opens the sealed value of a cell.
    ///
    /// # Errors
    /// When it was sealed under another key, for another cell, or was altered.
    pub fn open(&self, cell: Cell<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let (version, rest) =
            sealed.split_first().ok_or_else(|| cell.error(SealError::Truncated))?;
        if *version != VERSION {
            return Err(cell.error(SealError::UnknownVersion(*version)));
        }
        let (nonce, ciphertext) =
            rest.split_at_checked(NONCE_LENGTH).ok_or_else(|| cell.error(SealError::Truncated))?;
        let payload = Payload { msg: ciphertext, aad: &cell.associated_data() };
        self.cipher
            .decrypt(XNonce::from_slice(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| cell.error(SealError::NotAuthentic))
    }

    /// Seals a value as JSON.
    ///
    /// # Errors
    /// When it has no JSON form.
    pub fn seal_json(&self, cell: Cell<'_>, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
        let json = serde_json::to_vec(value)
            .map_err(|_| StoreError::Encode { table: cell.table, column: cell.column })?;
        self.seal(cell, &Zeroizing::new(json))
    }

    /// Opens a value that [`Self::seal_json`] sealed.
    ///
    /// # Errors
    /// As [`Self::open`], and when it holds another type.
    pub fn open_json<T: DeserializeOwned>(
        &self,
        cell: Cell<'_>,
        sealed: &[u8],
    ) -> Result<T, StoreError> {
        serde_json::from_slice(&self.open(cell, sealed)?)
            .map_err(|_| StoreError::Corrupt { table: cell.table, column: cell.column })
    }

    /// Opens a text.
    ///
    /// # Errors
    /// As [`Self::open`], and when it is not UTF-8.
    pub fn open_text(&self, cell: Cell<'_>, sealed: &[u8]) -> Result<String, StoreError> {
        String::from_utf8(self.open(cell, sealed)?.to_vec())
            .map_err(|_| StoreError::Corrupt { table: cell.table, column: cell.column })
    }
}

/// Shows nothing of the key.
impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(…)")
    }
}

/// A sealed value cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No key of this length can be derived.
    #[error("the sealing key cannot be derived")]
    Derivation,
    /// It is longer than the cipher allows.
    #[error("the value is too long to be sealed")]
    TooLong,
    /// It is shorter than any sealed value.
    #[error("the sealed value is cut off")]
    Truncated,
    /// A newer program wrote it.
    #[error("the sealed value has the unknown version {0}")]
    UnknownVersion(u8),
    /// Another key, another place, or altered.
    #[error("the sealed value does not open under this key in this place")]
    NotAuthentic,
}
