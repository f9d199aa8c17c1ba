//! The contact's half of a comparison: what they answer to the emoji they were shown.

use e2ee::matrix::CancelReason;
use ruma::{OwnedUserId, UserId};

use super::{Hub, StepError, notices::verification as words, standing::Standing};
use crate::{
    matrix::VerificationStep,
    network::RemoteUserId,
    store::{StoredVerification, VerificationStage},
};

/// What came of a contact's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// It was done.
    Done,
    /// There is nothing to compare now, or not with this person.
    Nothing,
    /// There is more than one comparison: which is meant?
    Ambiguous,
}

impl Hub {
    /// The contact has compared. `user` is whom they name, where they do.
    pub(super) async fn contact_compared(
        &self,
        contact: &RemoteUserId,
        user: Option<&UserId>,
        is_same: bool,
    ) -> Result<Answered, StepError> {
        let mut rows = self.comparisons_to_answer(contact, is_same).await?;
        rows.retain(|row| user.is_none_or(|user| row.user_id == user));
        match rows.as_slice() {
            [] => Ok(Answered::Nothing),
            [row] => {
                // Nobody else goes on with it meanwhile: what is taken back must not be counted.
                let answer = self.answer_comparison(row, is_same);
                self.verifying.alone(&row.ghost, answer).await
            }
            _ => Ok(Answered::Ambiguous),
        }
    }

    /// The comparisons that a contact can answer so now.
    async fn comparisons_to_answer(
        &self,
        contact: &RemoteUserId,
        is_same: bool,
    ) -> Result<Vec<StoredVerification>, StepError> {
        let mut tx = self.parts.db.read().await?;
        let mut rows = tx.verifications().load_by_contact(contact).await?;
        rows.retain(|row| match row.stage {
            VerificationStage::Shown => true,
            // They may think better of it as long as the person has not answered.
            VerificationStage::Confirmed => !is_same,
            VerificationStage::AskedByUser | VerificationStage::AskedByContact => false,
        });
        Ok(rows)
    }

    async fn answer_comparison(
        &self,
        known: &StoredVerification,
        is_same: bool,
    ) -> Result<Answered, StepError> {
        let rows = self.comparisons_to_answer(&known.contact, is_same).await?;
        let is_known =
            |row: &&StoredVerification| row.ghost == known.ghost && row.flow == known.flow;
        let Some(row) = rows.iter().find(is_known) else { return Ok(Answered::Nothing) };
        let step = match is_same {
            true if self.standing(&row.user_id, &row.contact).await == Standing::Doubtful => {
                self.end_for(row, words::STRANGE_DEVICE).await?;
                return Ok(Answered::Nothing);
            }
            true => match row.shown {
                Some(numbers) => {
                    self.set_stage(row, VerificationStage::Confirmed).await?;
                    VerificationStep::Confirm(numbers)
                }
                None => return Ok(Answered::Nothing),
            },
            false => {
                // Their word is not to be counted, should the end of it be lost.
                self.set_stage(row, VerificationStage::Shown).await?;
                VerificationStep::Cancel(CancelReason::Mismatch)
            }
        };
        self.step(row, step).await?;
        Ok(Answered::Done)
    }

    /// The people that a contact is comparing with.
    pub(super) async fn comparing_with(
        &self,
        contact: &RemoteUserId,
    ) -> Result<Vec<OwnedUserId>, StepError> {
        let mut tx = self.parts.db.read().await?;
        let rows = tx.verifications().load_by_contact(contact).await?;
        Ok(rows.into_iter().map(|row| row.user_id).collect())
    }

    async fn set_stage(
        &self,
        row: &StoredVerification,
        stage: VerificationStage,
    ) -> Result<(), StepError> {
        let mut tx = self.parts.db.begin().await?;
        tx.verifications().set_stage(row, stage).await?;
        Ok(tx.commit().await?)
    }
}
