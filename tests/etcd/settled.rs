//! A store whose feed begins once it tells of changes: until then it says only that it does not yet.

use std::sync::Arc;

use async_trait::async_trait;
use kvfs::store::{
    Change, Entry, Expect, Feed, Key, Limits, Listing, Meta, Rename, Result, Revision, Store, Text,
};
use tokio::runtime::Handle;

pub(super) struct Settled(pub(super) Arc<dyn Store>);

#[async_trait]
impl Store for Settled {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn check(&self, key: &Key, text: &[u8]) -> Result<()> {
        self.0.check(key, text)
    }

    async fn list_keys(&self) -> Result<Listing> {
        self.0.list_keys().await
    }

    async fn list_entries(&self) -> Result<(Listing, Vec<Text>)> {
        self.0.list_entries().await
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        self.0.get_key_value(key).await
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        self.0.set_key_value(key, text, expect).await
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        self.0.delete_key(key, expect).await
    }

    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        self.0.rename_key(from, to, at, expect).await
    }

    async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        self.0.rename_keys(renames).await
    }

    fn changes(&self) -> Option<Feed> {
        let mut feed = self.0.changes()?;
        let begun = async {
            assert_eq!(feed.recv().await, Some(Change::Paused));
            assert_eq!(feed.recv().await, Some(Change::Everything));
        };
        tokio::task::block_in_place(|| Handle::current().block_on(begun));
        Some(feed)
    }
}
