//! The rate of events.

use std::time::Duration;

use tokio::time::Instant;

/// So many events of others in a second are followed one by one. With more in all some may be missing: the server drops events
/// that it cannot send in time.
pub(super) const FLOOD: usize = 64;

/// The events of this second.
pub(super) struct Burst {
    since: Instant,
    pub(super) all: usize,
    /// Those of other clients' changes.
    others: usize,
    /// Whether there were more of those than [`FLOOD`] in the second before.
    before: bool,
}

impl Burst {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, all: 0, others: 0, before: false }
    }

    /// Counts an event; true if it is to be followed, unless it is `own`.
    pub(super) fn count(&mut self, now: Instant, own: bool) -> bool {
        let age = now - self.since;
        if age > Duration::from_secs(1) {
            let before = self.others > FLOOD && age < Duration::from_secs(2);
            *self = Self { before, ..Self::new(now) };
        }
        self.all += 1;
        self.others += usize::from(!own);
        self.others <= FLOOD && !self.before
    }
}
