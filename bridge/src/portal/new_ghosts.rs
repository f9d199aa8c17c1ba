//! How many ghosts come into being because the homeserver asks for them: it does so for whoever is named in an invitation,
//! by anybody.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ruma::UserId;

use super::{Hub, StepError};

/// Ghosts in one hour. Whom a person who may use the bridge invites is made by the invitation too, without this limit.
const MOST: u32 = 100;
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// Those that were asked for of late.
#[derive(Default)]
pub(super) struct NewGhosts(Mutex<Option<Hour>>);

#[derive(Clone, Copy)]
struct Hour {
    began: Instant,
    asked: u32,
}

impl NewGhosts {
    /// Whether one more may come into being now.
    pub fn admit(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |hour: &Hour| now.duration_since(hour.began) < PERIOD;
        let mut hour = last.filter(is_recent).unwrap_or(Hour { began: now, asked: 0 });
        hour.asked = hour.asked.saturating_add(1);
        *last = Some(hour);
        if hour.asked == MOST + 1 {
            tracing::warn!(
                "portal.ghosts.too_many: the homeserver asks for more new ones than are made in an hour"
            );
        }
        hour.asked <= MOST
    }
}

impl Hub {
    /// A ghost or the bot that the homeserver asks for is made when its name means something.
    pub(super) async fn ensure_user(&self, user: &UserId) -> bool {
        let made = async {
            let may_be = self.may_come_into_being(user).await?;
            if may_be {
                self.parts.devices.ensure_published(user).await?;
            }
            Ok::<_, StepError>(may_be)
        };
        made.await.unwrap_or_else(|error| {
            tracing::warn!(error = %crate::error_chain(&error), "portal.ghost.failed");
            false
        })
    }

    async fn may_come_into_being(&self, user: &UserId) -> Result<bool, StepError> {
        if user == self.parts.namespace.bot() {
            return Ok(true);
        }
        if self.contact_of_ghost(user).is_none() {
            return Ok(false);
        }
        let known = self.parts.db.read().await?.ghosts().find(user).await?;
        Ok(known.is_some() || self.new_ghosts.admit(self.parts.clock.moment()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_admitted_in_an_hour_and_as_many_in_the_next() {
        let (ghosts, now) = (NewGhosts::default(), Instant::now());
        let admitted = |at: Instant| (0..2 * MOST).filter(|_| ghosts.admit(at)).count();
        assert_eq!(admitted(now), 100);
        assert_eq!(admitted(now + PERIOD - Duration::from_secs(1)), 0);
        assert_eq!(admitted(now + PERIOD), 100);
    }
}
