//! A store that fails, hangs and answers late when told to.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use kvfs::store::{
    Entry, Error, Expect, Feed, Key, Limits, Listing, MemoryStore, Meta, Result, Revision, Store, Text,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// When a call is held up: before the store has looked, or when its answer is on the way.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum When {
    Before,
    After,
}

type Place = (&'static str, String, When);

#[derive(Default)]
pub(crate) struct Double {
    pub(crate) store: MemoryStore,
    failure: Mutex<Option<Error>>,
    holds: Mutex<HashMap<Place, Arc<Hold>>>,
    /// While this is locked, calls block their threads.
    pub(crate) disk: Mutex<()>,
    /// A listing brings the values along.
    pub(crate) lists_texts: AtomicBool,
    /// Its feed, if it has one.
    pub(crate) feed: Mutex<Option<Feed>>,
    /// The value that it has told of along with this version.
    pub(crate) told: Mutex<Option<(Revision, Text)>>,
}

/// Calls that wait for each other end here.
pub(crate) struct Hold {
    arrived: Semaphore,
    open: Semaphore,
}

impl Hold {
    /// Waits until one more call has come this far.
    pub(crate) async fn reached(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    /// Lets those that wait go on, and all that come later.
    pub(crate) fn release(&self) {
        self.open.close();
    }
}

impl Double {
    /// From now on each call fails with `error`, if any.
    pub(crate) fn fail(&self, error: impl Into<Option<Error>>) {
        *self.failure.lock() = error.into();
    }

    /// Holds up the calls of `method` about `key` until released.
    pub(crate) fn hold(&self, method: &'static str, key: &str, when: When) -> Arc<Hold> {
        let hold = Arc::new(Hold { arrived: Semaphore::new(0), open: Semaphore::new(0) });
        self.holds.lock().insert((method, key.to_owned(), when), hold.clone());
        hold
    }

    async fn call<T>(
        &self,
        method: &'static str,
        key: &str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if self.disk.is_locked() {
            tokio::task::yield_now().await;
            tokio::task::block_in_place(|| drop(self.disk.lock()));
        }
        self.pass(method, key, When::Before).await;
        let failure = self.failure.lock().clone();
        let result = match failure {
            Some(error) => Err(error),
            None => call.await,
        };
        self.pass(method, key, When::After).await;
        result
    }

    async fn pass(&self, method: &'static str, key: &str, when: When) {
        let hold = self.holds.lock().get(&(method, key.to_owned(), when)).cloned();
        if let Some(hold) = hold {
            hold.arrived.add_permits(1);
            // Closed means released.
            _ = hold.open.acquire().await;
        }
    }
}

#[async_trait]
impl Store for Double {
    fn name(&self) -> &'static str {
        "double:"
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }

    async fn list_keys(&self) -> Result<Listing> {
        self.call("list_keys", "", self.store.list_keys()).await
    }

    async fn list_entries(&self) -> Result<(Listing, Vec<Text>)> {
        let entries = async {
            let (listing, mut texts) = (self.store.list_keys().await?, Vec::new());
            for (key, _) in listing.iter().filter(|_| self.lists_texts.load(Ordering::Relaxed)) {
                texts.push(self.store.get_key_value(key).await?.text);
            }
            Ok((listing, texts))
        };
        self.call("list_keys", "", entries).await
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        self.call("get_key_value", key.as_str(), self.store.get_key_value(key)).await
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        self.call("set_key_value", key.as_str(), self.store.set_key_value(key, text, expect)).await
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        self.call("delete_key", key.as_str(), self.store.delete_key(key, expect)).await
    }

    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        self.call("rename_key", from.as_str(), self.store.rename_key(from, to, at, expect)).await
    }

    fn take_pushed_value(&self, _: &Key, revision: Revision) -> Option<Text> {
        self.told.lock().take_if(|(told, _)| *told == revision).map(|(_, text)| text)
    }

    fn changes(&self) -> Option<Feed> {
        self.feed.lock().take()
    }
}
