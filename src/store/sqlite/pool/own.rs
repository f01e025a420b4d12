//! The revisions that this process has committed.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::Pool;

/// Ranges of revisions of this process, which the watcher skips.
#[derive(Default)]
pub(super) struct Own {
    ranges: VecDeque<RangeInclusive<i64>>,
    /// The last revision that the watcher has asked about.
    passed: i64,
    /// The first revision that was taken back after the watcher skipped it.
    missed: Option<i64>,
}

impl Pool {
    /// Records revisions that this process is about to commit.
    pub(in crate::store::sqlite) fn note_own(&self, revisions: RangeInclusive<i64>) {
        let ranges = &mut self.own.lock().ranges;
        // Without a watcher nothing removes them; the oldest are long past.
        if ranges.len() >= 4096 {
            ranges.pop_front();
        }
        ranges.push_back(revisions);
    }

    /// Removes a record: the commit failed, or some caller has given up and gets its change from the feed.
    pub(in crate::store::sqlite) fn disown(&self, revisions: &RangeInclusive<i64>) {
        let mut own = self.own.lock();
        own.ranges.retain(|range| range != revisions);
        let first = *revisions.start();
        if first <= own.passed {
            own.missed = Some(own.missed.map_or(first, |missed| missed.min(first)));
        }
    }

    /// The first revision that the watcher has skipped and should not have.
    pub(in crate::store::sqlite) fn take_missed(&self) -> Option<i64> {
        self.own.lock().missed.take()
    }

    /// Removes all records.
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
