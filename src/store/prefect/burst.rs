//! How fast events come.

use std::time::Duration;

use tokio::time::Instant;

/// More events of others in a second than this are not followed one by one. Where there were more in all some may be
/// missing: the server drops what it cannot send in time.
pub(super) const FLOOD: usize = 64;

/// The events of this second.
pub(super) struct Burst {
    since: Instant,
    pub(super) all: usize,
    /// Of changes that were not made here.
    others: usize,
    /// In the second before there were more of those than are followed.
    before: bool,
}

impl Burst {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, all: 0, others: 0, before: false }
    }

    /// Counts an event; true if it is to be followed, if it is of somebody else.
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
