//! A store that counts the calls to the store behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Attributes, Entry, Expect, Feed, Given, Key, Limits, Listing, Meta, Prefixes, Rename, Result, Revision,
    Space, Store, Text,
};

/// The methods of [`Store`] that may cost a request.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// `list_keys`
    List,
    /// `get_key_value`
    Get,
    /// `set_key_value`
    Set,
    /// `delete_key`
    Delete,
    /// `rename_key`
    Rename,
    /// `rename_keys`
    RenameKeys,
    /// `set_attributes`
    SetAttributes,
    /// `list_prefixes`
    ListPrefixes,
    /// `set_prefix`
    SetPrefix,
    /// `get_tags`
    GetTags,
    /// `set_tags`
    SetTags,
    /// `get_ttl`
    GetTtl,
}

const NAMES: [&str; 12] = [
    "list_keys",
    "get_key_value",
    "set_key_value",
    "delete_key",
    "rename_key",
    "rename_keys",
    "set_attributes",
    "list_prefixes",
    "set_prefix",
    "get_tags",
    "set_tags",
    "get_ttl",
];

/// How often each [`Call`] was made.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; NAMES.len()]);

impl Counters {
    fn add(&self, call: Call) {
        self.0[call as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts by method name.
    pub fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        NAMES.iter().zip(&self.0).map(|(name, count)| (*name, count.load(Ordering::Relaxed))).collect()
    }
}

/// A store that counts the calls to the store behind it.
pub struct Counted {
    inner: Arc<dyn Store>,
    counters: Arc<Counters>,
}

impl Counted {
    /// Wraps `inner`; the counts go to `counters`.
    pub fn new(inner: Arc<dyn Store>, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

#[async_trait]
impl Store for Counted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn takes_ids(&self) -> bool {
        self.inner.takes_ids()
    }

    fn keeps_attributes(&self) -> bool {
        self.inner.keeps_attributes()
    }

    fn check(&self, key: &Key, text: &[u8]) -> Result<()> {
        self.inner.check(key, text)
    }

    fn read_only(&self) -> Option<String> {
        self.inner.read_only()
    }

    fn space(&self) -> Option<Space> {
        self.inner.space()
    }

    async fn list_keys(&self) -> Result<Listing> {
        self.counters.add(Call::List);
        self.inner.list_keys().await
    }

    async fn list_entries(&self) -> Result<(Listing, Vec<Text>)> {
        self.counters.add(Call::List);
        self.inner.list_entries().await
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        self.counters.add(Call::Get);
        self.inner.get_key_value(key).await
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        self.counters.add(Call::Set);
        self.inner.set_key_value(key, text, expect).await
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        self.counters.add(Call::Delete);
        self.inner.delete_key(key, expect).await
    }

    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        self.counters.add(Call::Rename);
        self.inner.rename_key(from, to, at, expect).await
    }

    async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        self.counters.add(Call::RenameKeys);
        self.inner.rename_keys(renames).await
    }

    async fn set_attributes(&self, key: &Key, changes: &Attributes) -> Result<Meta> {
        self.counters.add(Call::SetAttributes);
        self.inner.set_attributes(key, changes).await
    }

    async fn list_prefixes(&self) -> Result<Prefixes> {
        self.counters.add(Call::ListPrefixes);
        self.inner.list_prefixes().await
    }

    async fn set_prefix(&self, prefix: &Key, given: &Given) -> Result<Option<Arc<Attributes>>> {
        self.counters.add(Call::SetPrefix);
        self.inner.set_prefix(prefix, given).await
    }

    async fn get_tags(&self, key: &Key) -> Result<Vec<String>> {
        self.counters.add(Call::GetTags);
        self.inner.get_tags(key).await
    }

    async fn set_tags(&self, key: &Key, tags: &[String]) -> Result<()> {
        self.counters.add(Call::SetTags);
        self.inner.set_tags(key, tags).await
    }

    async fn get_ttl(&self, key: &Key) -> Result<Option<Duration>> {
        self.counters.add(Call::GetTtl);
        self.inner.get_ttl(key).await
    }

    async fn count_left_out(&self, start: &Key) -> Result<usize> {
        self.inner.count_left_out(start).await
    }

    fn take_pushed_value(&self, key: &Key, revision: Revision) -> Option<Text> {
        self.inner.take_pushed_value(key, revision)
    }

    fn changes(&self) -> Option<Feed> {
        self.inner.changes()
    }

    async fn renew_credentials(&self) {
        self.inner.renew_credentials().await;
    }

    fn close(&self) {
        self.inner.close();
    }
}
