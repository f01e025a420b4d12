//! `memory:`, gone at unmount: for trials and tests, and the reference implementation of the trait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Attributes, Change, Entry, Error, Expect, Feed, FeedSender, Given, Key, Limits, Listing, Meta,
    MovedPrefix, Prefixes, Rename, Result, Revision, Store, Text, VALUE_LIMIT, attributes, feed, new_id,
    prefix,
};

/// A store in this process.
#[derive(Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
    /// Numbers the clients of the same keys; none gets its own changes in its feed.
    client: usize,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Key, Entry>,
    prefixes: BTreeMap<Key, Arc<Attributes>>,
    revision: u64,
    clients: usize,
    feeds: Vec<(usize, FeedSender)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another client of the same keys, as another process is one.
    #[must_use]
    pub fn second_client(&self) -> Self {
        let mut inner = self.inner.lock();
        inner.clients += 1;
        Self { inner: self.inner.clone(), client: inner.clients }
    }
}

impl Inner {
    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    fn publish(&mut self, by: usize, change: &Change) {
        self.feeds.retain(|(_, feed)| !feed.is_closed());
        let others = self.feeds.iter().filter(|(client, _)| *client != by);
        others.for_each(|(_, feed)| feed.send(change.clone()));
    }

    fn check(&self, key: &Key, expect: Expect) -> Result<()> {
        expect.check(self.entries.get(key).map(|entry| entry.meta.revision))
    }

    fn set(&mut self, by: usize, key: &Key, text: Text) -> Meta {
        let old = self.entries.get(key).map(|entry| entry.meta.clone());
        let mut meta = successor(old.as_ref(), self.next(), text.len(), new_id::chosen());
        meta.attributes = Given::after(attributes::given().as_ref(), meta.attributes.as_ref(), meta.revision);
        self.entries.insert(key.clone(), Entry { meta: meta.clone(), text });
        self.publish(by, &Change::Set(key.clone(), meta.clone()));
        meta
    }

    fn delete(&mut self, by: usize, key: &Key) -> Result<Revision> {
        self.entries.remove(key).ok_or(Error::NotFound)?;
        let revision = self.next();
        self.publish(by, &Change::Deleted(key.clone(), revision));
        Ok(revision)
    }

    fn set_attributes(&mut self, by: usize, key: &Key, changes: &Attributes) -> Result<Meta> {
        let revision = self.next();
        let entry = self.entries.get_mut(key).ok_or(Error::NotFound)?;
        let before = entry.meta.attributes.as_ref();
        entry.meta.attributes = Some(Attributes::merged(before, changes, entry.meta.revision, revision));
        let meta = entry.meta.clone();
        self.publish(by, &Change::Set(key.clone(), meta.clone()));
        Ok(meta)
    }

    fn rename(&mut self, by: usize, from: &Key, to: &Key) -> Result<Meta> {
        let old = self.entries.get(from).cloned().ok_or(Error::NotFound)?;
        self.delete(by, from)?;
        let mut meta = successor(Some(&old.meta), self.next(), old.text.len(), None);
        meta.attributes = Attributes::renamed(old.meta.attributes.as_ref(), old.meta.revision, meta.revision);
        self.entries.insert(to.clone(), Entry { meta: meta.clone(), text: old.text });
        self.publish(by, &Change::Set(to.clone(), meta.clone()));
        Ok(meta)
    }

    fn put_prefix(
        &mut self,
        by: usize,
        prefix: &Key,
        attributes: Option<Attributes>,
    ) -> Option<Arc<Attributes>> {
        let revision = self.next();
        let attributes = attributes.map(|attributes| Arc::new(Attributes { revision, ..attributes }));
        match &attributes {
            Some(attributes) => _ = self.prefixes.insert(prefix.clone(), attributes.clone()),
            None => _ = self.prefixes.remove(prefix),
        }
        self.publish(by, &Change::Prefix(prefix.clone(), attributes.clone(), revision));
        attributes
    }

    /// Nothing is kept any more of prefixes that begin with `start`; what was.
    fn take_prefixes(&mut self, by: usize, start: &Key) -> Prefixes {
        let taken = self.prefixes.iter().filter(|(prefix, _)| prefix.as_str().starts_with(start.as_str()));
        let taken: Prefixes = taken.map(|(prefix, kept)| (prefix.clone(), kept.clone())).collect();
        for (prefix, _) in &taken {
            self.put_prefix(by, prefix, None);
        }
        taken
    }

    fn move_prefix(&mut self, by: usize, moved: &MovedPrefix) {
        self.take_prefixes(by, &moved.to);
        for (prefix, kept) in self.take_prefixes(by, &moved.from) {
            self.put_prefix(by, &moved.renamed(&prefix), Some((*kept).clone()));
        }
    }
}

/// Metadata of the next version of a key: id, attributes and creation time stay, the modification time always increases,
/// because the kernel and rsync detect a change of equal size by its time alone. A new key has the `chosen` id.
pub(super) fn successor(
    old: Option<&Meta>,
    revision: Revision,
    size: usize,
    chosen: Option<Arc<str>>,
) -> Meta {
    let now = SystemTime::now();
    let (id, created, earliest) = match old {
        Some(old) => (old.id.clone(), old.created, old.modified + std::time::Duration::from_micros(1)),
        None => (chosen.unwrap_or_else(|| uuid::Uuid::new_v4().to_string().into()), now, now),
    };
    let attributes = old.and_then(|old| old.attributes.clone());
    Meta { id, revision, size: size as u64, created, modified: now.max(earliest), attributes }
}

#[async_trait]
impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory:"
    }

    fn takes_ids(&self) -> bool {
        true
    }

    fn keeps_attributes(&self) -> bool {
        true
    }

    fn limits(&self) -> Limits {
        Limits::bytes(VALUE_LIMIT, 1 << 20)
    }

    async fn list_keys(&self) -> Result<Listing> {
        let inner = self.inner.lock();
        Ok(inner.entries.iter().map(|(key, entry)| (key.clone(), entry.meta.clone())).collect())
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        self.inner.lock().entries.get(key).cloned().ok_or(Error::NotFound)
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        self.limits().check(key, &text)?;
        let mut inner = self.inner.lock();
        inner.check(key, expect)?;
        Ok(inner.set(self.client, key, text))
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        let mut inner = self.inner.lock();
        if inner.entries.contains_key(key) {
            inner.check(key, expect)?;
        }
        inner.delete(self.client, key)
    }

    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        self.limits().check(to, &[])?;
        let mut inner = self.inner.lock();
        let old = inner.entries.get(from).ok_or(Error::NotFound)?.meta.revision;
        at.check(Some(old))?;
        inner.check(to, expect)?;
        inner.rename(self.client, from, to)
    }

    async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        Rename::check(renames)?;
        let mut inner = self.inner.lock();
        for Rename { from, to, at } in renames {
            self.limits().check_key(to)?;
            inner.check(from, Expect::At(*at))?;
            inner.check(to, Expect::Absent)?;
        }
        if let Some(moved) = prefix::moved() {
            inner.move_prefix(self.client, &moved);
        }
        renames.iter().map(|rename| inner.rename(self.client, &rename.from, &rename.to)).collect()
    }

    async fn set_attributes(&self, key: &Key, changes: &Attributes) -> Result<Meta> {
        self.inner.lock().set_attributes(self.client, key, changes)
    }

    async fn list_prefixes(&self) -> Result<Prefixes> {
        let inner = self.inner.lock();
        Ok(inner.prefixes.iter().map(|(prefix, kept)| (prefix.clone(), kept.clone())).collect())
    }

    async fn set_prefix(&self, prefix: &Key, given: &Given) -> Result<Option<Arc<Attributes>>> {
        let mut inner = self.inner.lock();
        if given.replaces {
            inner.take_prefixes(self.client, prefix);
        }
        let after = Given::after(Some(given), inner.prefixes.get(prefix), Revision::default());
        Ok(inner.put_prefix(self.client, prefix, after.map(|after| (*after).clone())))
    }

    fn changes(&self) -> Option<Feed> {
        let (sender, receiver) = feed::channel();
        self.inner.lock().feeds.push((self.client, sender));
        Some(receiver)
    }
}
