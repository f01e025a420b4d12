//! Which revisions are of this process.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::Pool;

/// Revisions of this process, as ranges, for the watcher to pass over.
#[derive(Default)]
pub(super) struct Own {
    ranges: VecDeque<RangeInclusive<i64>>,
    /// The last one that the watcher has asked about.
    passed: i64,
    /// The first one that was taken back after that.
    missed: Option<i64>,
}

impl Pool {
    /// Notes revisions that this process is about to commit.
    pub(in crate::store::sqlite) fn note_own(&self, revisions: RangeInclusive<i64>) {
        let ranges = &mut self.own.lock().ranges;
        // Without a watcher nothing takes them away; the oldest are long past.
        if ranges.len() >= 4096 {
            ranges.pop_front();
        }
        ranges.push_back(revisions);
    }

    /// Takes back a note: the commit failed, or not everybody whose change it was has heard of it.
    pub(in crate::store::sqlite) fn disown(&self, revisions: &RangeInclusive<i64>) {
        let mut own = self.own.lock();
        own.ranges.retain(|range| range != revisions);
        let first = *revisions.start();
        if first <= own.passed {
            own.missed = Some(own.missed.map_or(first, |missed| missed.min(first)));
        }
    }

    /// The first revision that the watcher has passed over and should not have.
    pub(in crate::store::sqlite) fn take_missed(&self) -> Option<i64> {
        self.own.lock().missed.take()
    }

    /// Forgets which revisions are of this process.
    pub(in crate::store::sqlite) fn forget_own(&self) {
        *self.own.lock() = Own::default();
    }

    /// Whether a revision is of this process; forgets those before it.
    pub(in crate::store::sqlite) fn is_own(&self, revision: i64) -> bool {
        let mut own = self.own.lock();
        own.passed = own.passed.max(revision);
        while own.ranges.front().is_some_and(|range| *range.end() < revision) {
            own.ranges.pop_front();
        }
        own.ranges.front().is_some_and(|range| range.contains(&revision))
    }
}
