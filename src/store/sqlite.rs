//! The embedded store: one SQLite file, durable at return, shared by any number of processes on one machine.
//!
//! The writer commits its queue as one transaction (group commit); readers take a connection from a pool; one watcher thread
//! reads the changes of other processes from the `change` table.

mod access;
mod files;
mod index;
mod open_files;
mod pool;
mod prefixes;
mod recovery;
mod schema;
mod space;
mod uri;
mod watcher;
mod write_monitor;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use self::pool::Pool;
use self::writer::Writer;
use super::{
    Attributes, Entry, Expect, Feed, FeedSender, Given, Key, Limits, Listing, Meta, Prefixes, Rename, Result,
    Revision, Space, Store, Text, VALUE_LIMIT, attributes, new_id, prefix,
};

/// Limit of reads in flight.
const READERS: usize = 32;

/// The store in one SQLite file.
pub struct SqliteStore {
    name: String,
    pool: Arc<Pool>,
    writer: Writer,
    /// Limits the connections of readers, for each takes file descriptors.
    readers: Semaphore,
    watchers: Mutex<Vec<Watcher>>,
}

/// The thread behind a feed.
struct Watcher {
    thread: Option<JoinHandle<()>>,
    /// Keeps the feed open until the store is dropped, also after [`Store::close`].
    _feed: FeedSender,
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        Store::close(self);
    }
}

impl SqliteStore {
    /// Opens or creates the database at `path` and its directory. Waits up to `timeout` for a lock of another process. The
    /// error is one line for a person.
    pub fn open(path: &Path, timeout: Duration) -> std::result::Result<Self, String> {
        let pool = Arc::new(Pool::open(path, timeout * 3 / 4)?);
        let writer = Writer::new(pool.clone(), timeout);
        Ok(Self {
            name: format!("sqlite:{}", path.display()),
            pool,
            writer,
            readers: Semaphore::new(READERS),
            watchers: Mutex::default(),
        })
    }

    /// Runs `query` on a pooled connection.
    async fn read<T>(&self, query: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let _one_of_few = self.readers.acquire().await;
        leave_thread().await;
        blocking(|| self.pool.with(query))
    }
}

/// Continues in a task, for the thread of the first poll may be the one that reads the kernel's messages.
async fn leave_thread() {
    tokio::task::yield_now().await;
}

/// Runs `work`, which may wait for the disk, without blocking other tasks. Cheaper than `spawn_blocking`, which switches threads
/// twice.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The write-ahead log of the database at `path`.
fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

#[async_trait]
impl Store for SqliteStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn takes_ids(&self) -> bool {
        true
    }

    fn keeps_attributes(&self) -> bool {
        true
    }

    fn limits(&self) -> Limits {
        Limits::bytes(VALUE_LIMIT, 64 << 10)
    }

    async fn list_keys(&self) -> Result<Listing> {
        self.read(schema::list).await
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        self.read(|db| schema::get(db, key)).await?
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        self.limits().check(key, &text)?;
        let (key, chosen, given) = (key.clone(), new_id::chosen(), attributes::given());
        self.writer
            .run(true, move |db| schema::set(db, &key, &text, expect, (chosen.as_ref(), given.as_ref())))
            .await
    }

    async fn set_attributes(&self, key: &Key, changes: &Attributes) -> Result<Meta> {
        let (key, changes) = (key.clone(), changes.clone());
        self.writer.run(true, move |db| schema::set_attributes(db, &key, &changes)).await
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        let key = key.clone();
        self.writer.run(false, move |db| schema::delete(db, &key, expect)).await
    }

    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        self.limits().check(to, &[])?;
        let (from, to) = (from.clone(), to.clone());
        self.writer.run(false, move |db| schema::rename(db, &from, &to, at, expect)).await
    }

    async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        Rename::check(renames)?;
        renames.iter().try_for_each(|rename| self.limits().check_key(&rename.to))?;
        let (renames, moved) = (renames.to_vec(), prefix::moved());
        self.writer
            .run(false, move |db| {
                let metas = schema::rename_all(db, &renames)?;
                moved.iter().try_for_each(|moved| prefixes::moved(db, moved))?;
                Ok(metas)
            })
            .await
    }

    async fn list_prefixes(&self) -> Result<Prefixes> {
        self.read(|db| prefixes::list(db, "")).await
    }

    async fn set_prefix(&self, prefix: &Key, given: &Given) -> Result<Option<Arc<Attributes>>> {
        let (prefix, given) = (prefix.clone(), given.clone());
        let takes_room = !given.attributes.are_none();
        self.writer.run(takes_room, move |db| prefixes::set(db, &prefix, &given)).await
    }

    fn read_only(&self) -> Option<String> {
        self.pool.read_only().map(str::to_owned)
    }

    fn space(&self) -> Option<Space> {
        space::space(self.pool.path())
    }

    fn changes(&self) -> Option<Feed> {
        if self.pool.is_alone() {
            return None;
        }
        let (feed, sender, thread) =
            watcher::start(&self.pool).map_err(|error| tracing::warn!("no change feed: {error}")).ok()?;
        self.watchers.lock().push(Watcher { thread: Some(thread), _feed: sender });
        Some(feed)
    }

    /// The last process that closes a database checkpoints its log.
    fn close(&self) {
        if self.pool.begin_close() {
            return;
        }
        // Wakes the watchers.
        _ = crate::sys::touch_path(&log_of(self.pool.path()));
        for thread in self.watchers.lock().iter_mut().filter_map(|watcher| watcher.thread.take()) {
            _ = thread.join();
        }
        self.pool.close();
    }
}
