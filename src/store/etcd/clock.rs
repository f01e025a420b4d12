//! Times for revisions: etcd stores none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// Least distance in time of recorded revisions, while there are few of them.
const APART: Duration = Duration::from_millis(1);
/// Each so many records double that distance. Records are never dropped, for the time of a revision must not change. A thousand
/// changes a second for a month make 16 times as many.
const MANY: usize = 50_000;

/// One clock per cluster: all stores in this process show the same times.
static CLOCKS: Mutex<Option<HashMap<u64, Arc<Mutex<Clock>>>>> = Mutex::new(None);

/// The time of each revision, as far as this process can know: a revision that is seen for the first time gets the time of
/// day, or a microsecond after the one before. The same revision always has the same time, a later one a later.
#[derive(Default)]
pub(super) struct Clock {
    /// Revisions in order, each with the time at which it was the newest.
    known: Vec<(u64, SystemTime)>,
    newest: u64,
}

impl Clock {
    /// The clock of a cluster.
    pub(super) fn of(cluster: u64) -> Arc<Mutex<Self>> {
        CLOCKS.lock().get_or_insert_default().entry(cluster).or_default().clone()
    }

    /// Drops all records: the cluster was restored, and reuses its revisions.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    /// The newest revision so far.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// The time of a revision.
    pub(super) fn at(&mut self, revision: u64) -> SystemTime {
        self.at_time(revision, SystemTime::now())
    }

    fn at_time(&mut self, revision: u64, now: SystemTime) -> SystemTime {
        if revision > self.newest {
            self.newest = revision;
            let apart = APART * 2_u32.saturating_pow((self.known.len() / MANY) as u32);
            let due = |last: &(u64, SystemTime)| now.duration_since(last.1).is_ok_and(|age| age >= apart);
            if self.known.last().is_none_or(due) {
                let earliest = self.reckoned(revision).unwrap_or(now);
                self.known.push((revision, now.max(earliest)));
            }
        }
        self.reckoned(revision).unwrap_or(now)
    }

    /// The time relative to the last recorded revision before, or the first one after.
    fn reckoned(&self, revision: u64) -> Option<SystemTime> {
        let after = self.known.partition_point(|(known, _)| *known <= revision);
        let micros = |from: u64, to: u64| Duration::from_micros(to - from);
        if let Some((before, time)) = after.checked_sub(1).map(|index| self.known[index]) {
            return Some(time + micros(before, revision));
        }
        let (first, time) = *self.known.first()?;
        Some(time.checked_sub(micros(revision, first)).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn what_was_before_the_first_is_earlier_and_what_arrives_later_has_its_own_time() {
        let (mut clock, start) = (Clock::default(), SystemTime::UNIX_EPOCH + START);
        assert_eq!(clock.at_time(100, start), start);
        assert_eq!(clock.at_time(90, start), start - Duration::from_micros(10));
        let later = start + Duration::from_secs(7);
        assert_eq!(clock.at_time(103, later), later);
        assert_eq!(clock.at_time(102, later), start + Duration::from_micros(2));
        assert_eq!(clock.at_time(104, later + Duration::from_micros(300)), later + Duration::from_micros(1));
    }

    proptest! {
        #[test]
        fn a_time_stays_and_a_later_revision_has_a_later_one(
            asked in prop::collection::vec((1_u64..200, 0_i64..4_000), 1..80)
        ) {
            let (mut clock, mut told) = (Clock::default(), HashMap::new());
            let mut now = SystemTime::UNIX_EPOCH + START;
            for (revision, micros) in asked {
                // The clock of the machine may be set back.
                now += Duration::from_micros(micros.unsigned_abs());
                now -= Duration::from_micros(500);
                let time = clock.at_time(revision, now);
                prop_assert_eq!(*told.entry(revision).or_insert(time), time);
            }
            let mut told: Vec<_> = told.into_iter().collect();
            told.sort_unstable();
            for (revision, time) in &told {
                prop_assert_eq!(clock.at_time(*revision, now), *time);
            }
            prop_assert!(told.is_sorted_by(|one, next| one.1 < next.1));
        }
    }
}
