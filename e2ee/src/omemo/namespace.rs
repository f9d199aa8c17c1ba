//! The two versions of OMEMO and the constants in which they differ.

use serde::{Deserialize, Serialize};

/// A version of OMEMO, named by its XML namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Namespace {
    /// `eu.siacs.conversations.axolotl`, XEP-0384 0.3. Encrypts the text of the body only.
    #[serde(rename = "legacy")]
    Legacy,
    /// `urn:xmpp:omemo:2`, XEP-0384 0.8.3 and later. Encrypts a whole XEP-0420 envelope.
    #[serde(rename = "v2")]
    V2,
}

impl Namespace {
    /// Both, the one to prefer first.
    pub const ALL: [Self; 2] = [Self::V2, Self::Legacy];

    /// The XML namespace of the elements.
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Legacy => "eu.siacs.conversations.axolotl",
            Self::V2 => "urn:xmpp:omemo:2",
        }
    }

    /// The version that owns an XML namespace.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|namespace| namespace.uri() == uri)
    }

    /// The PEP node of device lists; its item is named `current`.
    pub const fn device_list_node(self) -> &'static str {
        match self {
            Self::Legacy => "eu.siacs.conversations.axolotl.devicelist",
            Self::V2 => "urn:xmpp:omemo:2:devices",
        }
    }

    pub(crate) const fn labels(self) -> &'static Labels {
        match self {
            Self::Legacy => &Labels {
                handshake: b"WhisperText",
                root: b"WhisperRatchet",
                message: b"WhisperMessageKeys",
            },
            Self::V2 => &Labels {
                handshake: b"OMEMO X3DH",
                root: b"OMEMO Root Chain",
                message: b"OMEMO Message Key Material",
            },
        }
    }
}

/// The HKDF infos of one version. They keep the two versions' keys apart although the identity is
/// the same.
pub(crate) struct Labels {
    pub(crate) handshake: &'static [u8],
    pub(crate) root: &'static [u8],
    pub(crate) message: &'static [u8],
}
