//! The identity of a person that is another one than before: who is told of it, and with which
//! words.

use futures_util::{FutureExt as _, future::try_join_all};
use ruma::UserId;

use super::{Hub, StepError, from_remote::chat_of, notices::contact_trust as words, say::Wording};
use crate::store::{ContactDecision, Notice, PinState, Portal, PortalState};

/// The short word for an identity of the person that waits for their approval.
pub(super) const OWN_IDENTITY_CHANGED: &str = "own_identity_changed";

/// Contacts who are told of a new identity at a time.
const TOLD_AT_ONCE: usize = 16;

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

impl Before {
    /// The short word that notices are stored under.
    fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Verified => "verified",
            Self::Distrusted => "distrusted",
        }
    }
}

impl Hub {
    /// Both sides learn that the Matrix user's identity is another one, once each.
    pub(super) async fn tell_identity_changed(&self, portal: &Portal) -> Result<(), StepError> {
        let Some(identity) = self.waiting_identity(&portal.local).await? else { return Ok(()) };
        let text = words::own_identity_changed(self.before_change(portal).await?);
        let kind = OWN_IDENTITY_CHANGED;
        self.tell_once_about(portal, kind, &[&identity], Wording::Public, &text).await?;
        self.tell_contact_of_identity(portal, &identity).await
    }

    /// Makes a new identity of a person count in all their chats, on their word: what they say, and emoji they have
    /// compared. `identity` is the public master key behind it. Their contacts are told first: it might be somebody
    /// else who controls the account. Returns whether an identity was waiting; who calls this releases what was
    /// held.
    pub(super) async fn approve_identity(
        &self,
        user: &UserId,
        identity: &str,
    ) -> Result<bool, StepError> {
        let Some(waiting) = self.waiting_identity(user).await? else { return Ok(false) };
        let mut tx = self.parts.db.read().await?;
        let mut portals = tx.portals().load_by_local(user).await?;
        drop(tx);
        portals.retain(|portal| portal.state != PortalState::Closed);
        let mut untold = Vec::new();
        for portal in &portals {
            if self.is_verified_change_untold(portal, &waiting).await? {
                untold.push(portal);
            }
        }
        // Some servers may be slow to answer.
        for some in portals.chunks(TOLD_AT_ONCE) {
            let telling = some.iter().map(|it| self.tell_contact_of_identity(it, &waiting).boxed());
            let telling: Vec<_> = telling.collect();
            try_join_all(telling).await?;
        }
        // Not another one that has come meanwhile: of that one nobody was told.
        if !self.parts.devices.approve(user, &waiting, identity).await? {
            return Ok(false);
        }
        for portal in untold {
            let text = words::VERIFIED_IDENTITY_REPLACED;
            if let Err(error) = self.say(portal, Wording::Public, text).await {
                tracing::warn!(error = %crate::error_chain(&error), "portal.approve.not_told");
            }
        }
        Ok(true)
    }

    /// Whether the contact had verified the identity that is replaced, and the person has not been told so.
    async fn is_verified_change_untold(
        &self,
        portal: &Portal,
        identity: &str,
    ) -> Result<bool, StepError> {
        if self.before_change(portal).await? != Before::Verified {
            return Ok(false);
        }
        let scope = portal.room_id.as_str();
        let notice = Notice { scope, subject: identity, kind: OWN_IDENTITY_CHANGED };
        let mut tx = self.parts.db.read().await?;
        Ok(!tx.notices().is_told(notice).await?)
    }

    /// The contact learns it whether the person approves it before or after anything had to wait: once for each
    /// identity that was replaced, and anew after they have said something of it. An identity that
    /// comes and goes is not told each time.
    async fn tell_contact_of_identity(
        &self,
        portal: &Portal,
        identity: &str,
    ) -> Result<(), StepError> {
        let pin = self.parts.db.read().await?.pins().find(&portal.local).await?;
        let replaced_ms = pin.map_or(0, |pin| pin.pinned_ms);
        let before = self.before_change(portal).await?;
        let subject = format!("{} {identity} {replaced_ms} {}", portal.local, before.name());
        let notice = Notice {
            scope: portal.contact.as_str(),
            subject: &subject,
            kind: "matrix_identity_changed",
        };
        let text = words::their_identity_changed(&portal.local, before);
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
