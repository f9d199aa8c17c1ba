//! How long messages have waited for their room keys, by the time that passes: whoever sets the clock ends no wait.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ruma::{EventId, OwnedEventId};

/// How long a message waits for its room key before its author is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// The messages of which this run has found that their keys are missing.
#[derive(Default)]
pub(super) struct KeyWaits(Mutex<HashMap<OwnedEventId, Instant>>);

impl KeyWaits {
    /// How much longer the key of a message may take, which is missing now; `None` when that is over.
    pub fn left(&self, event: &EventId, now: Instant) -> Option<Duration> {
        let since = *self.waits().entry(event.to_owned()).or_insert(now);
        PATIENCE.checked_sub(now.duration_since(since)).filter(|left| !left.is_zero())
    }

    /// The message does not wait for its key any more.
    pub fn end(&self, event: &EventId) {
        self.waits().remove(event);
    }

    fn waits(&self) -> MutexGuard<'_, HashMap<OwnedEventId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
