//! Values that were removed a moment ago: where a process removes a file, makes it anew (mv(1) from another filesystem,
//! install(1)), and what it writes is refused, the old value comes back.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::fs::rules::error::FsError;
use crate::fs::state::nodes::Overrides;
use crate::store::{Key, Text};
use crate::sys::process::{Tick, is_of_process};

/// The value that a process removed before it made the file anew.
#[derive(Clone, Debug)]
pub(crate) struct Predecessor {
    pub(crate) key: Key,
    pub(crate) text: Text,
    /// What chmod and the like had said of the file.
    pub(crate) attributes: Option<Overrides>,
    /// The thread that removed it.
    by: u32,
    /// When it did, which tells it from a later one of its number.
    at: Tick,
    since: Instant,
}

impl Predecessor {
    /// What `thread` removes; `None` of one that cannot be recognised.
    pub(crate) fn new(thread: u32, key: Key, text: Text) -> Option<Self> {
        let removed =
            || Self { key, text, attributes: None, by: thread, at: Tick::now(), since: Instant::now() };
        (thread != 0).then(removed)
    }

    pub(crate) fn with(self, attributes: Option<Overrides>) -> Self {
        Self { attributes, ..self }
    }

    /// Whether the process of `thread` certainly removed it.
    fn is_of(&self, thread: u32) -> bool {
        is_of_process(thread, self.by, self.at)
    }
}

/// For so long a process may make the file anew.
const LIFE: Duration = Duration::from_mins(1);
/// How many values are kept at most.
const MOST: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The last values that were removed, by path.
#[derive(Debug)]
pub(crate) struct Predecessors {
    /// In the order in which they were removed.
    removed: LruCache<String, Predecessor>,
    /// Of files that could not even be made, for this reason.
    due: Vec<(String, Predecessor, FsError)>,
}

impl Default for Predecessors {
    fn default() -> Self {
        Self { removed: LruCache::new(MOST), due: Vec::new() }
    }
}

impl Predecessors {
    pub(super) fn add(&mut self, path: &str, predecessor: Predecessor) {
        self.removed.put(path.to_owned(), predecessor);
    }

    /// What has been removed at `path`, where the process of `thread` did so; of no use to any other from now on.
    pub(super) fn take(&mut self, path: &str, thread: u32) -> Option<Predecessor> {
        let removed = self.removed.pop(path)?;
        (removed.since.elapsed() < LIFE && removed.is_of(thread)).then_some(removed)
    }

    /// Whether what has been removed at `path` may come back.
    pub(super) fn has(&self, path: &str) -> bool {
        self.removed.peek(path).is_some_and(|removed| removed.since.elapsed() < LIFE)
    }

    /// The file at `path` could not be made, for this reason.
    pub(super) fn not_made(&mut self, path: &str, predecessor: Predecessor, why: FsError) {
        self.due.push((path.to_owned(), predecessor, why));
    }

    /// What came before the files that could not be made.
    pub(super) fn take_due(&mut self) -> Vec<(String, Predecessor, FsError)> {
        while self.removed.peek_lru().is_some_and(|(_, oldest)| oldest.since.elapsed() >= LIFE) {
            self.removed.pop_lru();
        }
        std::mem::take(&mut self.due)
    }

    pub(super) fn forget(&mut self, path: &str) {
        self.removed.pop(path);
    }

    pub(super) fn clear(&mut self) {
        self.removed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed_by(thread: u32) -> Option<Predecessor> {
        Predecessor::new(thread, Key::from("k"), Text::from(&b"1"[..]))
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_of_the_process_that_removed_it_for_a_minute_and_one_of_few() {
        let me = std::process::id();
        assert!(removed_by(0).is_none());
        let mut predecessors = Predecessors::default();
        for other in [0, 1] {
            predecessors.add("k", removed_by(me).unwrap());
            assert!(predecessors.has("k"));
            assert!(predecessors.take("k", other).is_none());
            assert!(predecessors.take("k", me).is_none());
        }
        predecessors.add("k", removed_by(me).unwrap());
        assert!(predecessors.take("k", me).is_some());
        predecessors.add("k", removed_by(me).unwrap());
        tokio::time::advance(LIFE).await;
        assert!(predecessors.take("k", me).is_none());
        for number in 0..2 * MOST.get() {
            tokio::time::advance(Duration::from_millis(1)).await;
            predecessors.add(&number.to_string(), removed_by(me).unwrap());
        }
        assert_eq!(predecessors.removed.len(), MOST.get());
        assert!(predecessors.take(&MOST.to_string(), me).is_some());
    }
}
