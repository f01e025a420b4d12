//! The time of day.

use std::fmt::Debug;
use std::time::SystemTime;

/// The time of day. How much time has passed is told by tokio's clock, which a test can move.
pub trait Clock: Debug + Send + Sync {
    /// The time of now.
    fn now(&self) -> SystemTime;
}

/// That of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
