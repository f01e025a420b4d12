//! A tenant: a namespace of keys, which is a store of its own.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use uuid::Uuid;

use super::memory_budget::ListingPermits;
use crate::store::{Deadline, Entry, Error, Expect, Key, Meta, Result, Store};

/// The name of the tenant whose store is the argument of the command line.
pub const DEFAULT: &str = "default";

/// The 1.x client retries a request up to 167 s after the first attempt: a deletion whose answer was lost must succeed again,
/// and not delete a key that was set since.
const REPEATS: Duration = Duration::from_mins(3);

/// How many deletions and lookups are kept.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

pub(super) struct Tenant {
    /// Derived from the name, so that it never changes.
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) store: Arc<dyn Store>,
    /// Deadline of a deletion, which takes several calls of the store.
    timeout: Duration,
    /// Each tenant has permits of its own, for a store may answer late or never.
    pub(super) listings: ListingPermits,
    recent: Mutex<Recent>,
}

/// Recent lookups and deletions: the client deletes by an id that it has just looked up.
struct Recent {
    keys: LruCache<Arc<str>, Key>,
    deleted: LruCache<Arc<str>, Instant>,
}

impl Tenant {
    /// A tenant, one of so many.
    pub(super) fn new(name: &str, store: Arc<dyn Store>, all: usize, timeout: Duration) -> Self {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_DNS, format!("{name}.tenant.kvfs").as_bytes());
        let recent = Recent { keys: LruCache::new(REMEMBERED), deleted: LruCache::new(REMEMBERED) };
        let listings = ListingPermits::shared(all);
        Self { id, name: name.to_owned(), store, timeout, listings, recent: Mutex::new(recent) }
    }

    /// The entry of `key`, if there is one.
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        match self.store.get_key_value(key).await {
            Ok(entry) => {
                self.recent.lock().keys.put(entry.meta.id.clone(), key.clone());
                Ok(Some(entry))
            }
            Err(Error::NotFound | Error::KeyTooLong { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the key that has `id`. False if there is none, unless it was deleted just before.
    pub(super) async fn delete(&self, id: &str) -> Result<bool> {
        Deadline::after(self.timeout).scope(self.find_and_delete(id)).await
    }

    async fn find_and_delete(&self, id: &str) -> Result<bool> {
        loop {
            let Some((key, meta)) = self.find(id).await? else {
                let recent = self.recent.lock();
                return Ok(recent.deleted.peek(id).is_some_and(|at| at.elapsed() < REPEATS));
            };
            match self.store.delete_key(&key, Expect::At(meta.revision)).await {
                Ok(_) => break,
                // Set or deleted by somebody else meanwhile.
                Err(Error::Changed | Error::NotFound) => {}
                Err(error) => {
                    // It may have been carried out. The client retries with the same id.
                    if error.may_have_changed() {
                        self.recent.lock().deleted.put(Arc::from(id), Instant::now());
                    }
                    return Err(error);
                }
            }
        }
        let mut recent = self.recent.lock();
        recent.keys.pop(id);
        recent.deleted.put(Arc::from(id), Instant::now());
        Ok(true)
    }

    async fn find(&self, id: &str) -> Result<Option<(Key, Meta)>> {
        let remembered = self.recent.lock().keys.peek(id).cloned();
        if let Some(key) = remembered {
            let meta = match self.get(&key).await {
                Ok(entry) => entry.map(|entry| entry.meta),
                Err(Error::Damaged(meta)) => Some(meta),
                Err(error) => return Err(error),
            };
            if let Some(meta) = meta.filter(|meta| &*meta.id == id) {
                return Ok(Some((key, meta)));
            }
        }
        Ok(self.store.list_keys().await?.into_iter().find(|(_, meta)| &*meta.id == id))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::store::{Feed, Guarded, Limits, Listing, MemoryStore, Revision, Text};

    /// A store whose deletions are carried out while their answers are lost.
    struct Lossy(MemoryStore);

    #[async_trait]
    impl Store for Lossy {
        fn name(&self) -> &'static str {
            "lossy"
        }

        fn limits(&self) -> Limits {
            self.0.limits()
        }

        async fn list_keys(&self) -> Result<Listing> {
            self.0.list_keys().await
        }

        async fn get_key_value(&self, key: &Key) -> Result<Entry> {
            self.0.get_key_value(key).await
        }

        async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
            self.0.set_key_value(key, text, expect).await
        }

        async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
            if key.as_str() == "contended" {
                // Others have set it meanwhile.
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Err(Error::Changed);
            }
            self.0.delete_key(key, expect).await?;
            Err(Error::TimedOut(5_000))
        }

        fn changes(&self) -> Option<Feed> {
            None
        }
    }

    #[tokio::test]
    async fn a_deletion_whose_answer_was_lost_succeeds_when_the_client_repeats_it() {
        let tenant = Tenant::new(DEFAULT, Arc::new(Lossy(MemoryStore::new())), 1, REPEATS);
        let (key, text) = (Key::from("k"), Arc::from(&b"1"[..]));
        let meta = tenant.store.set_key_value(&key, text, Expect::Anything).await.unwrap();
        assert_eq!(tenant.delete(&meta.id).await, Err(Error::TimedOut(5_000)));
        assert_eq!(tenant.delete(&meta.id).await, Ok(true));
        assert_eq!(tenant.delete("another").await, Ok(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_that_others_keep_overtaking_ends_by_its_deadline() {
        let timeout = Duration::from_secs(5);
        let store = Guarded::new(Arc::new(Lossy(MemoryStore::new())), timeout);
        let tenant = Tenant::new(DEFAULT, Arc::new(store), 1, timeout);
        let (key, text) = (Key::from("contended"), Arc::from(&b"1"[..]));
        let meta = tenant.store.set_key_value(&key, text, Expect::Anything).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(tenant.delete(&meta.id).await.is_err_and(|error| error.is_late()));
        assert_eq!(began.elapsed(), timeout);
    }
}
