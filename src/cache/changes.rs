//! Changes made through the cache, and what is remembered once the store has answered.

use std::sync::Arc;

use super::Cache;
use super::known::Inner;
use crate::store::{
    Attributes, Change, Entry, Error, Expect, Given, Key, Meta, Prefixes, Rename, Result, Revision, Text,
};

impl Cache {
    fn begin<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> Call<'_> {
        let keys: Vec<Key> = keys.into_iter().cloned().collect();
        self.inner.lock().holds.begin(&keys);
        Call { cache: self, keys }
    }

    /// Sets `key` in the store and remembers the new value.
    pub async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        let call = self.begin([key]);
        let result = self.store.set_key_value(key, text.clone(), expect).await;
        call.end(|inner| {
            let answer =
                result.as_ref().map(|meta| (meta.revision, Some(Entry { meta: meta.clone(), text })));
            inner.written(key, answer, self.settings.bytes);
            self.journal.made(result.as_ref().map(|meta| [Change::Set(key.clone(), meta.clone())]));
        });
        result
    }

    /// Changes attributes of `key` in the store, if it [keeps](Cache::keeps_attributes) them.
    pub async fn set_attributes(&self, key: &Key, changes: &Attributes) -> Result<Meta> {
        let result = self.store.set_attributes(key, changes).await;
        let mut inner = self.inner.lock();
        // A fetch in flight may bring those from before.
        inner.invalidate_in_flight(key);
        match &result {
            Ok(meta) => {
                inner.attributed(key, meta);
                inner.listings.take_in(&Change::Set(key.clone(), meta.clone()));
            }
            Err(error) if error.may_have_changed() => {
                inner.forget(key);
                inner.listings.mark_stale();
            }
            Err(_) => {}
        }
        result
    }

    /// What the store keeps of prefixes of keys, if it [keeps](Cache::keeps_attributes) attributes; never remembered.
    pub async fn list_prefixes(&self) -> Result<Prefixes> {
        if self.keeps_attributes() { self.store.list_prefixes().await } else { Ok(Prefixes::new()) }
    }

    /// See [`Store::set_prefix`](crate::store::Store::set_prefix).
    pub async fn set_prefix(&self, prefix: &Key, given: &Given) -> Result<Option<Arc<Attributes>>> {
        self.store.set_prefix(prefix, given).await
    }

    /// Deletes `key` in the store and remembers its absence.
    pub async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        let call = self.begin([key]);
        let result = self.store.delete_key(key, expect).await;
        call.end(|inner| {
            inner.written(key, result.as_ref().map(|revision| (*revision, None)), self.settings.bytes);
            self.journal.made(result.as_ref().map(|revision| [Change::Deleted(key.clone(), *revision)]));
        });
        result
    }

    /// Renames `from` to `to` in the store.
    pub async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        let call = self.begin([from, to]);
        let result = self.store.rename_key(from, to, at, expect).await;
        call.end(|inner| {
            inner.renamed(from, to, result.as_ref());
            self.journal.made(result.as_ref().map(|meta| renamed(from, to, meta)));
        });
        result
    }

    /// Renames keys in the store, all or none.
    pub async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        let call = self.begin(renames.iter().flat_map(|rename| [&rename.from, &rename.to]));
        let result = self.store.rename_keys(renames).await;
        call.end(|inner| {
            for (index, Rename { from, to, .. }) in renames.iter().enumerate() {
                inner.renamed(from, to, result.as_ref().map(|metas| &metas[index]));
                self.journal.made(result.as_ref().map(|metas| renamed(from, to, &metas[index])));
            }
        });
        result
    }
}

/// Keys that are being changed: the feed's changes of them are withheld until this is dropped.
pub struct Hold {
    cache: Arc<Cache>,
    keys: Vec<Key>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            self.cache.release(&mut self.cache.inner.lock(), &self.keys);
        }
    }
}

impl Cache {
    /// Withholds the feed's changes of `keys` from now on.
    pub fn hold(self: &Arc<Self>, keys: Vec<Key>) -> Hold {
        if !keys.is_empty() {
            self.inner.lock().holds.begin(&keys);
        }
        Hold { cache: self.clone(), keys }
    }

    /// Ends one hold on each of `keys`, and passes on what was withheld of those that have no other.
    fn release(&self, inner: &mut Inner, keys: &[Key]) {
        inner.holds.end(keys, &mut inner.released);
        if !inner.released.is_empty() {
            self.released.notify_one();
        }
    }
}

/// A change of keys that the store is carrying out. Should it be given up, only the store knows whether it was made.
struct Call<'a> {
    cache: &'a Cache,
    keys: Vec<Key>,
}

impl Call<'_> {
    /// The store has answered: calls `take_in` before changes that were withheld are passed on.
    fn end(mut self, take_in: impl FnOnce(&mut Inner)) {
        let keys = std::mem::take(&mut self.keys);
        let mut inner = self.cache.inner.lock();
        take_in(&mut inner);
        self.cache.release(&mut inner, &keys);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let given_up = Error::Unsure(Box::new(Error::Other("given up".into())));
        let mut inner = self.cache.inner.lock();
        for key in &self.keys {
            inner.written(key, Err(&given_up), self.cache.settings.bytes);
        }
        self.cache.journal.made::<0>(Err(&given_up));
        self.cache.release(&mut inner, &self.keys);
    }
}

/// What others see of a rename.
fn renamed(from: &Key, to: &Key, meta: &Meta) -> [Change; 2] {
    [Change::Deleted(from.clone(), meta.revision), Change::Set(to.clone(), meta.clone())]
}
