//! What is remembered. Plain data behind one lock, which is never held while the store is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use lru::LruCache;
use tokio::sync::OnceCell;

use crate::store::{Entry, Error, Key, Listing, Result, Revision, Text};

pub(super) struct Known {
    pub(super) value: Option<Entry>,
    pub(super) at: Instant,
}

impl Known {
    pub(super) fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |entry| entry.text.len())
    }

    pub(super) fn revision(&self) -> Option<Revision> {
        self.value.as_ref().map(|entry| entry.meta.revision)
    }
}

/// All keys, and their values if the store read them too.
pub(super) type Listed = (Arc<Listing>, Arc<Vec<Text>>);

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
    pub(super) listing: Option<(Arc<Listing>, Instant)>,
    pub(super) listing_flight: Option<Arc<Flight<Listed>>>,
}

impl Inner {
    /// Takes the end of a set or delete in: the revision and value that it left, or why it failed.
    pub(super) fn written(
        &mut self,
        key: &Key,
        told: std::result::Result<(Revision, Option<Entry>), &Error>,
        limit: usize,
    ) {
        let newest = self.writing.get(key).map_or(Revision::default(), |writing| writing.newest);
        let own = told.as_ref().map(|(revision, _)| *revision).unwrap_or_default();
        let known = self.known.peek(key).and_then(Known::revision).unwrap_or_default();
        match told {
            Ok((revision, value)) if revision >= newest.max(known) => {
                self.outdate(key);
                self.forget(key);
                self.remember(key, Known { value, at: Instant::now() }, limit);
            }
            // Another call or the store told of a newer version before this answer came.
            Ok(_) if known < newest => self.forget(key),
            Err(error) if error.may_have_changed() => self.forget(key),
            Ok(_) | Err(_) => {}
        }
        if let Some(writing) = self.writing.get_mut(key) {
            writing.calls -= 1;
            writing.newest = writing.newest.max(own);
            if writing.calls == 0 {
                self.writing.remove(key);
            }
        }
    }

    pub(super) fn remember(&mut self, key: &Key, known: Known, limit: usize) {
        // A slower answer about an older version must not replace a newer one.
        if self.known.peek(key).is_some_and(|old| old.revision() > known.revision() && known.value.is_some())
        {
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

    /// Answers in flight may be from before a change of `key`.
    pub(super) fn outdate(&mut self, key: &Key) {
        if let Some(flight) = self.flights.remove(key) {
            flight.outdated.store(true, Ordering::Release);
        }
        self.drop_listing();
    }

    /// All that is known was right until now.
    pub(super) fn confirm(&mut self) {
        let now = Instant::now();
        for (_, known) in &mut self.known {
            known.at = now;
        }
        if let Some((_, at)) = &mut self.listing {
            *at = now;
        }
    }

    pub(super) fn drop_listing(&mut self) {
        self.listing = None;
        if let Some(flight) = self.listing_flight.take() {
            flight.outdated.store(true, Ordering::Release);
        }
    }
}
