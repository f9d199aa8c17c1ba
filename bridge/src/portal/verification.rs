//! Verifications across the bridge: the Matrix user compares keys with the ghost in their client, the
//! contact is shown the same symbols on the other network, by the bridge and encrypted. What the contact answers is
//! in [`contact_compares`](super::contact_compares), what the bridge begins in
//! [`begin_verification`](super::begin_verification).
//!
//! What is compared is the key that the bridge holds for the contact: see SECURITY.md.

use async_trait::async_trait;
use e2ee::matrix::{CancelReason, RoomEvent, ShortAuthString, Verification, VerificationState};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, UInt, UserId};

use super::{
    Hub, StepError,
    notices::verification as words,
    read::{Message, plain_message},
    say::Wording,
    standing::Standing,
};
use crate::{
    matrix::{LostEnd, LostFlow, VerificationStep},
    network::{Author, ChatKey, RemoteUserId},
    queue::{Drain, Drained},
    store::{InboxEvent, Portal, PortalState, StoreError, StoredVerification, VerificationStage},
};

/// The longest name of a verification that is taken up, in bytes. The person's client chooses it; an index of the
/// database has an end.
const MAX_FLOW: usize = 255;

/// A ghost whose verifications are to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Verifier(pub(super) OwnedUserId);

#[async_trait]
impl Drain<Verifier> for Hub {
    #[tracing::instrument(name = "portal.verification", skip_all)]
    async fn drain(&self, Verifier(ghost): &Verifier) -> Drained {
        match self.tend_verifications(ghost).await {
            Ok(()) => Drained::Empty,
            // Nobody else rings for one that the machine does not know any more.
            Err(error) => {
                tracing::warn!(error = %crate::error_chain(&error), "portal.verification.failed");
                Drained::Failed
            }
        }
    }
}

impl Hub {
    /// Gives an event of a verification to the ghost, if that is what it is.
    pub(super) async fn take_verification(
        &self,
        row: &InboxEvent,
        portal: &Portal,
        message: &Message,
    ) -> Result<bool, StepError> {
        let Some(content) = message.content.as_object() else { return Ok(false) };
        let content = content.clone().into_iter().collect();
        if !RoomEvent::is_verification(&message.event_type, &content) {
            return Ok(false);
        }
        let sent_at =
            u64::try_from(row.event.origin_ts).ok().and_then(|ms| UInt::try_from(ms).ok());
        let event = RoomEvent {
            room: row.event.room_id.clone(),
            event_id: row.event.event_id.clone(),
            sender: row.event.sender.clone(),
            origin_server_ts: MilliSecondsSinceUnixEpoch(sent_at.unwrap_or_default()),
            event_type: message.event_type.clone(),
            content,
        };
        self.parts.devices.take_verification_event(&portal.ghost, event).await?;
        Ok(true)
    }

    /// As [`Self::take_verification`], for what came in the clear: Element sends these so, also into
    /// encrypted rooms. What they lead to rests on what people compare.
    pub(super) async fn take_plain_verification(
        &self,
        row: &InboxEvent,
        portal: &Portal,
    ) -> Result<bool, StepError> {
        match plain_message(row) {
            Some(message) => self.take_verification(row, portal, &message).await,
            None => Ok(false),
        }
    }

    /// Takes up what an earlier run has left: it ends on both sides.
    pub(super) async fn ring_all_verifiers(&self) -> Result<(), StoreError> {
        let mut tx = self.parts.db.read().await?;
        let ghosts = tx.verifications().load_ghosts().await?;
        drop(tx);
        ghosts.into_iter().for_each(|ghost| self.verifiers.ring(Verifier(ghost)));
        Ok(())
    }

    /// Goes on with everything that is under way with a ghost.
    pub(super) async fn tend_verifications(&self, ghost: &UserId) -> Result<(), StepError> {
        let tend = async {
            let seen = self.parts.devices.verifications(ghost).await?;
            let mut tx = self.parts.db.read().await?;
            let known = tx.verifications().load_by_ghost(ghost).await?;
            drop(tx);
            // What one person's comparison meets holds up nobody else's.
            let mut ended = Ok(());
            for verification in &seen {
                let row = known
                    .iter()
                    .find(|row| row.user_id == verification.user && row.flow == verification.flow);
                let gone_on = match row {
                    Some(row) => self.go_on(row, verification).await,
                    None => self.new_verification(ghost, verification).await,
                };
                ended = gone_on.and(ended);
            }
            let is_lost = |row: &&StoredVerification| {
                !seen.iter().any(|it| it.user == row.user_id && it.flow == row.flow)
            };
            for row in known.iter().filter(is_lost) {
                ended = self.interrupted(row).await.and(ended);
            }
            ended
        };
        self.verifying.alone(ghost, tend).await
    }

    /// One that the contact did not ask for.
    async fn new_verification(
        &self,
        ghost: &UserId,
        verification: &Verification,
    ) -> Result<(), StepError> {
        let step = match &verification.state {
            VerificationState::Requested if !is_storable(&verification.flow) => {
                VerificationStep::Cancel(CancelReason::Declined)
            }
            VerificationState::Requested => match self.portal_for(ghost, verification).await? {
                Some(portal) if verification.is_device_signed => {
                    return self.accept(&portal, verification).await;
                }
                Some(portal) => {
                    self.say(&portal, Wording::Public, words::UNSIGNED_DEVICE).await?;
                    VerificationStep::Cancel(CancelReason::Declined)
                }
                None => VerificationStep::Cancel(CancelReason::Declined),
            },
            // What the contact asks for is stored a moment after it was sent.
            VerificationState::Asked => return Ok(()),
            VerificationState::Done { .. } | VerificationState::Cancelled { .. } => {
                VerificationStep::Forget
            }
            _ => VerificationStep::Cancel(CancelReason::Declined),
        };
        let (user, flow) = (&verification.user, &verification.flow);
        Ok(self.parts.devices.step_verification(ghost, user, flow, step).await?)
    }

    /// The portal of a person and a ghost, if they may talk there.
    async fn portal_for(
        &self,
        ghost: &UserId,
        verification: &Verification,
    ) -> Result<Option<Portal>, StepError> {
        let user = &verification.user;
        let Some(contact) = self.contact_of_ghost(ghost).filter(|_| self.may_use(user)) else {
            return Ok(None);
        };
        let portal = self.open_portal(user, &contact).await?;
        Ok(portal.filter(|it| verification.room.as_ref().is_none_or(|room| *room == it.room_id)))
    }

    pub(super) async fn open_portal(
        &self,
        user: &UserId,
        contact: &RemoteUserId,
    ) -> Result<Option<Portal>, StepError> {
        let portal = self.find_portal(user, contact).await?;
        Ok(portal.filter(|portal| portal.state != PortalState::Closed))
    }

    /// The person asks: the contact is told to be ready, because there is a minute to compare.
    async fn accept(&self, portal: &Portal, verification: &Verification) -> Result<(), StepError> {
        let row = row_of(portal, verification, VerificationStage::AskedByUser);
        // What is announced has an end, also when the bridge dies here.
        let mut tx = self.parts.db.begin().await?;
        tx.verifications().insert(&row).await?;
        tx.commit().await?;
        let text = words::announced(&portal.local);
        if !self.show_contact(&portal.contact, &text).await {
            return self.end_for(&row, words::CONTACT_OUT_OF_REACH).await;
        }
        self.step(&row, VerificationStep::Accept).await
    }

    async fn go_on(
        &self,
        row: &StoredVerification,
        verification: &Verification,
    ) -> Result<(), StepError> {
        let is_under_way = matches!(
            verification.state,
            VerificationState::Ready
                | VerificationState::Exchanging
                | VerificationState::Comparing(_)
        );
        if is_under_way && !verification.is_device_signed {
            return self.end_for(row, words::UNSIGNED_DEVICE).await;
        }
        match (&verification.state, row.stage) {
            (VerificationState::Requested, _) => self.step(row, VerificationStep::Accept).await,
            (VerificationState::Ready, VerificationStage::AskedByContact) => {
                self.step(row, VerificationStep::Begin).await
            }
            (
                VerificationState::Exchanging,
                VerificationStage::AskedByUser | VerificationStage::AskedByContact,
            ) => self.step(row, VerificationStep::GoAlong).await,
            // It was begun anew behind what the contact sees: nobody has compared that.
            (VerificationState::Exchanging, _) => {
                self.step(row, VerificationStep::Cancel(CancelReason::Mismatch)).await
            }
            (
                VerificationState::Comparing(now),
                VerificationStage::Shown | VerificationStage::Confirmed,
            ) if row.shown != Some(now.numbers) => {
                self.step(row, VerificationStep::Cancel(CancelReason::Mismatch)).await
            }
            (
                VerificationState::Comparing(shown),
                VerificationStage::AskedByUser | VerificationStage::AskedByContact,
            ) => self.show(row, shown).await,
            // The fault of a moment stood between the contact's word and its way to the machine.
            (VerificationState::Comparing(shown), VerificationStage::Confirmed) => {
                self.step(row, VerificationStep::Confirm(shown.numbers)).await
            }
            (VerificationState::Done { master_key }, VerificationStage::Confirmed) => {
                self.verified(row, master_key).await
            }
            // The contact has taken it back while the person's word was on its way.
            (VerificationState::Done { .. }, stage) => {
                self.not_verified(row, words::cancelled(stage, true, "m.mismatched_sas")).await
            }
            (VerificationState::Cancelled { by_us, code }, _) => {
                self.not_verified(row, words::cancelled(row.stage, *by_us, code)).await
            }
            (
                VerificationState::Asked
                | VerificationState::Ready
                | VerificationState::Comparing(_)
                | VerificationState::Confirmed,
                _,
            ) => Ok(()),
        }
    }

    /// Shows the contact what to compare.
    async fn show(
        &self,
        row: &StoredVerification,
        shown: &ShortAuthString,
    ) -> Result<(), StepError> {
        let standing = self.standing(&row.user_id, &row.contact).await;
        if standing == Standing::Doubtful {
            return self.end_for(row, words::STRANGE_DEVICE).await;
        }
        let is_verified = standing == Standing::Verified;
        let text = words::to_compare(&row.user_id, shown, is_verified);
        if self.show_contact(&row.contact, &text).await {
            let mut tx = self.parts.db.begin().await?;
            match tx.verifications().set_shown(row, shown.numbers).await {
                Ok(()) => return Ok(tx.commit().await?),
                // The contact has distrusted the person meanwhile.
                Err(StoreError::NoSuchRow { .. }) => {
                    return self.step(row, VerificationStep::Cancel(CancelReason::Declined)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.end_for(row, words::CONTACT_OUT_OF_REACH).await
    }

    pub(super) async fn step(
        &self,
        row: &StoredVerification,
        step: VerificationStep,
    ) -> Result<(), StepError> {
        let devices = &self.parts.devices;
        Ok(devices.step_verification(&row.ghost, &row.user_id, &row.flow, step).await?)
    }

    /// It cannot go on, for a reason that the person is told.
    pub(super) async fn end_for(
        &self,
        row: &StoredVerification,
        why: &str,
    ) -> Result<(), StepError> {
        if let Some(portal) = self.open_portal(&row.user_id, &row.contact).await? {
            self.say(&portal, Wording::Public, why).await?;
        }
        self.step(row, VerificationStep::Cancel(CancelReason::Declined)).await
    }

    /// Both have compared, and the ghost has signed the person's identity.
    pub(super) async fn verified(
        &self,
        row: &StoredVerification,
        master_key: &str,
    ) -> Result<(), StepError> {
        self.compared(row, master_key, words::VERIFIED).await?;
        self.step(row, VerificationStep::Forget).await
    }

    /// The ghost has signed the person's identity: it counts. `text` is for the person.
    async fn compared(
        &self,
        row: &StoredVerification,
        master_key: &str,
        text: &str,
    ) -> Result<(), StepError> {
        // Verified is this very identity, and not any other that may wait for approval.
        let is_waiting = self.waiting_identity(&row.user_id).await?.as_deref() == Some(master_key);
        let approved = is_waiting && self.approve_identity(&row.user_id, master_key).await?;
        let portal = self.find_portal(&row.user_id, &row.contact).await?;
        if let Some(portal) = &portal {
            self.forget_keys_of_distrust(portal).await?;
        }
        if self.end_verification(row, text, Some(master_key)).await? {
            self.show_contact(&row.contact, &words::verified_for_contact(&row.user_id)).await;
        }
        if approved {
            self.release_person(&row.user_id).await?;
        } else if let Some(portal) = &portal {
            self.release(portal, &[]).await?;
        }
        Ok(())
    }

    async fn not_verified(
        &self,
        row: &StoredVerification,
        (person, contact): (&'static str, &'static str),
    ) -> Result<(), StepError> {
        if self.end_verification(row, person, None).await? {
            self.show_contact(&row.contact, &words::about(&row.user_id, contact)).await;
        }
        self.step(row, VerificationStep::Forget).await
    }

    /// The machine knows nothing of it: the bridge was restarted, or a fault threw it away.
    async fn interrupted(&self, row: &StoredVerification) -> Result<(), StepError> {
        let signed = self.succeeded_unnoticed(row).await?;
        let through = match (&row.flow_room, &row.device_id) {
            (Some(room), _) => Some(LostFlow::Room(room.clone())),
            (None, Some(device)) => Some(LostFlow::Device(device.clone())),
            (None, None) => None,
        };
        if let Some(through) = through {
            let end = if signed.is_some() { LostEnd::Succeeded } else { LostEnd::Interrupted };
            let devices = &self.parts.devices;
            devices
                .end_lost_verification(&row.ghost, &row.user_id, &row.flow, through, end)
                .await?;
        }
        let (person, contact) = words::INTERRUPTED;
        if let Some(master_key) = signed {
            // Whether the person's client has signed too is not known here.
            return self.compared(row, &master_key, person).await;
        }
        if self.end_verification(row, person, None).await? {
            self.show_contact(&row.contact, &words::about(&row.user_id, contact)).await;
        }
        Ok(())
    }

    /// The public master key that the ghost has signed in a verification that was lost before anybody noted its end.
    /// One that was compared before has its signature from then, and says nothing of this one. Nor does the signature of
    /// somebody whom the contact has distrusted since.
    async fn succeeded_unnoticed(
        &self,
        row: &StoredVerification,
    ) -> Result<Option<String>, StepError> {
        if row.stage != VerificationStage::Confirmed {
            return Ok(None);
        }
        let keys = self.parts.devices.public_keys(&row.ghost, &row.user_id).await?;
        let Some(signed) = keys.identity.filter(|identity| identity.is_verified) else {
            return Ok(None);
        };
        let local = Author::Person(row.user_id.clone());
        let chat = ChatKey { local, contact: row.contact.clone() };
        let decision = self.parts.db.read().await?.contact_decisions().find(&chat).await?;
        let may_be_older =
            decision.is_some_and(|it| it.is_distrust() || it.has_verified(&signed.master_key));
        Ok((!may_be_older).then_some(signed.master_key))
    }

    /// The last word to the person, the end of the row and, where it has succeeded, the word in the
    /// key log. Returns whether there was anything to end: the contact's distrust, which waits for no
    /// comparison, may have come before.
    async fn end_verification(
        &self,
        row: &StoredVerification,
        text: &str,
        verified: Option<&str>,
    ) -> Result<bool, StepError> {
        let mut tx = self.parts.db.read().await?;
        let portal = tx.portals().find_by_room(&row.portal_room).await?;
        drop(tx);
        let staged = match &portal {
            Some(portal) => self.stage_for_person(portal, Wording::Public, text).await?,
            None => None,
        };
        let mut tx = self.parts.db.begin().await?;
        if !tx.verifications().delete(row).await? {
            return Ok(false);
        }
        if let Some(master_key) = verified {
            self.note_compared(&mut tx, row, master_key).await?;
        }
        if let Some(staged) = &staged {
            tx.matrix_outbox().insert(staged).await?;
        }
        tx.commit().await?;
        self.parts.outbox.ring(&row.portal_room);
        Ok(true)
    }
}

/// Whether the name of a verification can stand in the database.
pub(super) fn is_storable(flow: &str) -> bool {
    flow.len() <= MAX_FLOW && !flow.contains('\0')
}

fn row_of(
    portal: &Portal,
    verification: &Verification,
    stage: VerificationStage,
) -> StoredVerification {
    StoredVerification {
        ghost: portal.ghost.clone(),
        user_id: verification.user.clone(),
        flow: verification.flow.clone(),
        contact: portal.contact.clone(),
        portal_room: portal.room_id.clone(),
        flow_room: verification.room.clone(),
        device_id: verification.device.clone(),
        stage,
        shown: None,
    }
}
