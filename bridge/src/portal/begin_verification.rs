//! Verifications that the bridge begins, on the word of the person or of the contact.

use ruma::UserId;

use super::{Hub, StepError, commands::ApproveError, notices::verification as words};
use crate::{
    network::RemoteUserId,
    store::{Portal, StoredVerification, VerificationStage},
};

/// Why a verification was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotBegun {
    /// One is under way.
    UnderWay,
    /// The Matrix user has no identity.
    NoIdentity,
    /// There is no chat of the two.
    NoChat,
    /// No encrypted message reaches the contact.
    OutOfReach,
}

impl Hub {
    /// The person wants it, and their client has no button or they do not find it.
    ///
    /// # Errors
    /// [`ApproveError`] when it is not known to have begun.
    pub async fn verify_contact(
        &self,
        portal: &Portal,
    ) -> Result<Result<(), NotBegun>, ApproveError> {
        let begun = async {
            if !self.show_contact(&portal.contact, &words::announced(&portal.local)).await {
                return Ok(Err(NotBegun::OutOfReach));
            }
            let begun = self.begin_verification(&portal.local, &portal.contact).await;
            // The one that is under way goes on.
            if !matches!(begun, Ok(Ok(()) | Err(NotBegun::UnderWay))) {
                let text = words::about(&portal.local, words::CALLED_OFF);
                self.show_contact(&portal.contact, &text).await;
            }
            begun
        };
        begun.await.map_err(|error: StepError| {
            tracing::warn!(error = %crate::error_chain(&error), "portal.verify.failed");
            ApproveError
        })
    }

    /// Begins a verification for whoever of the two wants it: the person's client shows it as
    /// asked for by the contact.
    pub(super) async fn begin_verification(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Result<(), NotBegun>, StepError> {
        let Some(portal) = self.open_portal(user, contact).await?.filter(|_| self.may_use(user))
        else {
            return Ok(Err(NotBegun::NoChat));
        };
        // One that was lost is ended first.
        self.tend_verifications(&portal.ghost).await?;
        let begin = async {
            let mut tx = self.parts.db.read().await?;
            let known = tx.verifications().load_by_ghost(&portal.ghost).await?;
            drop(tx);
            if known.iter().any(|row| row.user_id == *user) {
                return Ok(Err(NotBegun::UnderWay));
            }
            let devices = &self.parts.devices;
            let asked = devices.ask_for_verification(&portal.ghost, user, &portal.room_id).await;
            let Some(flow) = asked? else { return Ok(Err(NotBegun::NoIdentity)) };
            let row = StoredVerification {
                ghost: portal.ghost.clone(),
                user_id: user.to_owned(),
                flow,
                contact: contact.clone(),
                portal_room: portal.room_id.clone(),
                flow_room: Some(portal.room_id.clone()),
                device_id: None,
                stage: VerificationStage::AskedByContact,
                shown: None,
            };
            let mut tx = self.parts.db.begin().await?;
            tx.verifications().insert(&row).await?;
            tx.commit().await?;
            Ok(Ok(()))
        };
        self.verifying.alone(&portal.ghost, begin).await
    }
}

impl From<NotBegun> for &'static str {
    fn from(why: NotBegun) -> Self {
        match why {
            NotBegun::UnderWay => "A comparison is under way already.",
            NotBegun::NoIdentity => {
                "There is no encryption identity to compare: cross-signing is not set up on Matrix."
            }
            NotBegun::NoChat => "You have no chat with them through this bridge.",
            NotBegun::OutOfReach => words::CONTACT_OUT_OF_REACH,
        }
    }
}
