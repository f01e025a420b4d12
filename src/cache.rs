//! A store that remembers: values and absences in an LRU bounded by entries and bytes, one fetch per key in
//! flight, the listing, and how long each answer stays good.

mod journal;
mod known;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

pub use journal::{Journal, Told};
use known::{Flight, Inner, Known, Listed};

use crate::store::{Change, Entry, Error, Expect, Key, Limits, Listing, Meta, Result, Revision, Store, Text};

/// An answer that stays good until the store says otherwise.
pub const FOREVER: Duration = Duration::MAX;

/// Bounds of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most keys remembered, absent ones included.
    pub entries: NonZeroUsize,
    /// Most bytes of values remembered.
    pub bytes: usize,
    /// How long an answer is good when the store does not push changes.
    pub max_age: Duration,
    /// How old the last known value may be when the store is down; zero turns this off.
    pub max_stale: Duration,
}

/// What the store said, and for how much longer that is good enough.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// What the store said.
    pub value: T,
    /// Remaining validity; zero for a last known value while the store is down.
    pub ttl: Duration,
    /// Time since the store said it.
    pub age: Duration,
}

/// `None` is a confirmed absence.
pub type Lookup = Answer<Option<Entry>>;

/// The store behind, and what is remembered of it. No lock is held while the store is asked.
pub struct Cache {
    store: Arc<dyn Store>,
    settings: Settings,
    pushed: AtomicBool,
    inner: Mutex<Inner>,
    journal: Journal,
}

impl Cache {
    /// Remembers what `store` says, within `settings`.
    pub fn new(store: Arc<dyn Store>, settings: Settings) -> Self {
        let inner = Inner {
            known: LruCache::new(settings.entries),
            writing: HashMap::new(),
            bytes: 0,
            flights: HashMap::new(),
            listing: None,
            listing_flight: None,
        };
        let journal = Journal::new();
        Self { store, settings, pushed: AtomicBool::new(false), inner: Mutex::new(inner), journal }
    }

    /// What changed of late: what was changed through this cache, and what it is told of others.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Name of the store behind.
    pub fn name(&self) -> &str {
        self.store.name()
    }

    /// Why a set would fail at once, if that is known.
    pub fn outage(&self) -> Option<Error> {
        self.store.outage()
    }

    /// Limits of the store behind.
    pub fn limits(&self) -> Limits {
        self.store.limits()
    }

    /// Whether all changes are pushed (true: answers are good for ever) or not (good for `max_age`).
    pub fn set_pushed(&self, pushed: bool) {
        self.pushed.store(pushed, Ordering::Release);
    }

    /// See [`Cache::set_pushed`].
    pub fn is_pushed(&self) -> bool {
        self.pushed.load(Ordering::Acquire)
    }

    /// How long an answer is good when changes are not pushed.
    pub fn max_age(&self) -> Duration {
        self.settings.max_age
    }

    fn ttl(&self, at: Instant) -> Duration {
        if self.is_pushed() { FOREVER } else { self.settings.max_age.saturating_sub(at.elapsed()) }
    }

    /// The value of `key` if it is remembered and still good.
    pub fn peek(&self, key: &Key) -> Option<Lookup> {
        let mut inner = self.inner.lock();
        let known = inner.known.get(key)?;
        let ttl = self.ttl(known.at);
        (!ttl.is_zero()).then(|| Answer { value: known.value.clone(), ttl, age: known.at.elapsed() })
    }

    /// What the listing tells of `key`, if it is remembered and still good.
    pub fn peek_listing(&self, key: &Key) -> Option<Answer<Option<Meta>>> {
        let inner = self.inner.lock();
        let (listing, at) = inner.listing.as_ref()?;
        let ttl = self.ttl(*at);
        let found = listing.binary_search_by(|(other, _)| other.cmp(key)).ok();
        let value = found.map(|index| listing[index].1.clone());
        (!ttl.is_zero()).then(|| Answer { value, ttl, age: at.elapsed() })
    }

    /// The value of `key`, remembered or fetched. While the store is down: the last known value, if it is not
    /// older than `max_stale`.
    pub async fn get_key_value(&self, key: &Key) -> Result<Lookup> {
        loop {
            if let Some(answer) = self.peek(key) {
                return Ok(answer);
            }
            let flight = self.inner.lock().flights.entry(key.clone()).or_default().clone();
            let fetch = async {
                match self.store.get_key_value(key).await {
                    Ok(entry) => Ok(Some(entry)),
                    Err(Error::NotFound) => Ok(None),
                    Err(error) => Err(error),
                }
            };
            let result = flight.answer.get_or_init(|| fetch).await.clone();
            if let Some(result) = self.landed(key, &flight, result) {
                return result;
            }
        }
    }

    /// Remembers what a flight brought; `None` if the key changed under it and it must be flown again.
    fn landed(
        &self,
        key: &Key,
        flight: &Arc<Flight<Option<Entry>>>,
        result: Result<Option<Entry>>,
    ) -> Option<Result<Lookup>> {
        let mut inner = self.inner.lock();
        // The first to wake remembers; who wakes late may find that the world has moved on.
        let first = inner.flights.get(key).is_some_and(|current| Arc::ptr_eq(current, flight));
        if first {
            inner.flights.remove(key);
        }
        match result {
            Ok(_) if flight.outdated.load(Ordering::Acquire) => None,
            // Changes since the first one landed found no flight to outdate.
            Ok(_) if !first && self.is_pushed() => None,
            Ok(value) => {
                let at = Instant::now();
                if first {
                    inner.remember(key, Known { value: value.clone(), at }, self.settings.bytes);
                }
                Some(Ok(Answer { value, ttl: self.ttl(at), age: Duration::ZERO }))
            }
            Err(error) if error.is_outage() => Some(self.last_known(&mut inner, key).ok_or(error)),
            Err(error) => Some(Err(error)),
        }
    }

    fn last_known(&self, inner: &mut Inner, key: &Key) -> Option<Lookup> {
        let known = inner.known.get(key)?;
        let age = known.at.elapsed();
        self.may_show(age).then(|| Answer { value: known.value.clone(), ttl: Duration::ZERO, age })
    }

    /// All keys, remembered or fetched; while the store is down the last known listing, as for values.
    pub async fn list_keys(&self) -> Result<Answer<Arc<Listing>>> {
        let flight = {
            let mut inner = self.inner.lock();
            if let Some((listing, at)) = &inner.listing {
                let ttl = self.ttl(*at);
                if !ttl.is_zero() {
                    return Ok(Answer { value: listing.clone(), ttl, age: at.elapsed() });
                }
            }
            inner.listing_flight.get_or_insert_default().clone()
        };
        let fetch = async {
            let (listing, texts) = self.store.list_entries().await?;
            Ok((Arc::new(listing), Arc::new(texts)))
        };
        let result = flight.answer.get_or_init(|| fetch).await.clone();
        self.listing_landed(&flight, result)
    }

    fn listing_landed(
        &self,
        flight: &Arc<Flight<Listed>>,
        result: Result<Listed>,
    ) -> Result<Answer<Arc<Listing>>> {
        let mut inner = self.inner.lock();
        let first = inner.listing_flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, flight));
        if first {
            inner.listing_flight = None;
        }
        match result {
            // Complete at a moment during the call, so a right answer; it is only not remembered.
            Ok((value, _)) if !first || flight.outdated.load(Ordering::Acquire) => {
                Ok(Answer { value, ttl: Duration::ZERO, age: Duration::ZERO })
            }
            Ok((value, texts)) => {
                let at = Instant::now();
                for ((key, meta), text) in value.iter().zip(texts.iter()) {
                    let value = Some(Entry { meta: meta.clone(), text: text.clone() });
                    inner.remember(key, Known { value, at }, self.settings.bytes);
                }
                inner.listing = Some((value.clone(), at));
                Ok(Answer { value, ttl: self.ttl(at), age: Duration::ZERO })
            }
            Err(error) => {
                let old =
                    inner.listing.as_ref().filter(|(_, at)| error.is_outage() && self.may_show(at.elapsed()));
                let (value, at) = old.ok_or(error)?;
                Ok(Answer { value: value.clone(), ttl: Duration::ZERO, age: at.elapsed() })
            }
        }
    }

    /// Whether an answer of this age may stand in while the store is down.
    fn may_show(&self, age: Duration) -> bool {
        age <= self.settings.max_stale && !self.settings.max_stale.is_zero()
    }

    /// Number of keys, if the listing is remembered.
    pub fn known_keys(&self) -> Option<usize> {
        self.inner.lock().listing.as_ref().map(|(listing, _)| listing.len())
    }

    /// Sets `key` in the store and remembers the new value.
    pub async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        self.inner.lock().writing.entry(key.clone()).or_default().calls += 1;
        let result = self.store.set_key_value(key, text.clone(), expect).await;
        let mut inner = self.inner.lock();
        let told = result.as_ref().map(|meta| (meta.revision, Some(Entry { meta: meta.clone(), text })));
        inner.written(key, told, self.settings.bytes);
        self.journal.made(result.as_ref().map(|meta| [Change::Set(key.clone(), meta.clone())]));
        result
    }

    /// Deletes `key` in the store and remembers its absence.
    pub async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        self.inner.lock().writing.entry(key.clone()).or_default().calls += 1;
        let result = self.store.delete_key(key, expect).await;
        let mut inner = self.inner.lock();
        inner.written(key, result.as_ref().map(|revision| (*revision, None)), self.settings.bytes);
        self.journal.made(result.as_ref().map(|revision| [Change::Deleted(key.clone(), *revision)]));
        result
    }

    /// Renames `from` to `to` in the store.
    pub async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        let result = self.store.rename_key(from, to, at, expect).await;
        if result.as_ref().err().is_none_or(Error::may_have_changed) {
            let mut inner = self.inner.lock();
            inner.forget(from);
            inner.forget(to);
        }
        let renamed = |meta: &Meta| {
            [Change::Deleted(from.clone(), meta.revision), Change::Set(to.clone(), meta.clone())]
        };
        self.journal.made(result.as_ref().map(renamed));
        result
    }

    /// See [`Store::get_tags`]; never remembered.
    pub async fn get_tags(&self, key: &Key) -> Result<Vec<String>> {
        self.store.get_tags(key).await
    }

    /// See [`Store::set_tags`].
    pub async fn set_tags(&self, key: &Key, tags: &[String]) -> Result<()> {
        self.store.set_tags(key, tags).await
    }

    /// Takes a pushed change in. What is newer already stays.
    pub fn apply(&self, change: &Change) {
        let mut inner = self.inner.lock();
        if let Change::Set(key, Meta { revision, .. }) | Change::Deleted(key, revision) = change {
            inner.drop_listing();
            if let Some(writing) = inner.writing.get_mut(key) {
                writing.newest = writing.newest.max(*revision);
            }
        }
        match change {
            Change::Set(key, meta) => {
                if inner.known.peek(key).is_none_or(|known| known.revision() < Some(meta.revision)) {
                    inner.forget(key);
                }
            }
            Change::Deleted(key, revision) => {
                if inner
                    .known
                    .peek(key)
                    .is_none_or(|known| known.revision().is_some_and(|old| old < *revision))
                {
                    inner.forget(key);
                }
            }
            Change::Paused => {
                if self.pushed.swap(false, Ordering::AcqRel) {
                    inner.confirm();
                }
            }
            Change::Resumed => self.set_pushed(true),
            Change::Everything => {
                self.set_pushed(true);
                let keys: Vec<Key> = inner.flights.keys().cloned().collect();
                for key in &keys {
                    inner.outdate(key);
                }
                inner.drop_listing();
                // Nor is the answer to a change that is under way the newest for certain.
                for writing in inner.writing.values_mut() {
                    writing.newest = Revision(u64::MAX);
                }
                inner.known.clear();
                inner.bytes = 0;
            }
        }
    }
}
