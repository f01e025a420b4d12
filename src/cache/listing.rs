//! The remembered listing, kept true by the changes that are told of, and those to be told of a listing under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::keys::Keys;
use crate::store::{Change, Key, Result, Revision, Text};

/// Most changes that are remembered for a listing under way, and most deletions.
const NEWS: usize = 10_000;

/// All keys, and the values of the first ones if the store read them too.
pub(super) type Listed = (Keys, Arc<Vec<Text>>);

/// A listing under way; who asks meanwhile waits for the same answer.
#[derive(Default)]
pub(super) struct Flight {
    pub(super) answer: OnceCell<Result<Listed>>,
    /// It is not known what has become of some key meanwhile.
    outdated: AtomicBool,
    /// The answer with the changes until it came.
    landed: OnceLock<Keys>,
}

/// What the store listed.
pub(super) struct Remembered {
    pub(super) keys: Keys,
    pub(super) at: Instant,
    /// It may be old: it may only stand in while the store is down.
    pub(super) doubted: bool,
}

#[derive(Default)]
pub(super) struct Listings {
    remembered: Option<Remembered>,
    flight: Option<Arc<Flight>>,
    /// Changes told of since the flight began.
    news: Vec<Change>,
    /// Deletions: what is told of an older version later, out of order, brings no key back.
    deleted: HashMap<Key, Revision>,
    /// The newest of the deletions that are no longer remembered.
    forgotten: Revision,
}

impl Listings {
    /// The listing, unless changes were missed since.
    pub(super) fn known(&self) -> Option<&Remembered> {
        self.remembered.as_ref().filter(|listing| !listing.doubted)
    }

    /// The last listing, for when there is no better one.
    pub(super) fn last(&self) -> Option<&Remembered> {
        self.remembered.as_ref()
    }

    /// The flight under way, or a new one.
    pub(super) fn fly(&mut self) -> Arc<Flight> {
        if self.flight.is_none() {
            self.news.clear();
        }
        self.flight.get_or_insert_default().clone()
    }

    /// Ends `flight`, which brought `keys`, and remembers them with the changes since it began. `None` if it is not known
    /// what has become of some key. True for the first who ends it: later the values may be old.
    pub(super) fn land(&mut self, flight: &Arc<Flight>, keys: &Keys) -> Option<(Keys, bool)> {
        let first = self.end(flight);
        if first {
            let (news, mut keys) = (std::mem::take(&mut self.news), keys.clone());
            if news.iter().all(|change| self.apply(&mut keys, change)) {
                self.remembered = Some(Remembered { keys: keys.clone(), at: Instant::now(), doubted: false });
                _ = flight.landed.set(keys);
            }
        }
        let landed = flight.landed.get().filter(|_| !flight.outdated.load(Ordering::Acquire));
        landed.map(|keys| (keys.clone(), first))
    }

    /// Ends `flight`; true for the first who does.
    pub(super) fn end(&mut self, flight: &Arc<Flight>) -> bool {
        let first = self.flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, flight));
        if first {
            self.flight = None;
        }
        first
    }

    /// Takes a change of one key in.
    pub(super) fn take_in(&mut self, change: &Change) {
        if let Change::Deleted(key, revision) = change {
            self.note_deletion(key, *revision);
        }
        if self.flight.is_some() {
            self.news.push(change.clone());
            if self.news.len() > NEWS {
                self.outdate();
            }
        }
        if let Some(mut remembered) = self.remembered.take() {
            remembered.doubted |= !self.apply(&mut remembered.keys, change);
            self.remembered = Some(remembered);
        }
    }

    /// Whether `key` was deleted after this version.
    pub(super) fn is_past(&self, key: &Key, revision: Revision) -> bool {
        self.deleted.get(key).is_some_and(|deleted| *deleted > revision)
    }

    /// It is not known what has become of some key.
    pub(super) fn forget(&mut self) {
        self.outdate();
        if let Some(remembered) = &mut self.remembered {
            remembered.doubted = true;
        }
    }

    /// Changes were missed.
    pub(super) fn doubt(&mut self) {
        self.forget();
        self.deleted.clear();
        self.forgotten = Revision::default();
    }

    /// It was right until now.
    pub(super) fn confirm(&mut self, now: Instant) {
        if let Some(remembered) = self.remembered.as_mut().filter(|listing| !listing.doubted) {
            remembered.at = now;
        }
    }

    fn outdate(&mut self) {
        self.news.clear();
        if let Some(flight) = self.flight.take() {
            flight.outdated.store(true, Ordering::Release);
        }
    }

    fn note_deletion(&mut self, key: &Key, revision: Revision) {
        if self.deleted.len() == NEWS {
            self.forgotten =
                self.deleted.drain().map(|(_, revision)| revision).fold(self.forgotten, Ord::max);
        }
        let newest = self.deleted.entry(key.clone()).or_default();
        *newest = revision.max(*newest);
    }

    /// False if it cannot be told whether the key is there now.
    fn apply(&self, keys: &mut Keys, change: &Change) -> bool {
        match change {
            Change::Set(key, meta) => match keys.meta(key) {
                Some(known) if known.revision >= meta.revision => {}
                None if self.is_past(key, meta.revision) => {}
                None if self.forgotten > meta.revision => return false,
                Some(_) | None => keys.set(key, meta),
            },
            Change::Deleted(key, revision) => {
                if keys.meta(key).is_some_and(|known| known.revision < *revision) {
                    keys.remove(key);
                }
            }
            Change::Everything | Change::Paused | Change::Resumed => {}
        }
        true
    }
}
