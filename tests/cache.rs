//! What the cache remembers and for how long, and how a store is kept from hanging.
#![allow(missing_docs, clippy::unwrap_used)]

mod deferred;
mod double;
mod feed;
mod flights;
mod full;
mod guarded;
mod in_flight;
mod listing;
mod memory;
mod outage;
mod pushed;
mod refused;
mod shown;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use kvfs::cache::{Cache, Lookup, Settings};
use kvfs::store::{Counted, Counters, Error, Expect, Key, Meta, Result, Revision, Store};

use double::Double;

/// A test that hangs is ended after this long; nothing here measures time.
const PATIENCE: Duration = crate::common::PATIENCE;
const HOUR: Duration = Duration::from_hours(1);

/// Room for everything, answers good for an hour, last known values too.
fn roomy() -> Settings {
    Settings { entries: NonZeroUsize::new(1_000).unwrap(), bytes: 1 << 20, max_age: HOUR, max_stale: HOUR }
}

/// Answers that are old at once.
fn forgetful() -> Settings {
    Settings { max_age: Duration::ZERO, ..roomy() }
}

/// What is known of a key without asking the store.
#[derive(Debug, PartialEq, Eq)]
enum Remembered {
    Nothing,
    Absence,
    Value(String),
}

/// A cache before a store that can be made to fail.
#[derive(Clone)]
struct Bench {
    cache: Arc<Cache>,
    double: Arc<Double>,
    counters: Arc<Counters>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let (double, counters) = (Arc::new(Double::default()), Arc::new(Counters::default()));
        let counted = Counted::new(double.clone(), counters.clone());
        Self { cache: Arc::new(Cache::new(Arc::new(counted), settings)), double, counters }
    }

    /// How often the store was asked for `method`.
    fn calls(&self, method: &str) -> u64 {
        self.counters.snapshot()[method]
    }

    fn gets(&self) -> u64 {
        self.calls("get_key_value")
    }

    async fn get(&self, key: &str) -> Result<Lookup> {
        self.cache.get_key_value(&Key::from(key)).await
    }

    /// The value of `key` as text; `None` if it is told to be absent.
    async fn text(&self, key: &str) -> Option<String> {
        text(&self.get(key).await.unwrap())
    }

    fn remembered(&self, key: &str) -> Remembered {
        match self.cache.peek(&Key::from(key)).map(|answer| text(&answer)) {
            Some(Some(value)) => Remembered::Value(value),
            Some(None) => Remembered::Absence,
            None => Remembered::Nothing,
        }
    }

    async fn set(&self, key: &str, value: &str) -> Result<Meta> {
        self.cache.set_key_value(&Key::from(key), Arc::from(value.as_bytes()), Expect::Anything).await
    }

    /// Somebody else sets `key`.
    async fn set_elsewhere(&self, key: &str, value: &str) -> Meta {
        let text = Arc::from(value.as_bytes());
        self.double.store.set_key_value(&Key::from(key), text, Expect::Anything).await.unwrap()
    }

    async fn delete(&self, key: &str) -> Result<Revision> {
        self.cache.delete_key(&Key::from(key), Expect::Anything).await
    }

    /// Somebody else deletes `key`.
    async fn delete_elsewhere(&self, key: &str) -> Revision {
        self.double.store.delete_key(&Key::from(key), Expect::Anything).await.unwrap()
    }

    async fn listed(&self) -> Vec<String> {
        let answer = self.cache.list_keys().await.unwrap();
        answer.value.iter().map(|(key, _)| key.as_str().to_owned()).collect()
    }
}

fn text(answer: &Lookup) -> Option<String> {
    answer.value.as_ref().map(|entry| String::from_utf8(entry.text.to_vec()).unwrap())
}

fn down() -> Error {
    Error::Unreachable("no route".into())
}

/// Runs `test` on one thread, so that it decides who is polled when.
fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("every call comes to an end") })
}
