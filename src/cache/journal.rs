//! What changed of late, for those who watch: a bounded ring of changes, and cursors into it.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::by_name::ByName;
use crate::store::{Change, Error, Key, Revision};

/// Most changes kept.
const MOST: usize = 1 << 16;
/// Most bytes of keys kept.
const MOST_BYTES: usize = 16 << 20;
/// Most changes given out at once.
const PAGE: usize = 512;

/// A change of one key, or [`Change::Everything`]; and when the value was set, or else when the change was recorded.
pub type ChangeRecord = (Change, SystemTime);

/// What changed of late, each change once, those of one key in order. A change that a newer one of the same key
/// overtook is left out.
pub struct Journal {
    /// Another one for each daemon: a cursor from before a restart must not be taken for one of now.
    epoch: u64,
    ring: Mutex<Ring>,
}

struct Ring {
    records: VecDeque<ChangeRecord>,
    /// The number that the next change gets.
    next: u64,
    /// Of the keys in the ring: the last revision recorded, and whether it is a deletion.
    newest: ByName<Key, (Revision, bool)>,
    bytes: usize,
}

/// Changes that follow each other.
pub struct Page {
    /// The changes.
    pub changes: Vec<ChangeRecord>,
    epoch: u64,
    first: u64,
}

impl Page {
    /// The cursor behind the first `count` changes.
    pub fn cursor(&self, count: usize) -> String {
        format!("{:016x}.{}", self.epoch, self.first + count as u64)
    }
}

impl Journal {
    /// An empty journal.
    pub(super) fn new() -> Self {
        let ring = Ring { records: VecDeque::new(), next: 1, newest: ByName::default(), bytes: 0 };
        Self { epoch: fastrand::u64(..), ring: Mutex::new(ring) }
    }

    /// Records changes, and says of each whether it is new: one that is recorded already, or a newer one, is not repeated.
    pub fn record<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) -> Vec<bool> {
        let mut ring = self.ring.lock();
        changes.into_iter().map(|change| ring.record(change.clone())).collect()
    }

    /// Records what came of changes made through this cache.
    pub(super) fn made<const N: usize>(&self, changes: Result<[Change; N], &Error>) {
        match changes {
            Ok(changes) => _ = self.record(&changes),
            // Only the store knows.
            Err(Error::TimedOut(_) | Error::Unsure(_)) => {
                self.ring.lock().push(Change::Everything, SystemTime::now());
            }
            Err(_) => {}
        }
    }

    /// What changed after `cursor`; the empty one stands for now. [`Change::Everything`] if that is not known any more.
    pub fn read(&self, cursor: &str) -> Page {
        let ring = self.ring.lock();
        let page = |first, changes| Page { changes, epoch: self.epoch, first };
        if cursor.is_empty() {
            return page(ring.next, Vec::new());
        }
        let oldest = ring.next - ring.records.len() as u64;
        let after = self.parse(cursor).filter(|after| (oldest..=ring.next).contains(after));
        let Some(after) = after else {
            return page(ring.next - 1, vec![(Change::Everything, SystemTime::now())]);
        };
        let skipped = usize::try_from(after - oldest).unwrap_or(usize::MAX);
        page(after, ring.records.iter().skip(skipped).take(PAGE).cloned().collect())
    }

    fn parse(&self, cursor: &str) -> Option<u64> {
        let (epoch, after) = cursor.split_once('.')?;
        let epoch = u64::from_str_radix(epoch, 16).ok()?;
        after.parse().ok().filter(|_| epoch == self.epoch)
    }
}

impl Ring {
    fn record(&mut self, change: Change) -> bool {
        let (key, revision, time) = match &change {
            Change::Set(key, meta) => (key, meta.revision, meta.modified),
            Change::Deleted(key, revision) => (key, *revision, SystemTime::now()),
            Change::Everything => {
                // A store that was restored from a backup counts its versions anew.
                self.newest.clear();
                self.push(change, SystemTime::now());
                return true;
            }
            Change::Prefix(..) | Change::Paused | Change::Resumed => return false,
        };
        let deleted = matches!(change, Change::Deleted(..));
        let known = self.newest.get(key);
        if known.is_some_and(|(newest, gone)| *newest >= revision || *gone && deleted) {
            return false;
        }
        self.newest.insert(key.clone(), (revision, deleted));
        self.bytes += key.as_str().len();
        self.push(change, time);
        true
    }

    fn push(&mut self, change: Change, time: SystemTime) {
        self.records.push_back((change, time));
        self.next += 1;
        while self.records.len() > MOST || self.bytes > MOST_BYTES {
            let Some((old, _)) = self.records.pop_front() else { return };
            if let Some(key) = old.key() {
                self.bytes -= key.as_str().len();
                if self.newest.get(key).is_some_and(|(newest, _)| *newest == old.revision()) {
                    self.newest.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Meta;

    fn set(key: &str, revision: u64) -> Change {
        let (id, time) = ("i".into(), SystemTime::UNIX_EPOCH);
        Change::Set(
            key.into(),
            Meta {
                id,
                revision: Revision(revision),
                size: 1,
                created: time,
                modified: time,
                attributes: None,
            },
        )
    }

    fn deleted(key: &str, revision: u64) -> Change {
        Change::Deleted(key.into(), Revision(revision))
    }

    /// All changes after `cursor`, which moves on.
    fn all(journal: &Journal, cursor: &mut String) -> Vec<Change> {
        let mut all = Vec::new();
        loop {
            let page = journal.read(cursor);
            *cursor = page.cursor(page.changes.len());
            if page.changes.is_empty() {
                return all;
            }
            all.extend(page.changes.into_iter().map(|(change, _)| change));
        }
    }

    #[test]
    fn each_change_is_told_once_and_none_after_a_newer_one() {
        let journal = Journal::new();
        let mut cursor =
            all(&journal, &mut String::new()).is_empty().then(|| journal.read("").cursor(0)).unwrap();
        journal.record(&[set("a", 1), set("b", 2), set("a", 1), set("a", 4), set("a", 3), Change::Paused]);
        assert_eq!(all(&journal, &mut cursor), [set("a", 1), set("b", 2), set("a", 4)]);
        journal.record(&[
            deleted("a", 5),
            deleted("a", 6),
            set("a", 4),
            set("a", 7),
            deleted("b", 1),
            Change::Everything,
        ]);
        assert_eq!(all(&journal, &mut cursor), [deleted("a", 5), set("a", 7), Change::Everything]);
    }

    #[test]
    fn changes_of_a_store_that_counts_anew_are_told() {
        let journal = Journal::new();
        let mut cursor = journal.read("").cursor(0);
        journal.record(&[set("a", 9), Change::Everything, set("a", 5), set("a", 5)]);
        assert_eq!(all(&journal, &mut cursor), [set("a", 9), Change::Everything, set("a", 5)]);
    }

    #[test]
    fn what_was_made_is_told_and_what_is_uncertain_is_missed() {
        let journal = Journal::new();
        let mut cursor = journal.read("").cursor(0);
        journal.made(Ok([deleted("a", 2), set("b", 2)]));
        journal.made::<1>(Err(&Error::Changed));
        journal.made::<1>(Err(&Error::Busy("refused".into())));
        assert_eq!(all(&journal, &mut cursor), [deleted("a", 2), set("b", 2)]);
        journal.made::<1>(Err(&Error::TimedOut(5)));
        journal.made::<1>(Err(&Error::Busy("503".into()).unsure()));
        assert_eq!(all(&journal, &mut cursor), [Change::Everything, Change::Everything]);
    }

    #[test]
    fn a_cursor_that_is_too_old_or_of_another_journal_has_missed_changes() {
        let journal = Journal::new();
        let start = journal.read("").cursor(0);
        let told = |cursor: &str| all(&journal, &mut cursor.to_owned());
        journal.record(&(1..=MOST as u64).map(|number| set(&number.to_string(), number)).collect::<Vec<_>>());
        assert_eq!(told(&start).len(), MOST);
        journal.record(&[set("one more", u64::MAX)]);
        for cursor in [&start, &Journal::new().read("").cursor(0), "x", ".", "0.0", "0.99999999999999999999"]
        {
            assert_eq!(told(cursor), [Change::Everything], "{cursor}");
        }
        assert_eq!(journal.ring.lock().newest.len(), MOST);
        assert!(journal.ring.lock().records.iter().all(|(change, _)| *change != set("1", 1)));
    }

    #[test]
    fn long_keys_do_not_fill_the_memory() {
        let journal = Journal::new();
        let long = "k".repeat(1 << 20);
        journal.record(&(1..=40).map(|number| set(&format!("{number}{long}"), number)).collect::<Vec<_>>());
        assert!(journal.ring.lock().records.len() < 17 && journal.ring.lock().newest.len() < 17);
    }
}
