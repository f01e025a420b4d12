//! The filesystem: its tables, and the traits by which it sees the kernel and the store.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::RwLockReadGuard;

use crate::cache::Cache;
use crate::fs::feed::baseline::WatchBaseline;
use crate::fs::gates::Gates;
use crate::fs::hand_over::HandOver;
use crate::fs::inotify::queue::Relay;
use crate::fs::kernel::Attached;
use crate::fs::refusals::Refusals;
use crate::fs::rejected::Rejected;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::settings::Settings;
use crate::fs::state::tables::State;
use crate::store::Deadline;

/// A directory of JSON files over a cache.
pub struct Fs {
    pub(super) cache: Arc<Cache>,
    pub(super) settings: Settings,
    pub(super) state: Mutex<State>,
    pub(super) kernel: Attached,
    pub(super) rejected: Rejected,
    pub(super) refusals: Mutex<Refusals>,
    /// Wakes those who wait for a lock.
    pub(super) unlocked: tokio::sync::Notify,
    pub(super) gates: Gates,
    pub(super) hand_over: HandOver,
    pub(super) started: SystemTime,
    pub(super) relay: Relay,
    pub(super) baseline: Arc<tokio::sync::Mutex<WatchBaseline>>,
}

impl Fs {
    /// The directory of the keys in `cache`. Start [`Fs::follow`] and [`Fs::tend`] beside it.
    pub fn new(cache: Arc<Cache>, settings: Settings) -> Arc<Self> {
        let rejected = Rejected::new(settings.rejected.clone(), cache.name());
        Arc::new(Self {
            state: Mutex::new(State::new(settings.clock.clone(), cache.takes_ids())),
            cache,
            kernel: Attached::default(),
            rejected,
            refusals: Mutex::default(),
            unlocked: tokio::sync::Notify::new(),
            gates: Gates::default(),
            hand_over: HandOver::default(),
            started: settings.clock.now(),
            settings,
            relay: Relay::default(),
            baseline: Arc::default(),
        })
    }

    /// The cache behind.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Whether every change is refused.
    pub const fn is_read_only(&self) -> bool {
        self.settings.read_only
    }

    /// The deadline of a message that arrives now, or of background work that begins now.
    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.settings.timeout)
    }

    /// Keeps directories from being renamed until it is dropped. To be taken before the gates.
    pub(crate) async fn stay(&self) -> FsResult<RwLockReadGuard<'_, ()>> {
        Ok(Deadline::wait(self.gates.stay()).await?)
    }

    pub(crate) fn writable(&self) -> FsResult<()> {
        if self.settings.read_only { Err(FsError::ReadOnly) } else { Ok(()) }
    }
}

#[cfg(test)]
use crate::store::Change;

#[cfg(test)]
impl Fs {
    /// A mount of a store that tells of its changes, without options and without a kernel, and a second client of the store.
    pub(crate) fn in_memory(max_age: std::time::Duration) -> (Arc<Self>, crate::store::MemoryStore) {
        let store = crate::store::MemoryStore::new();
        let elsewhere = store.second_client();
        let bounds = crate::cache::Settings {
            entries: std::num::NonZeroUsize::MIN.saturating_add(99),
            bytes: 1 << 20,
            max_age,
            max_stale: std::time::Duration::ZERO,
        };
        let cache = Arc::new(Cache::new(Arc::new(store), bounds));
        cache.apply(vec![Change::Resumed]);
        (Self::new(cache, Settings::plain()), elsewhere)
    }

    /// The store tells of a change.
    pub(crate) async fn take_in(self: &Arc<Self>, change: Change) {
        for news in self.cache.apply(vec![change]) {
            self.show(news).await;
        }
    }
}
