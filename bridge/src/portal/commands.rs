//! What the bot's commands do to portals.

use ruma::{OwnedRoomId, UserId};

use super::{
    Hub, StepError, create_room::NoRoom, from_remote::chat_of, own_identity::OWN_IDENTITY_CHANGED,
    say::NO_ENCRYPTION,
};
use crate::{
    namespace::AddressTooLong,
    network::{InvalidContact, PlaintextPolicy},
    store::{Portal, StoreError},
};

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
            Ok(Ok(room)) => Ok(room),
            Ok(Err(NoRoom::AddressTooLong(too_long))) => {
                Err(OpenChatError::AddressTooLong(too_long))
            }
            Ok(Err(none)) => {
                tracing::warn!(error = %crate::error_chain(&none), "portal.open.refused");
                Err(OpenChatError::Temporary)
            }
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "portal.open.failed");
                Err(OpenChatError::Temporary)
            }
        }
    }

    /// Approves the changed identity of a person, and releases what was held for that. `identity` is the public
    /// master key behind their word. Returns whether an identity was waiting.
    ///
    /// # Errors
    /// [`ApproveError`] when it is not known to be stored.
    pub async fn approve_person(
        &self,
        user: &UserId,
        identity: &str,
    ) -> Result<bool, ApproveError> {
        let approved = async {
            let approved = self.approve_identity(user, identity).await?;
            if approved {
                self.release_person(user).await?;
            }
            Ok::<_, StepError>(approved)
        };
        approved.await.map_err(|error| {
            tracing::warn!(error = %crate::error_chain(&error), "portal.approve.failed");
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
            Self::forget_told(&mut tx, portal, &[NO_ENCRYPTION]).await?;
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

    /// The identity of a person is approved: what waited for that goes on in all their chats.
    pub(super) async fn release_person(&self, user: &UserId) -> Result<(), StepError> {
        let mut tx = self.parts.db.read().await?;
        let portals = tx.portals().load_by_local(user).await?;
        drop(tx);
        for portal in &portals {
            self.release(portal, &[OWN_IDENTITY_CHANGED]).await?;
        }
        Ok(())
    }

    /// What was told of a wait has ended, and the chat is looked at again.
    pub(super) async fn release(&self, portal: &Portal, told: &[&str]) -> Result<(), StoreError> {
        let mut tx = self.parts.db.begin().await?;
        for kind in told {
            tx.notices().forget(portal.room_id.as_str(), kind).await?;
        }
        tx.commit().await?;
        self.ring_chat(&chat_of(portal));
        self.ring_room(&portal.room_id);
        Ok(())
    }
}
