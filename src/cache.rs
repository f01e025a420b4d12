//! A store that remembers: values and absences in an LRU bounded by entries and bytes, one fetch per key in
//! flight, the listing, and how long each answer stays good.

mod changes;
mod feed;
mod health;
mod holds;
mod in_flight;
mod journal;
mod keys;
mod known;
mod listing;
mod news;
mod offline;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use changes::Hold;
pub use feed::Feed;
use holds::Holds;
use in_flight::{InFlight, is_shared};
pub use journal::{ChangeRecord, Journal};
pub use keys::Keys;
pub use known::ENTRY_BYTES;
use known::{Inner, Known};
use listing::{Listed, Listings};
pub use news::{KeyChange, KeyChanges, News, Origin};
pub use offline::{Document, Offline};

use crate::by_name::ByName;
use crate::store::{Entry, Error, Key, Limits, Meta, Result, Revision, Store, Text};

/// An answer that stays good until the store says otherwise.
pub const FOREVER: Duration = Duration::MAX;

/// How often the keys are listed anew for one caller when it is not known what has become of some meanwhile.
const LISTING_TRIES: u32 = 3;

/// Bounds of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most keys remembered, absent ones included.
    pub entries: NonZeroUsize,
    /// Most bytes of keys and values remembered, with [`ENTRY_BYTES`] for each. The listing, which has all keys, is not in it.
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
    paused_since: Mutex<Option<Instant>>,
    inner: Mutex<Inner>,
    /// Wakes the feed when there is something in [`Inner::released`].
    released: Notify,
    journal: Journal,
}

impl Cache {
    /// Remembers what `store` says, within `settings`.
    pub fn new(store: Arc<dyn Store>, settings: Settings) -> Self {
        let inner = Inner {
            known: LruCache::new(settings.entries),
            holds: Holds::default(),
            released: KeyChanges::default(),
            bytes: 0,
            edits: 0,
            fetches: ByName::default(),
            listings: Listings::default(),
        };
        let journal = Journal::new();
        let (pushed, paused_since) = (AtomicBool::new(false), Mutex::default());
        let (inner, released) = (Mutex::new(inner), Notify::new());
        Self { store, settings, pushed, paused_since, inner, released, journal }
    }

    /// The recent changes: those made through this cache, and those that others made.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Name of the store behind.
    pub fn name(&self) -> &str {
        self.store.name()
    }

    /// See [`Store::renew_credentials`].
    pub async fn renew_credentials(&self) {
        self.store.renew_credentials().await;
    }

    /// See [`Store::close`].
    pub fn close(&self) {
        self.store.close();
    }

    /// Whether the store behind gives a new key the id that was chosen for it.
    pub fn takes_ids(&self) -> bool {
        self.store.takes_ids()
    }

    /// See [`Store::keeps_attributes`].
    pub fn keeps_attributes(&self) -> bool {
        self.store.keeps_attributes()
    }

    /// Limits of the store behind.
    pub fn limits(&self) -> Limits {
        self.store.limits()
    }

    /// Whether all changes are pushed (true: answers are good for ever) or not (good for `max_age`).
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
        let known = inner.known.get(key).filter(|known| !known.stale)?;
        let ttl = self.ttl(known.at);
        (!ttl.is_zero()).then(|| Answer { value: known.value.clone(), ttl, age: known.at.elapsed() })
    }

    /// What the listing tells of `key`, if it is remembered and still good.
    pub fn peek_listing(&self, key: &Key) -> Option<Answer<Option<Meta>>> {
        let inner = self.inner.lock();
        let answer = self.good_listing(&inner)?;
        Some(Answer { value: answer.value.meta(key).cloned(), ttl: answer.ttl, age: answer.age })
    }

    /// All keys, if they are remembered and still good.
    pub fn peek_keys(&self) -> Option<Answer<Keys>> {
        self.good_listing(&self.inner.lock())
    }

    /// All keys as they were last known.
    pub fn last_keys(&self) -> Option<Answer<Keys>> {
        let inner = self.inner.lock();
        let listing = inner.listings.last()?;
        Some(Answer { value: listing.keys.clone(), ttl: Duration::ZERO, age: listing.at.elapsed() })
    }

    fn good_keys(&self, inner: &Inner) -> Option<Keys> {
        self.good_listing(inner).map(|answer| answer.value)
    }

    fn good_listing(&self, inner: &Inner) -> Option<Answer<Keys>> {
        let listing = inner.listings.known()?;
        let ttl = self.ttl(listing.at);
        let keys = || Answer { value: listing.keys.clone(), ttl, age: listing.at.elapsed() };
        (!ttl.is_zero()).then(keys)
    }

    /// The value of `key`, remembered or fetched. While the store is down: the last known value, if it is not
    /// older than `max_stale`.
    pub async fn get_key_value(&self, key: &Key) -> Result<Lookup> {
        loop {
            if let Some(answer) = self.peek(key) {
                return Ok(answer);
            }
            let in_flight = self.inner.lock().fetches.entry(key.clone()).or_default().clone();
            let result = in_flight.answer(self.ask_store(key)).await;
            if let Some(result) = self.complete_fetch(key, &in_flight, result) {
                return result;
            }
        }
    }

    /// The entry of `key`, for a caller that replaces or deletes it: a damaged value has no text there.
    pub async fn get_to_replace(&self, key: &Key) -> Result<Option<Entry>> {
        match self.get_key_value(key).await {
            Ok(answer) => Ok(answer.value),
            Err(Error::Damaged(meta)) => Ok(Some(Entry { meta, text: Text::from([]) })),
            Err(error) => Err(error),
        }
    }

    /// The value of `key` as the store has it now, whatever is remembered.
    pub async fn ask_store(&self, key: &Key) -> Result<Option<Entry>> {
        match self.store.get_key_value(key).await {
            Ok(entry) => Ok(Some(entry)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Remembers what a fetch brought; `None` if the key changed meanwhile and must be fetched again.
    fn complete_fetch(
        &self,
        key: &Key,
        in_flight: &Arc<InFlight<Option<Entry>>>,
        result: Result<Option<Entry>>,
    ) -> Option<Result<Lookup>> {
        let mut inner = self.inner.lock();
        // The first that wakes remembers the answer: for those that wake later it may be old.
        let first = inner.fetches.get(key).is_some_and(|current| Arc::ptr_eq(current, in_flight));
        let goes_on = matches!(&result, Err(error) if error.is_late()) && is_shared(in_flight);
        if first && !goes_on {
            inner.fetches.remove(key);
        }
        match result {
            Ok(_) if in_flight.invalidated.load(Ordering::Acquire) => None,
            // A change since the first one completed it found nothing in flight to invalidate.
            Ok(_) if !first && self.is_pushed() => None,
            Ok(value) => {
                if first {
                    inner.remember(key, Known::new(value.clone()), self.settings.bytes);
                }
                Some(Ok(Answer { value, ttl: self.ttl(Instant::now()), age: Duration::ZERO }))
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
    pub async fn list_keys(&self) -> Result<Answer<Keys>> {
        let mut tries = 0;
        loop {
            let in_flight = {
                let mut inner = self.inner.lock();
                if let Some(answer) = self.good_listing(&inner) {
                    return Ok(answer);
                }
                inner.listings.join()
            };
            let fetch = async {
                let (listing, texts) = self.store.list_entries().await?;
                Ok((Keys::from(listing), Arc::new(texts)))
            };
            let result = in_flight.fetch.answer(fetch).await;
            tries += 1;
            if let Some(result) = self.complete_listing(&in_flight, result, tries == LISTING_TRIES) {
                return result;
            }
        }
    }

    /// Remembers what was listed; `None` if a change meanwhile makes it worth another try, unless this is the `last`.
    fn complete_listing(
        &self,
        in_flight: &Arc<listing::InFlight>,
        result: Result<Listed>,
        last: bool,
    ) -> Option<Result<Answer<Keys>>> {
        let mut inner = self.inner.lock();
        match result {
            Ok((listed, texts)) => {
                let Some((keys, first)) = inner.listings.complete(in_flight, &listed) else {
                    // It was right at a moment during the call, but is not good for longer.
                    let answer = Answer { value: listed, ttl: Duration::ZERO, age: Duration::ZERO };
                    return last.then_some(Ok(answer));
                };
                let unchanged = |(key, meta): &&(Key, Meta)| keys.meta(key) == Some(meta);
                let texts = texts.iter().filter(|_| first);
                for ((key, meta), text) in listed.iter().zip(texts).filter(|(key, _)| unchanged(key)) {
                    let value = Some(Entry { meta: meta.clone(), text: text.clone() });
                    inner.remember(key, Known::new(value), self.settings.bytes);
                }
                Some(Ok(Answer { value: keys, ttl: self.ttl(Instant::now()), age: Duration::ZERO }))
            }
            Err(error) => {
                if !(error.is_late() && is_shared(in_flight)) {
                    inner.listings.end(in_flight);
                }
                let may_show = |at: Instant| error.is_outage() && self.may_show(at.elapsed());
                let old = inner.listings.last().filter(|listing| may_show(listing.at));
                let show = |old: &listing::Remembered| Answer {
                    value: old.keys.clone(),
                    ttl: Duration::ZERO,
                    age: old.at.elapsed(),
                };
                Some(old.map(show).ok_or(error))
            }
        }
    }

    /// Whether an answer of this age may stand in while the store is down.
    fn may_show(&self, age: Duration) -> bool {
        age <= self.settings.max_stale && !self.settings.max_stale.is_zero()
    }

    /// Number of keys, if the listing is remembered.
    pub fn known_keys(&self) -> Option<usize> {
        self.inner.lock().listings.known().map(|listing| listing.keys.len())
    }

    /// See [`Store::get_tags`]; never remembered.
    pub async fn get_tags(&self, key: &Key) -> Result<Vec<String>> {
        self.store.get_tags(key).await
    }

    /// See [`Store::get_ttl`]; never remembered.
    pub async fn get_ttl(&self, key: &Key) -> Result<Option<Duration>> {
        self.store.get_ttl(key).await
    }

    /// See [`Store::count_left_out`]; never remembered.
    pub async fn count_left_out(&self, start: &Key) -> Result<usize> {
        self.store.count_left_out(start).await
    }

    /// See [`Store::set_tags`].
    pub async fn set_tags(&self, key: &Key, tags: &[String]) -> Result<()> {
        self.store.set_tags(key, tags).await
    }

    /// Marks what is remembered of `key` as stale if it is older than `revision`.
    pub fn mark_stale(&self, key: &Key, revision: Revision) {
        let mut inner = self.inner.lock();
        if inner.is_news(key, revision) {
            inner.mark_stale(key);
        }
    }
}
