//! A text that must not be seen.

use std::{fmt, path::Path};

use serde::{Deserialize, Deserializer, de::Error as _};
use zeroize::Zeroizing;

/// A token, password or shared secret: wiped from memory on drop, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text that must not be seen.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file, without the line end that editors leave behind.
    ///
    /// # Errors
    /// [`SecretFileError`] when the file cannot be read or holds no text.
    pub fn load_file(path: &Path) -> Result<Self, SecretFileError> {
        let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|source| {
            SecretFileError::Unreadable { path: path.display().to_string(), source }
        })?;
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(SecretFileError::Empty { path: path.display().to_string() });
        }
        Ok(Self::new(secret))
    }
}

/// Shows nothing.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error of serde would repeat the value.
        match String::deserialize(deserializer) {
            Ok(text) if text.is_empty() => Err(D::Error::custom("is empty")),
            Ok(text) => Ok(Self::new(text)),
            Err(_) => Err(D::Error::custom("must be a text in quotes")),
        }
    }
}

/// A file that should hold a secret does not.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file is missing, not allowed to us or not UTF-8.
    #[error("cannot read the secret in {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("{path} is empty; it should hold the secret on one line")]
    Empty {
        /// The file.
        path: String,
    },
}
