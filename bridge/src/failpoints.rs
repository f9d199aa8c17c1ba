//! Places where a test can make the process die as it would of SIGKILL, each named after the window of a crash and
//! what has happened last. Only a build with the feature `failpoints` has them.

#[cfg(feature = "failpoints")]
mod killer;

#[cfg(feature = "failpoints")]
pub(crate) use killer::arm;

/// Names a place of `killer::POINTS`; nothing without the feature `failpoints`.
macro_rules! failpoint {
    ($point:literal) => {
        #[cfg(feature = "failpoints")]
        fail::fail_point!($point);
    };
    ($point:literal if $condition:expr) => {
        #[cfg(feature = "failpoints")]
        if $condition {
            fail::fail_point!($point);
        }
    };
}
