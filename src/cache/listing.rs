//! The remembered listing, to which changes are applied as they come; and those that come while keys are being listed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::in_flight;
use super::keys::Keys;
use crate::by_name::ByName;
use crate::store::{Change, Key, Revision, Text};

/// Most changes that are kept for a listing in flight, and most deletions.
const MOST: usize = 10_000;

/// All keys, and the values of the first ones if the store read them too.
pub(super) type Listed = (Keys, Arc<Vec<Text>>);

/// A listing in flight: all callers that ask meanwhile wait for the same answer (singleflight).
#[derive(Default)]
pub(super) struct InFlight {
    /// Invalidated if it is not known what has become of some key meanwhile.
    pub(super) fetch: in_flight::InFlight<Listed>,
    /// The answer, with the changes that came in before it applied.
    completed: OnceLock<Keys>,
}

/// What the store listed.
pub(super) struct Remembered {
    pub(super) keys: Keys,
    pub(super) at: Instant,
    /// Keys may have changed since: it only stands in while the store is down.
    pub(super) stale: bool,
}

#[derive(Default)]
pub(super) struct Listings {
    remembered: Option<Remembered>,
    in_flight: Option<Arc<InFlight>>,
    /// Counts listings and changes.
    pub(super) edits: u64,
    /// Changes that came in since the listing in flight began.
    changes: Vec<Change>,
    /// Deletions: an older version of the key that comes late does not bring it back.
    deleted: ByName<Key, Revision>,
    /// The newest of the deletions that are no longer remembered.
    forgotten: Revision,
}

impl Listings {
    /// The listing, unless it is stale.
    pub(super) fn known(&self) -> Option<&Remembered> {
        self.remembered.as_ref().filter(|listing| !listing.stale)
    }

    /// The last listing, for when there is no better one.
    pub(super) fn last(&self) -> Option<&Remembered> {
        self.remembered.as_ref()
    }

    /// Takes in keys as they were known `at` that time.
    pub(super) fn restore(&mut self, keys: Keys, at: Instant) {
        self.remembered = Some(Remembered { keys, at, stale: true });
    }

    /// The listing in flight, or a new one.
    pub(super) fn join(&mut self) -> Arc<InFlight> {
        if self.in_flight.is_none() {
            self.changes.clear();
        }
        self.in_flight.get_or_insert_default().clone()
    }

    /// Remembers the `keys` that were listed, with the changes that came in meanwhile applied. `None` if it is not known what
    /// has become of some key. True for the first caller that completes it: later the values may be old.
    pub(super) fn complete(&mut self, in_flight: &Arc<InFlight>, keys: &Keys) -> Option<(Keys, bool)> {
        let first = self.end(in_flight);
        if first {
            self.edits += 1;
            let (changes, mut keys) = (std::mem::take(&mut self.changes), keys.clone());
            if changes.iter().all(|change| self.apply(&mut keys, change)) {
                self.remembered = Some(Remembered { keys: keys.clone(), at: Instant::now(), stale: false });
                _ = in_flight.completed.set(keys);
            }
        }
        let valid = |_: &&Keys| !in_flight.fetch.invalidated.load(Ordering::Acquire);
        in_flight.completed.get().filter(valid).map(|keys| (keys.clone(), first))
    }

    /// Ends what is `in_flight`; true for the first caller that does.
    pub(super) fn end(&mut self, in_flight: &Arc<InFlight>) -> bool {
        let first = self.in_flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, in_flight));
        if first {
            self.in_flight = None;
        }
        first
    }

    /// Takes a change of one key in.
    pub(super) fn take_in(&mut self, change: &Change) {
        self.edits += 1;
        if let Change::Deleted(key, revision) = change {
            self.note_deletion(key, *revision);
        }
        if self.in_flight.is_some() {
            self.changes.push(change.clone());
            if self.changes.len() > MOST {
                self.invalidate_in_flight();
            }
        }
        if let Some(mut remembered) = self.remembered.take() {
            remembered.stale |= !self.apply(&mut remembered.keys, change);
            self.remembered = Some(remembered);
        }
    }

    /// Whether `key` was deleted after this version.
    pub(super) fn is_past(&self, key: &Key, revision: Revision) -> bool {
        self.deleted.get(key).is_some_and(|deleted| *deleted > revision)
    }

    /// It is not known what has become of some key.
    pub(super) fn mark_stale(&mut self) {
        self.invalidate_in_flight();
        if let Some(remembered) = &mut self.remembered {
            remembered.stale = true;
        }
    }

    /// Changes were missed: a store that was restored from a backup counts its versions anew.
    pub(super) fn missed(&mut self) {
        self.mark_stale();
        self.deleted.clear();
        self.forgotten = Revision::default();
    }

    /// It was right until now, unless it is stale.
    pub(super) fn revalidate(&mut self, now: Instant) {
        if let Some(remembered) = self.remembered.as_mut().filter(|listing| !listing.stale) {
            remembered.at = now;
        }
    }

    fn invalidate_in_flight(&mut self) {
        self.changes.clear();
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.fetch.invalidated.store(true, Ordering::Release);
        }
    }

    fn note_deletion(&mut self, key: &Key, revision: Revision) {
        if self.deleted.len() == MOST {
            self.forgotten =
                self.deleted.drain().map(|(_, revision)| revision).fold(self.forgotten, Ord::max);
        }
        let newest = self.deleted.entry(key.clone()).or_default();
        *newest = revision.max(*newest);
    }

    /// Applies a change to `keys`. False if it is not known whether the key is there now.
    fn apply(&self, keys: &mut Keys, change: &Change) -> bool {
        match change {
            Change::Set(key, meta) => match keys.meta(key) {
                Some(known) if known.version() >= meta.version() => {}
                None if self.is_past(key, meta.revision) => {}
                None if self.forgotten > meta.revision => return false,
                Some(_) | None => keys.set(key, meta),
            },
            Change::Deleted(key, revision) => {
                if keys.meta(key).is_some_and(|known| known.revision < *revision) {
                    keys.remove(key);
                }
            }
            Change::Prefix(..) | Change::Everything | Change::Paused | Change::Resumed => {}
        }
        true
    }
}
