//! The time, as a value that tests can own.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// A clock that differs by more from the time that has passed was set.
const JUMP: Duration = Duration::from_secs(10 * 60);

/// What a clock that was set tells of how long something has waited is believed after this time: a wrong one is set
/// right by then.
const SETTLED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the bridge takes the time from.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> SystemTime;

    /// Milliseconds since 1970; zero before that.
    fn now_ms(&self) -> u64 {
        let since = self.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// A moment of the time that passes, to whatever the time of day is set.
    fn moment(&self) -> Instant {
        Instant::now()
    }

    /// Whether the time of day has gone on as time does, for a day now or since the start. Only then it tells how long
    /// something has waited.
    fn is_settled(&self) -> bool {
        true
    }
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the real time comes in")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The clock of the machine, held against the time that passes.
#[derive(Debug)]
pub struct WatchedClock(Mutex<Watch>);

/// What was seen when it was last looked.
#[derive(Debug)]
struct Watch {
    time_of_day: SystemTime,
    at: Instant,
    jumped_at: Option<Instant>,
}

impl WatchedClock {
    /// Watches from now on.
    pub fn start() -> Self {
        let (time_of_day, at) = (SystemClock.now(), Instant::now());
        Self(Mutex::new(Watch { time_of_day, at, jumped_at: None }))
    }
}

impl Clock for WatchedClock {
    fn now(&self) -> SystemTime {
        SystemClock.now()
    }

    fn is_settled(&self) -> bool {
        let mut watch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watch.look(SystemClock.now(), Instant::now())
    }
}

impl Watch {
    fn look(&mut self, time_of_day: SystemTime, at: Instant) -> bool {
        let expected = self.time_of_day + at.duration_since(self.at);
        let off = match time_of_day.duration_since(expected) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        };
        if off > JUMP {
            self.jumped_at = Some(at);
        }
        (self.time_of_day, self.at) = (time_of_day, at);
        self.jumped_at.is_none_or(|jumped| at.duration_since(jumped) >= SETTLED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    #[test]
    fn a_clock_that_was_set_is_believed_after_a_day() {
        let (began, at) = (SystemTime::UNIX_EPOCH + 1000 * HOUR, Instant::now());
        let mut watch = Watch { time_of_day: began, at, jumped_at: None };
        assert!(watch.look(began + 50 * HOUR, at + 50 * HOUR), "nobody looked for long");
        assert!(watch.look(began + 51 * HOUR, at + 51 * HOUR + JUMP), "it is a little off");
        assert!(!watch.look(began + 90 * HOUR, at + 52 * HOUR), "it was set ahead");
        assert!(!watch.look(began + 100 * HOUR, at + 62 * HOUR));
        assert!(!watch.look(began + 63 * HOUR, at + 63 * HOUR), "it was set back");
        assert!(!watch.look(began + 86 * HOUR, at + 86 * HOUR));
        assert!(watch.look(began + 87 * HOUR, at + 87 * HOUR));
    }
}
