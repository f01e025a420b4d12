//! What is remembered. Plain data behind one lock, which is never held while the store is asked.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lru::LruCache;
use tokio::time::Instant;

use super::holds::Holds;
use super::in_flight::InFlight;
use super::keys::Keys;
use super::listing::Listings;
use super::news::KeyChanges;
use crate::by_name::ByName;
use crate::store::{Change, Entry, Error, Key, Meta, Revision, Text};

/// What an entry takes beside its key and value: itself, its place in the LRU, and what its allocations add.
pub const ENTRY_BYTES: usize = 256;

pub(super) struct Known {
    pub(super) value: Option<Entry>,
    pub(super) at: Instant,
    /// A newer value may exist: this one only stands in while the store is down.
    pub(super) stale: bool,
}

impl Known {
    pub(super) fn new(value: Option<Entry>) -> Self {
        Self { value, at: Instant::now(), stale: false }
    }

    pub(super) fn revision(&self) -> Option<Revision> {
        self.value.as_ref().map(|entry| entry.meta.revision)
    }
}

/// The bytes that an entry takes.
fn size(key: &Key, known: &Known) -> usize {
    ENTRY_BYTES + key.as_str().len() + known.value.as_ref().map_or(0, |entry| entry.text.len())
}

pub(super) struct Inner {
    pub(super) known: LruCache<Key, Known>,
    pub(super) holds: Holds,
    /// Changes that were withheld, and are to be passed on next.
    pub(super) released: KeyChanges,
    pub(super) bytes: usize,
    /// Counts what is remembered and forgotten.
    pub(super) edits: u64,
    pub(super) fetches: ByName<Key, Arc<InFlight<Option<Entry>>>>,
    pub(super) listings: Listings,
}

impl Inner {
    /// Takes the end of a set or delete in: the revision and value that it left, or why it failed.
    pub(super) fn written(
        &mut self,
        key: &Key,
        answer: std::result::Result<(Revision, Option<Entry>), &Error>,
        limit: usize,
    ) {
        let newest =
            self.holds.answered(key, answer.as_ref().map(|(revision, _)| *revision).unwrap_or_default());
        let known = self.known.peek(key).filter(|known| !known.stale);
        let known = known.and_then(Known::revision).unwrap_or_default();
        match answer {
            Ok((revision, value)) if revision >= newest.max(known) => {
                self.forget(key);
                self.listings.take_in(&match &value {
                    Some(entry) => Change::Set(key.clone(), entry.meta.clone()),
                    None => Change::Deleted(key.clone(), revision),
                });
                self.remember(key, Known::new(value), limit);
            }
            // Another call or the store answer of a newer version before this answer came.
            Ok(_) if known < newest => {
                self.mark_stale(key);
                self.listings.mark_stale();
            }
            // Somebody else has changed it.
            Err(Error::Changed) => {
                self.mark_stale(key);
                self.listings.mark_stale();
            }
            Err(error) if error.may_have_changed() => {
                self.forget(key);
                self.listings.mark_stale();
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Takes a change of a key in that the store has pushed, with the `text` of the version if the store has it at hand.
    pub(super) fn apply(&mut self, change: &Change, text: impl FnOnce() -> Option<Text>, limit: usize) {
        let Some(key) = change.key() else { return };
        // A fetch in flight may bring the value from before, whatever is remembered.
        self.invalidate_in_flight(key);
        self.listings.take_in(change);
        match change {
            Change::Set(_, meta) => self.install_pushed(key, meta, text, limit),
            _ if self.is_absent(key) || !self.is_news(key, change.revision()) => {}
            _ => self.mark_stale(key),
        }
    }

    fn install_pushed(&mut self, key: &Key, meta: &Meta, text: impl FnOnce() -> Option<Text>, limit: usize) {
        if !self.is_news(key, meta.revision) {
            return self.attributed(key, meta);
        }
        // An absence has no version: only the store knows which of the two is newer.
        let text = self.known.peek(key).filter(|known| known.value.is_some()).and_then(|_| text());
        self.mark_stale(key);
        if let Some(text) = text {
            self.remember(key, Known::new(Some(Entry { meta: meta.clone(), text })), limit);
        }
    }

    /// Takes in the attributes of the version of `key` that is known.
    pub(super) fn attributed(&mut self, key: &Key, meta: &Meta) {
        let known = self.known.peek_mut(key).and_then(|known| known.value.as_mut());
        let older = |entry: &&mut Entry| {
            entry.meta.revision == meta.revision && entry.meta.version() < meta.version()
        };
        if let Some(entry) = known.filter(older) {
            entry.meta.attributes.clone_from(&meta.attributes);
        }
    }

    pub(super) fn remember(&mut self, key: &Key, known: Known, limit: usize) {
        // A slower answer about an older version must not replace a newer one.
        let newer = |old: &Known| !old.stale && old.revision() > known.revision() && known.value.is_some();
        if self.known.peek(key).is_some_and(newer) {
            return;
        }
        self.edits += 1;
        self.bytes += size(key, &known);
        if let Some((key, old)) = self.known.push(key.clone(), known) {
            self.bytes -= size(&key, &old);
        }
        while self.bytes > limit {
            let Some((key, old)) = self.known.pop_lru() else { break };
            self.bytes -= size(&key, &old);
        }
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.invalidate_in_flight(key);
        self.edits += 1;
        if let Some(old) = self.known.pop(key) {
            self.bytes -= size(key, &old);
        }
    }

    /// Whether `key` is known to be absent.
    pub(super) fn is_absent(&self, key: &Key) -> bool {
        self.known.peek(key).is_some_and(|known| !known.stale && known.value.is_none())
    }

    /// Whether a version of `key` may be newer than what is known. A store that was restored from a backup counts its
    /// versions anew: where something was missed the numbers say nothing.
    pub(super) fn is_news(&self, key: &Key, revision: Revision) -> bool {
        !self.listings.is_past(key, revision)
            && self.known.peek(key).is_none_or(|known| known.stale || known.revision() < Some(revision))
    }

    /// Takes the end of a rename in: the version at which `from` has become `to`, or why it failed.
    pub(super) fn renamed(&mut self, from: &Key, to: &Key, answer: std::result::Result<&Meta, &Error>) {
        let own = answer.map(|meta| meta.revision).unwrap_or_default();
        let newest = self.holds.answered(from, own).max(self.holds.answered(to, own));
        match answer {
            Err(error) if !error.may_have_changed() => return,
            Err(Error::Changed) => {
                self.mark_stale(from);
                self.mark_stale(to);
                return self.listings.mark_stale();
            }
            Ok(_) | Err(_) => {}
        }
        self.forget(from);
        self.forget(to);
        let Some(meta) = answer.ok().filter(|meta| meta.revision >= newest) else {
            return self.listings.mark_stale();
        };
        if from != to {
            self.listings.take_in(&Change::Deleted(from.clone(), meta.revision));
        }
        self.listings.take_in(&Change::Set(to.clone(), meta.clone()));
    }

    /// All keys as they were last known.
    pub(super) fn last_keys(&self) -> Option<Keys> {
        self.listings.last().map(|listing| listing.keys.clone())
    }

    /// The value of `key` may be another one: what is known of it only stands in while the store is down.
    pub(super) fn mark_stale(&mut self, key: &Key) {
        self.invalidate_in_flight(key);
        if let Some(known) = self.known.peek_mut(key) {
            known.stale = true;
        }
    }

    /// The answer to a fetch in flight may be from before a change of `key`.
    pub(super) fn invalidate_in_flight(&mut self, key: &Key) {
        if let Some(in_flight) = self.fetches.remove(key) {
            in_flight.invalidated.store(true, Ordering::Release);
        }
    }

    /// All that is known, and not stale, was right until now.
    pub(super) fn revalidate(&mut self) {
        let now = Instant::now();
        for (_, known) in self.known.iter_mut().filter(|(_, known)| !known.stale) {
            known.at = now;
        }
        self.listings.revalidate(now);
    }

    /// Changes were missed: all that is known only stands in while the store is down.
    pub(super) fn mark_all_stale(&mut self) {
        for in_flight in std::mem::take(&mut self.fetches).into_values() {
            in_flight.invalidated.store(true, Ordering::Release);
        }
        for (_, known) in &mut self.known {
            known.stale = true;
        }
        self.listings.missed();
        self.holds.miss();
    }
}
