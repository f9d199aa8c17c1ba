//! What the person is told when the contact's leg is not as it was the last time.

use super::{Hub, StepError, notices::legs as words, say::Wording};
use crate::{
    network::LegSecurity,
    store::{Notice, Portal},
};

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the person to the contact.
    ToContact,
    /// From the contact to the person.
    FromContact,
}

impl Direction {
    /// The short word for how the last message went.
    fn last(self) -> &'static str {
        match self {
            Self::ToContact => "leg_to_contact",
            Self::FromContact => "leg_from_contact",
        }
    }

    /// The short word for what was told of weaker legs.
    pub(super) fn weaker(self) -> &'static str {
        match self {
            Self::ToContact => "weaker_leg_to_contact",
            Self::FromContact => "weaker_leg_from_contact",
        }
    }
}

impl Hub {
    /// A message has gone over the contact's leg. Where less protects it than the message before,
    /// the person is told, once for each such state: devices of one contact differ, and their
    /// messages alternate. What goes to the contact is told anew after it was better protected, what
    /// comes from them after the person has decided something about their devices.
    pub(super) async fn note_leg(
        &self,
        portal: &Portal,
        direction: Direction,
        now: LegSecurity,
    ) -> Result<(), StepError> {
        let (scope, last, weaker) = (portal.room_id.as_str(), direction.last(), direction.weaker());
        let mut tx = self.parts.db.read().await?;
        let before = tx.notices().subjects(scope, last).await?;
        let subject = words::name(now);
        let told = Notice { scope, subject, kind: weaker };
        let was_told = tx.notices().is_told(told).await?;
        drop(tx);
        let before = before.first().and_then(|name| words::parse(name));
        if before == Some(now) {
            return Ok(());
        }
        let is_weaker = before.is_some_and(|before| now.is_weaker_than(before));
        let text = before.and_then(|before| words::changed(direction, before, now));
        let staged = match text.filter(|_| !(is_weaker && was_told)) {
            Some(text) => self.stage_for_person(portal, Wording::Public, text).await?,
            None => None,
        };
        let mut tx = self.parts.db.begin().await?;
        tx.notices().forget(scope, last).await?;
        tx.notices().first_time(Notice { scope, subject, kind: last }).await?;
        if is_weaker {
            tx.notices().first_time(told).await?;
        } else if direction == Direction::ToContact {
            tx.notices().forget(scope, weaker).await?;
        }
        if let Some(staged) = &staged {
            tx.matrix_outbox().insert(staged).await?;
        }
        tx.commit().await?;
        self.parts.outbox.ring(&portal.room_id);
        Ok(())
    }
}
