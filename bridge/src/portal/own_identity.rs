//! The identity of a person that is another one than before: who is told of it, and with which
//! words.

use ruma::UserId;

use super::{Hub, StepError, from_remote::chat_of, notices::contact_trust as words, say::Wording};
use crate::store::{ContactDecision, Notice, PinState, Portal};

/// What the contact had said of the identity that was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing.
    Pinned,
    /// They had compared it.
    Verified,
    /// They want nothing of the person.
    Distrusted,
}

impl Hub {
    /// Both sides learn that the Matrix user's identity is another one, once each.
    pub(super) async fn tell_identity_changed(&self, portal: &Portal) -> Result<(), StepError> {
        let Some(identity) = self.waiting_identity(&portal.local).await? else { return Ok(()) };
        let text = words::own_identity_changed(self.before_change(portal).await?);
        let kind = "own_identity_changed";
        self.tell_once_about(portal, kind, &[&identity], Wording::Public, &text).await?;
        self.tell_contact_of_identity(portal, &identity).await
    }

    /// The contact learns it whether the person approves it before or after anything had to wait.
    pub(super) async fn tell_contact_of_identity(
        &self,
        portal: &Portal,
        identity: &str,
    ) -> Result<(), StepError> {
        let subject = format!("{} {identity}", portal.local);
        let notice = Notice {
            scope: portal.contact.as_str(),
            subject: &subject,
            kind: "matrix_identity_changed",
        };
        let text = words::their_identity_changed(&portal.local, self.before_change(portal).await?);
        self.tell_contact_once(&portal.contact, notice, &text).await
    }

    /// What the contact had said, as long as the new identity is not approved.
    async fn before_change(&self, portal: &Portal) -> Result<Before, StepError> {
        let mut tx = self.parts.db.read().await?;
        let decision = tx.contact_decisions().find(&chat_of(portal)).await?;
        let pin = tx.pins().find(&portal.local).await?;
        let has_verified = |decision: &ContactDecision| {
            pin.is_some_and(|it| decision.has_verified(&it.master_key))
        };
        Ok(match decision {
            Some(decision) if decision.is_distrust() => Before::Distrusted,
            Some(decision) if has_verified(&decision) => Before::Verified,
            _ => Before::Pinned,
        })
    }

    /// The identity of a Matrix user that waits for approval.
    pub(super) async fn waiting_identity(
        &self,
        user: &UserId,
    ) -> Result<Option<String>, StepError> {
        let mut tx = self.parts.db.read().await?;
        Ok(tx.pins().find(user).await?.and_then(|pin| match pin.state {
            PinState::Changed { new_master_key } => Some(new_master_key),
            PinState::Pinned => None,
        }))
    }
}
