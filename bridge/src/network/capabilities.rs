//! What a network can carry.

/// What a network can carry. A `false` here goes with [`super::SendError::Unsupported`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Longest text in bytes.
    pub max_text_bytes: usize,
    /// What its end-to-end encryption is called (`OMEMO`).
    pub encryption: &'static str,
    /// Whether `/me` messages exist.
    pub emotes: bool,
}
