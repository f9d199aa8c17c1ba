//! What contacts may ask the bridge about people, in the forms of their own network.
//!
//! Such forms are not end-to-end encrypted, and whoever carries them can write them. So nothing
//! here decides about trust, and every answer holds only what is public among those who share a chat.

use async_trait::async_trait;
use ruma::{OwnedUserId, UserId};

use super::RemoteUserId;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inquiry {
    /// What can be asked at all.
    Help,
    /// How both legs of a chat are protected.
    Security,
    /// The public keys of a person, and those with which the bridge speaks for the two.
    Devices,
    /// What of the contact's own waits for a person, and for what.
    Pending,
    /// That a person be asked to compare keys. What they compare does not come this way.
    Verify,
}

impl Inquiry {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 5] =
        [Self::Help, Self::Security, Self::Devices, Self::Pending, Self::Verify];

    /// The word that asks for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::Security => "security",
            Self::Devices => "devices",
            Self::Pending => "pending",
            Self::Verify => "verify",
        }
    }
}

/// What is answered.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// Words for the contact.
    Text(String),
    /// The contact has chats with more than one person: which of these is meant?
    Whom(Vec<OwnedUserId>),
}

/// Nothing can be answered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bridge could not answer")]
pub struct NoAnswer;

/// Who answers contacts.
#[async_trait]
pub trait Inquiries: Send + Sync {
    /// Answers a contact. `about` is the person they mean; without it, the only one they have a
    /// chat with. Of people they share no chat with they learn nothing.
    ///
    /// # Errors
    /// [`NoAnswer`] when it is to be asked again later.
    async fn inquire(
        &self,
        contact: &RemoteUserId,
        inquiry: Inquiry,
        about: Option<&UserId>,
    ) -> Result<Answer, NoAnswer>;
}
