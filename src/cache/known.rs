//! What is remembered. Plain data behind one lock, which is never held while the store is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::listing::Listings;
use crate::store::{Change, Entry, Error, Key, Meta, Result, Revision, Text};

pub(super) struct Known {
    pub(super) value: Option<Entry>,
    pub(super) at: Instant,
    /// It may be old: it may only stand in while the store is down.
    pub(super) doubted: bool,
}

impl Known {
    pub(super) fn new(value: Option<Entry>) -> Self {
        Self { value, at: Instant::now(), doubted: false }
    }

    pub(super) fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |entry| entry.text.len())
    }

    pub(super) fn revision(&self) -> Option<Revision> {
        self.value.as_ref().map(|entry| entry.meta.revision)
    }
}

/// A fetch in flight; who asks for the same key waits for the same answer.
#[derive(Default)]
pub(super) struct Flight<T> {
    pub(super) answer: OnceCell<Result<T>>,
    /// The key changed meanwhile: the answer may be from before and is not remembered.
    pub(super) outdated: AtomicBool,
}

/// Changes of one key on their way to the store.
#[derive(Default)]
pub(super) struct Writing {
    pub(super) calls: u32,
    /// The newest version told of meanwhile, by another call or by the store.
    pub(super) newest: Revision,
}

pub(super) struct Inner {
    pub(super) known: LruCache<Key, Known>,
    pub(super) writing: HashMap<Key, Writing>,
    pub(super) bytes: usize,
    pub(super) flights: HashMap<Key, Arc<Flight<Option<Entry>>>>,
    pub(super) listings: Listings,
}

impl Inner {
    /// Takes in that changes of `keys` are on their way to the store.
    pub(super) fn begin<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            self.writing.entry(key.clone()).or_default().calls += 1;
        }
    }

    /// Ends what was begun, with a change at the revision `own`. The newest version told of meanwhile.
    fn end(&mut self, key: &Key, own: Revision) -> Revision {
        let Some(writing) = self.writing.get_mut(key) else { return Revision::default() };
        let newest = writing.newest;
        writing.calls -= 1;
        writing.newest = newest.max(own);
        if writing.calls == 0 {
            self.writing.remove(key);
        }
        newest
    }

    /// Takes the end of a set or delete in: the revision and value that it left, or why it failed.
    pub(super) fn written(
        &mut self,
        key: &Key,
        told: std::result::Result<(Revision, Option<Entry>), &Error>,
        limit: usize,
    ) {
        let newest = self.end(key, told.as_ref().map(|(revision, _)| *revision).unwrap_or_default());
        let known = self.known.peek(key).filter(|known| !known.doubted);
        let known = known.and_then(Known::revision).unwrap_or_default();
        match told {
            Ok((revision, value)) if revision >= newest.max(known) => {
                self.forget(key);
                self.listings.take_in(&match &value {
                    Some(entry) => Change::Set(key.clone(), entry.meta.clone()),
                    None => Change::Deleted(key.clone(), revision),
                });
                self.remember(key, Known::new(value), limit);
            }
            // Another call or the store told of a newer version before this answer came.
            Ok(_) if known < newest => {
                self.doubt_key(key);
                self.listings.forget();
            }
            // It is another one, and was not changed here.
            Err(Error::Changed) => {
                self.doubt_key(key);
                self.listings.forget();
            }
            Err(error) if error.may_have_changed() => {
                self.forget(key);
                self.listings.forget();
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Takes in that the store told of this version, whose value may be had.
    pub(super) fn told(&mut self, key: &Key, meta: &Meta, text: impl FnOnce() -> Option<Text>, limit: usize) {
        if !self.is_news(key, meta.revision) {
            return;
        }
        // An absence has no version: only the store knows whether this one came before or after it.
        let text = self.known.peek(key).filter(|known| known.value.is_some()).and_then(|_| text());
        self.doubt_key(key);
        if let Some(text) = text {
            self.remember(key, Known::new(Some(Entry { meta: meta.clone(), text })), limit);
        }
    }

    pub(super) fn remember(&mut self, key: &Key, known: Known, limit: usize) {
        // A slower answer about an older version must not replace a newer one.
        let newer = |old: &Known| !old.doubted && old.revision() > known.revision() && known.value.is_some();
        if self.known.peek(key).is_some_and(newer) {
            return;
        }
        self.bytes += known.bytes();
        if let Some((_, old)) = self.known.push(key.clone(), known) {
            self.bytes -= old.bytes();
        }
        while self.bytes > limit {
            let Some((_, old)) = self.known.pop_lru() else { break };
            self.bytes -= old.bytes();
        }
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.outdate(key);
        if let Some(old) = self.known.pop(key) {
            self.bytes -= old.bytes();
        }
    }

    /// Whether `key` is known to be absent.
    pub(super) fn is_absent(&self, key: &Key) -> bool {
        self.known.peek(key).is_some_and(|known| !known.doubted && known.value.is_none())
    }

    /// Whether a version of `key` may be newer than what is known. A store that was restored from a backup counts its
    /// versions anew: where something was missed the numbers say nothing.
    pub(super) fn is_news(&self, key: &Key, revision: Revision) -> bool {
        !self.listings.is_past(key, revision)
            && self.known.peek(key).is_none_or(|known| known.doubted || known.revision() < Some(revision))
    }

    /// Takes the end of a rename in: the version at which `from` has become `to`, or why it failed.
    pub(super) fn renamed(&mut self, from: &Key, to: &Key, told: std::result::Result<&Meta, &Error>) {
        let own = told.map(|meta| meta.revision).unwrap_or_default();
        let newest = self.end(from, own).max(self.end(to, own));
        match told {
            Err(error) if !error.may_have_changed() => return,
            Err(Error::Changed) => {
                self.doubt_key(from);
                self.doubt_key(to);
                return self.listings.forget();
            }
            Ok(_) | Err(_) => {}
        }
        self.forget(from);
        self.forget(to);
        let Some(meta) = told.ok().filter(|meta| meta.revision >= newest) else {
            return self.listings.forget();
        };
        if from != to {
            self.listings.take_in(&Change::Deleted(from.clone(), meta.revision));
        }
        self.listings.take_in(&Change::Set(to.clone(), meta.clone()));
    }

    /// The value of `key` is another one, or may be: what is known may only stand in while the store is down.
    pub(super) fn doubt_key(&mut self, key: &Key) {
        self.outdate(key);
        if let Some(known) = self.known.peek_mut(key) {
            known.doubted = true;
        }
    }

    /// An answer in flight may be from before a change of `key`.
    pub(super) fn outdate(&mut self, key: &Key) {
        if let Some(flight) = self.flights.remove(key) {
            flight.outdated.store(true, Ordering::Release);
        }
    }

    /// All that is known was right until now.
    pub(super) fn confirm(&mut self) {
        let now = Instant::now();
        for (_, known) in self.known.iter_mut().filter(|(_, known)| !known.doubted) {
            known.at = now;
        }
        self.listings.confirm(now);
    }

    /// Changes were missed: what is known may only stand in while the store is down.
    pub(super) fn doubt(&mut self) {
        for flight in std::mem::take(&mut self.flights).into_values() {
            flight.outdated.store(true, Ordering::Release);
        }
        for (_, known) in &mut self.known {
            known.doubted = true;
        }
        self.listings.doubt();
        // Nor is the answer to a change that is under way the newest for certain.
        for writing in self.writing.values_mut() {
            writing.newest = Revision(u64::MAX);
        }
    }
}
