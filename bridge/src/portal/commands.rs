//! What the bot's commands do to portals.

use ruma::{OwnedRoomId, UserId};

use super::{
    Hub, StepError,
    from_remote::{CONTACT_CHANGED, chat_of},
};
use crate::{
    commands::Call,
    namespace::AddressTooLong,
    network::{InvalidContact, PlaintextPolicy},
    store::Portal,
};

/// What was told of a wait that a person's word has ended, and may be told again.
pub(super) const TOLD_OF_WAITS: &[&str] = &[
    "no_encryption",
    "no_usable_device",
    CONTACT_CHANGED,
    "own_identity_changed",
    "no_signed_device",
    "unsigned_sender",
];

/// Why a chat was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenChatError {
    /// The address is not one of this network.
    #[error("the address is not valid")]
    InvalidContact(#[source] InvalidContact),
    /// The ghost's id would be too long.
    #[error("the address is too long")]
    AddressTooLong(#[source] AddressTooLong),
    /// The homeserver or the store failed.
    #[error("the room could not be made")]
    Temporary,
}

/// Why an approval or a change of policy was not made.
#[derive(Debug, thiserror::Error)]
#[error("the decision could not be carried out")]
pub struct ApproveError;

impl Hub {
    /// Opens the encrypted room of `user` with a contact, and invites them.
    ///
    /// # Errors
    /// See [`OpenChatError`].
    pub async fn open_chat(
        &self,
        user: &UserId,
        address: &str,
    ) -> Result<OwnedRoomId, OpenChatError> {
        let contact =
            self.parts.network.parse_contact(address).map_err(OpenChatError::InvalidContact)?;
        match self.open(user, &contact).await {
            Ok(room) => room.map_err(OpenChatError::AddressTooLong),
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "portal.open.failed");
                Err(OpenChatError::Temporary)
            }
        }
    }

    /// Approves the caller's own changed identity and, in a portal, that of the contact. Returns
    /// how many identities were approved; what they held is released. A call in the clear says
    /// nothing of who made it, so it approves no identity of the caller's; one from an identity
    /// that has changed approves only itself.
    ///
    /// # Errors
    /// [`ApproveError`] when it is not known to be stored.
    pub async fn approve(&self, call: &Call<'_>) -> Result<usize, ApproveError> {
        let mut approved = 0;
        if let Some(identity) = call.identity {
            let own = self.parts.devices.approve(call.sender, identity).await.map_err(|error| {
                tracing::warn!(error = %crate::error_chain(&error), "portal.approve.failed");
                ApproveError
            })?;
            approved += usize::from(own);
        }
        if let Some(portal) = call.portal.filter(|_| !call.is_of_changed_identity()) {
            approved += self.approve_contact(portal).await?;
        }
        self.release(call.sender, call.portal).await.map_err(|error| {
            tracing::warn!(error = %crate::error_chain(&error), "portal.release.failed");
            ApproveError
        })?;
        Ok(approved)
    }

    /// Approves those identities of the contact whose fingerprints were said in the room.
    async fn approve_contact(&self, portal: &Portal) -> Result<usize, ApproveError> {
        let shown = async {
            let mut tx = self.parts.db.read().await?;
            tx.notices().subjects(portal.room_id.as_str(), CONTACT_CHANGED).await
        };
        let shown = shown.await.map_err(|error| {
            tracing::warn!(error = %crate::error_chain(&error), "portal.approve.failed");
            ApproveError
        })?;
        self.parts.remote.approve(&chat_of(portal), &shown).await.map_err(|error| {
            tracing::warn!(error = %error, "portal.approve.failed");
            ApproveError
        })
    }

    /// Changes whether messages may go unencrypted to the contact of a portal.
    ///
    /// # Errors
    /// [`ApproveError`] when it is not known to be stored.
    pub async fn set_plaintext(
        &self,
        portal: &Portal,
        policy: PlaintextPolicy,
    ) -> Result<(), ApproveError> {
        let stored = async {
            let mut tx = self.parts.db.begin().await?;
            tx.portals().set_plaintext(&portal.room_id, policy).await?;
            Self::forget_told(&mut tx, portal, &["no_encryption"]).await?;
            tx.commit().await?;
            Ok::<_, StepError>(())
        };
        stored.await.map_err(|error| {
            tracing::warn!(error = %crate::error_chain(&error), "portal.plaintext.failed");
            ApproveError
        })?;
        self.ring_room(&portal.room_id);
        Ok(())
    }

    /// The contact has encryption: consent to write to them without it ends. Should it be gone
    /// one day, or be hidden by somebody on the way, the person is asked again.
    pub(super) async fn end_plaintext(&self, portal: &Portal) -> Result<(), StepError> {
        if portal.plaintext == PlaintextPolicy::Refuse {
            return Ok(());
        }
        let mut tx = self.parts.db.begin().await?;
        tx.portals().set_plaintext(&portal.room_id, PlaintextPolicy::Refuse).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn release(&self, user: &UserId, portal: Option<&Portal>) -> Result<(), StepError> {
        if let Some(portal) = portal {
            let mut tx = self.parts.db.begin().await?;
            Self::forget_told(&mut tx, portal, TOLD_OF_WAITS).await?;
            tx.commit().await?;
        }
        Ok(self.ring_all_of(user).await?)
    }
}
