//! The time, as a value that tests can own.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};

/// What goes on while the machine sleeps, like the time of day: a machine that does so every night has not set its clock.
#[cfg(target_os = "linux")]
const PASSING: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const PASSING: ClockId = ClockId::Monotonic;

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

    /// Whether the time of day has gone on as time does for a day now. Only then it is believed against what was noted
    /// by an earlier one: a clock that is wrong at the start may not have been set yet.
    fn is_proven(&self) -> bool {
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

/// What was seen when it was last looked. Times that pass are counted from any moment before.
#[derive(Debug)]
struct Watch {
    time_of_day: SystemTime,
    passed: Duration,
    steady: Steady,
}

/// Since when the time of day goes on as time does.
#[derive(Debug, Clone, Copy)]
enum Steady {
    SinceStart(Duration),
    SinceJump(Duration),
}

/// The time that has passed since some moment.
fn passed() -> Duration {
    Duration::try_from(clock_gettime(PASSING)).unwrap_or_default()
}

impl WatchedClock {
    /// Watches from now on.
    pub fn start() -> Self {
        Self(Mutex::new(Watch::new(SystemClock.now(), passed())))
    }

    fn look(&self) -> (Steady, Duration) {
        let mut watch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = passed();
        (watch.look(SystemClock.now(), passed), passed)
    }
}

impl Clock for WatchedClock {
    fn now(&self) -> SystemTime {
        SystemClock.now()
    }

    fn is_settled(&self) -> bool {
        let (steady, passed) = self.look();
        steady.is_settled(passed)
    }

    fn is_proven(&self) -> bool {
        let (steady, passed) = self.look();
        steady.is_proven(passed)
    }
}

impl Steady {
    fn is_settled(self, passed: Duration) -> bool {
        matches!(self, Self::SinceStart(_)) || self.is_proven(passed)
    }

    fn is_proven(self, passed: Duration) -> bool {
        let (Self::SinceStart(since) | Self::SinceJump(since)) = self;
        passed.saturating_sub(since) >= SETTLED_AFTER
    }
}

impl Watch {
    fn new(time_of_day: SystemTime, passed: Duration) -> Self {
        Self { time_of_day, passed, steady: Steady::SinceStart(passed) }
    }

    fn look(&mut self, time_of_day: SystemTime, passed: Duration) -> Steady {
        let expected = self.time_of_day + passed.saturating_sub(self.passed);
        let off = match time_of_day.duration_since(expected) {
            Ok(ahead) => ahead,
            Err(behind) => behind.duration(),
        };
        if off > JUMP {
            self.steady = Steady::SinceJump(passed);
        }
        (self.time_of_day, self.passed) = (time_of_day, passed);
        self.steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    /// A clock whose time of day and whose passing time are in a test's hands.
    struct Hands(Watch, SystemTime);

    impl Hands {
        fn start() -> Self {
            let began = SystemTime::UNIX_EPOCH + 1000 * HOUR;
            Self(Watch::new(began, 7 * HOUR), began)
        }

        fn look(&mut self, time_of_day: Duration, passed: Duration) -> (bool, bool) {
            let passed = 7 * HOUR + passed;
            let steady = self.0.look(self.1 + time_of_day, passed);
            (steady.is_settled(passed), steady.is_proven(passed))
        }
    }

    #[test]
    fn a_clock_that_was_set_is_believed_after_a_day() {
        let mut clock = Hands::start();
        let mut is_settled = |time_of_day, passed| clock.look(time_of_day, passed).0;
        assert!(is_settled(50 * HOUR, 50 * HOUR), "nobody looked for long");
        assert!(is_settled(51 * HOUR + JUMP, 51 * HOUR), "it is a little off");
        assert!(!is_settled(90 * HOUR, 52 * HOUR), "it was set ahead");
        assert!(!is_settled(100 * HOUR, 62 * HOUR));
        assert!(!is_settled(63 * HOUR, 63 * HOUR), "it was set back");
        assert!(!is_settled(86 * HOUR, 86 * HOUR));
        assert!(is_settled(87 * HOUR, 87 * HOUR));
    }

    #[test]
    fn a_clock_is_proven_when_it_was_watched_for_a_day() {
        let mut clock = Hands::start();
        assert_eq!(clock.look(HOUR, HOUR), (true, false));
        assert_eq!(clock.look(24 * HOUR, 24 * HOUR), (true, true));
        assert_eq!(clock.look(99 * HOUR, 25 * HOUR), (false, false), "it was set");
        assert_eq!(clock.look(123 * HOUR, 49 * HOUR), (true, true));
    }

    /// What the standard library counts with stands still meanwhile, and the time of day would have jumped.
    #[cfg(target_os = "linux")]
    #[test]
    fn time_passes_while_the_machine_sleeps() {
        assert_eq!(PASSING, ClockId::Boottime);
        let before = passed();
        assert!(before > Duration::ZERO && passed() >= before);
    }
}
