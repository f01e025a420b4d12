//! What a directory of JSON files means, with no kernel and no store in sight.
//!
//! An inode is one version of a key, and immutable from outside while somebody holds it open; a writer gets an
//! inode of its own (`docs/semantics.md`, rules 3 and 4). So readers never see a draft, and the kernel may cache
//! whatever it was told. All tables are in [`inodes::State`] behind one mutex. Lock order: `moving`, a draft's gate, then
//! the state, then the cache's own lock; the state is never held across an await.

pub mod aside;
mod changes;
mod create;
pub mod document;
mod drafts;
mod error;
mod folders;
pub mod herald;
mod hidden;
mod inodes;
mod kernel;
mod listing;
pub mod locks;
mod lookup;
pub mod names;
mod open;
mod publish;
mod redirects;
mod refusals;
mod release;
mod rename;
mod rename_directory;
pub mod scratch;
mod setattr;
mod tree;
mod unlink;
mod versions;
mod waiting;
mod watched;
mod xattrs;

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;

pub use error::{FsError, FsResult};
pub use inodes::{Fh, Ino, ROOT};
pub use kernel::{Drop, Kernel};
pub use listing::{Directory, Item};
pub use lookup::Found;
pub use open::{Access, Opened};
pub use refusals::{Kept, Refusal};
pub use setattr::Changes;

use self::aside::Aside;
use self::document::Validate;
use self::inodes::State;
use self::kernel::Notice;
use self::names::Names;
use self::refusals::Refusals;
use self::scratch::Patterns;
use crate::cache::Cache;

/// Settings of a mount that concern files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Refuse every change with `EROFS`.
    pub read_only: bool,
    /// Owner of files nobody chowned.
    pub uid: u32,
    /// Group of files nobody chowned.
    pub gid: u32,
    /// Permission bits taken away from 0666 and 0777.
    pub umask: u32,
    /// Which bytes are a value.
    pub validate: Validate,
    /// How keys are called.
    pub names: Names,
    /// Which names are scratch files.
    pub scratch: Patterns,
    /// Where rejected content is kept.
    pub aside: std::path::PathBuf,
}

#[cfg(test)]
impl Fs {
    /// A mount of a store that tells of its changes, without options and without a kernel, and another door to the store.
    pub(crate) fn in_memory(max_age: std::time::Duration) -> (Arc<Self>, crate::store::MemoryStore) {
        let store = crate::store::MemoryStore::new();
        let elsewhere = store.another_door();
        let bounds = crate::cache::Settings {
            entries: std::num::NonZeroUsize::MIN.saturating_add(99),
            bytes: 1000,
            max_age,
            max_stale: std::time::Duration::ZERO,
        };
        let cache = Arc::new(Cache::new(Arc::new(store), bounds));
        cache.set_pushed(true);
        (Self::new(cache, Settings::plain()), elsewhere)
    }
}

#[cfg(test)]
impl Settings {
    /// Those of a mount without options, as root has it.
    pub(crate) fn plain() -> Self {
        Self {
            read_only: false,
            uid: 0,
            gid: 0,
            umask: 0,
            validate: Validate::Json,
            names: Names::default(),
            scratch: Patterns::new(&[]).unwrap_or_else(|why| panic!("{why}")),
            aside: std::path::PathBuf::new(),
        }
    }
}

/// Attributes of a file or of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode by which the kernel names the file.
    pub ino: Ino,
    /// Inode number that programs see: a writer's own inode shows that of the key, because editors check that they
    /// opened the file they looked at.
    pub number: Ino,
    /// True for the directory.
    pub directory: bool,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Links; 0 for a removed file that is still open.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access, as utimes(2) set it.
    pub accessed: SystemTime,
    /// Last change of the content.
    pub modified: SystemTime,
    /// Last change of content or attributes.
    pub changed: SystemTime,
    /// When the key was first set.
    pub created: SystemTime,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Thread id, 0 if unknown.
    pub thread: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A directory of JSON files over a cache.
pub struct Fs {
    cache: Arc<Cache>,
    settings: Settings,
    state: Mutex<State>,
    kernel: OnceLock<Box<dyn Kernel>>,
    aside: Aside,
    refusals: Mutex<Refusals>,
    /// Wakes those who wait for a lock.
    unlocked: tokio::sync::Notify,
    /// Wakes those who wait until the kernel has dropped an older version.
    dropped: tokio::sync::Notify,
    /// Held for writing while a directory is renamed, for reading while the key of a file in one is changed. Comes before
    /// the gates.
    moving: tokio::sync::RwLock<()>,
    started: SystemTime,
    herald: herald::Herald,
    looked: Arc<tokio::sync::Mutex<watched::Looked>>,
}

impl Fs {
    /// The directory of the keys in `cache`. Start [`Fs::follow_changes`] and [`Fs::tend`] beside it.
    pub fn new(cache: Arc<Cache>, settings: Settings) -> Arc<Self> {
        let aside = Aside::new(settings.aside.clone());
        Arc::new(Self {
            cache,
            settings,
            state: Mutex::new(State::new()),
            kernel: OnceLock::new(),
            aside,
            refusals: Mutex::default(),
            unlocked: tokio::sync::Notify::new(),
            dropped: tokio::sync::Notify::new(),
            moving: tokio::sync::RwLock::default(),
            started: SystemTime::now(),
            herald: herald::Herald::default(),
            looked: Arc::default(),
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

    fn writable(&self) -> FsResult<()> {
        if self.settings.read_only { Err(FsError::ReadOnly) } else { Ok(()) }
    }
}
