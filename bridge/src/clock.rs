//! The time, as a value that tests can own.

use std::time::{Duration, SystemTime};

/// Where the bridge takes the time from.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> SystemTime;

    /// Milliseconds since 1970; zero before that.
    fn now_ms(&self) -> u64 {
        let since = self.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
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
