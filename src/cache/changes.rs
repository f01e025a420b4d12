//! Changes made through the cache, and what is remembered once the store has answered.

use parking_lot::MutexGuard;

use super::Cache;
use super::known::Inner;
use crate::store::{Change, Entry, Error, Expect, Key, Meta, Rename, Result, Revision, Text};

impl Cache {
    fn begin<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> Underway<'_> {
        let keys: Vec<Key> = keys.into_iter().cloned().collect();
        self.inner.lock().begin(&keys);
        Underway { cache: self, keys }
    }

    /// Sets `key` in the store and remembers the new value.
    pub async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        let change = self.begin([key]);
        let result = self.store.set_key_value(key, text.clone(), expect).await;
        let mut inner = change.end();
        let answer = result.as_ref().map(|meta| (meta.revision, Some(Entry { meta: meta.clone(), text })));
        inner.written(key, answer, self.settings.bytes);
        self.journal.made(result.as_ref().map(|meta| [Change::Set(key.clone(), meta.clone())]));
        result
    }

    /// Deletes `key` in the store and remembers its absence.
    pub async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        let change = self.begin([key]);
        let result = self.store.delete_key(key, expect).await;
        let mut inner = change.end();
        inner.written(key, result.as_ref().map(|revision| (*revision, None)), self.settings.bytes);
        self.journal.made(result.as_ref().map(|revision| [Change::Deleted(key.clone(), *revision)]));
        result
    }

    /// Renames `from` to `to` in the store.
    pub async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        let change = self.begin([from, to]);
        let result = self.store.rename_key(from, to, at, expect).await;
        let mut inner = change.end();
        inner.renamed(from, to, result.as_ref());
        self.journal.made(result.as_ref().map(|meta| renamed(from, to, meta)));
        result
    }

    /// Renames keys in the store, all or none.
    pub async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        let change = self.begin(renames.iter().flat_map(|rename| [&rename.from, &rename.to]));
        let result = self.store.rename_keys(renames).await;
        let mut inner = change.end();
        for (index, Rename { from, to, .. }) in renames.iter().enumerate() {
            inner.renamed(from, to, result.as_ref().map(|metas| &metas[index]));
            self.journal.made(result.as_ref().map(|metas| renamed(from, to, &metas[index])));
        }
        result
    }
}

/// A change of keys that is on its way to the store. Should it be given up, only the store knows whether it was made.
struct Underway<'a> {
    cache: &'a Cache,
    keys: Vec<Key>,
}

impl<'a> Underway<'a> {
    /// The store has answered: what is remembered, to take that in.
    fn end(mut self) -> MutexGuard<'a, Inner> {
        self.keys.clear();
        self.cache.inner.lock()
    }
}

impl Drop for Underway<'_> {
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
    }
}

/// What others see of a rename.
fn renamed(from: &Key, to: &Key, meta: &Meta) -> [Change; 2] {
    [Change::Deleted(from.clone(), meta.revision), Change::Set(to.clone(), meta.clone())]
}
