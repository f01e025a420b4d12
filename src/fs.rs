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
mod inodes;
mod listing;
pub mod locks;
mod lookup;
pub mod names;
mod open;
mod publish;
mod redirects;
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
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use error::{FsError, FsResult};
pub use inodes::{Fh, Ino, ROOT};
pub use listing::{Directory, Item};
pub use lookup::Found;
pub use open::{Access, Opened};
pub use setattr::Changes;
pub use xattrs::LastError;

use self::aside::Aside;
use self::document::Validate;
use self::inodes::State;
use self::names::Names;
use self::scratch::Patterns;
use crate::cache::Cache;

/// How long a caller waits for the kernel to take a notice in, before it is answered without.
const SETTLE: Duration = Duration::from_secs(1);

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

/// What the kernel must drop from its caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Pages and attributes of an inode. Where the kernel does not know it, the answer that tells of it may be on the way:
    /// then the name in the directory that led to it must be dropped too, which waits for the answer, and then the inode.
    Inode(Ino, Option<(Ino, String)>),
    /// A name in a directory, also one known to be absent.
    Entry(Ino, String),
    /// All names. Only for a kernel that [can](Kernel::drops_everything).
    Everything,
}

/// As [`Drop`], by paths, of which the kernel may know some.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Notice {
    Inode(Ino),
    /// A file or directory.
    Entry(String),
    /// What a directory lists.
    Listing(String),
    Everything,
}

impl Notice {
    /// The name at `path` comes, goes, or means something else: what the kernel must drop.
    fn of_name(path: &str) -> Vec<Self> {
        vec![Self::Entry(path.to_owned()), Self::Listing(names::parent(path).to_owned())]
    }
}

/// The way to the kernel's caches. Notices are taken in one after the other.
pub trait Kernel: Send + Sync {
    /// Whether it can drop all names at once.
    fn drops_everything(&self) -> bool;

    /// Passes notices on; the receiver resolves when the kernel has taken them in.
    fn tell(&self, drops: Vec<Drop>) -> oneshot::Receiver<()>;

    /// Makes the kernel drop pages and attributes of an inode, on the caller's thread; false if it does not know it. The
    /// kernel waits for reads of the inode that are under way, so this must not be the thread that answers them.
    fn drop_inode(&self, ino: Ino) -> bool;
}

/// A directory of JSON files over a cache.
pub struct Fs {
    cache: Arc<Cache>,
    settings: Settings,
    state: Mutex<State>,
    kernel: OnceLock<Box<dyn Kernel>>,
    aside: Aside,
    last_error: Mutex<Option<LastError>>,
    /// Wakes those who wait for a lock.
    unlocked: tokio::sync::Notify,
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
            last_error: Mutex::new(None),
            unlocked: tokio::sync::Notify::new(),
            moving: tokio::sync::RwLock::default(),
            started: SystemTime::now(),
            herald: herald::Herald::default(),
            looked: Arc::default(),
        })
    }

    /// Tells where notices go. Before that there is no kernel and none are needed.
    pub fn attach(&self, kernel: Box<dyn Kernel>) {
        _ = self.kernel.set(kernel);
    }

    /// The cache behind.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Whether the kernel can drop all names at once, those known to be absent included, of which nobody keeps a list.
    fn drops_everything(&self) -> bool {
        self.kernel.get().is_none_or(|kernel| kernel.drops_everything())
    }

    /// Sends notices and does not wait: for handlers during which the kernel holds the directory's lock.
    fn notify(&self, notices: Vec<Notice>) -> Option<oneshot::Receiver<()>> {
        let kernel = self.kernel.get()?;
        let drops: Vec<Drop> = {
            let state = self.state.lock();
            let has_directories = self.settings.names.has_directories();
            notices.into_iter().flat_map(|notice| state.addressed(notice, has_directories)).collect()
        };
        (!drops.is_empty()).then(|| kernel.tell(drops))
    }

    /// Sends notices and waits until the kernel took them in, so that who is answered next finds the new state.
    /// Never called while the kernel holds the directory's lock for the same request: that would be a deadlock.
    async fn settle(self: &Arc<Self>, notices: Vec<Notice>) {
        let inodes: Vec<Ino> = notices
            .iter()
            .filter_map(|notice| if let Notice::Inode(ino) = notice { Some(*ino) } else { None })
            .collect();
        // A notice about an inode alone waits for no lock of the directory. On the runtime it is sent at once; a
        // hand-over to the notifier's thread and back would cost more than the notice.
        if inodes.len() == notices.len() && self.drop_at_once(&inodes) {
            return self.settled(&inodes);
        }
        let done = self.notify(notices);
        if let Some(mut done) = done
            && tokio::time::timeout(SETTLE, &mut done).await.is_err()
        {
            let fs = self.clone();
            tokio::spawn(async move {
                _ = done.await;
                fs.settled(&inodes);
            });
            return;
        }
        self.settled(&inodes);
    }

    /// Makes the kernel drop what it knows of an inode, for an open that waits for that. Unlike [`Fs::settle`] it
    /// counts for nobody else: two opens that waited for each other's notices would never end. False if the kernel
    /// did not take it in within [`SETTLE`].
    async fn drop_for_open(&self, ino: Ino) -> bool {
        if self.drop_at_once(&[ino]) {
            return true;
        }
        match self.notify(vec![Notice::Inode(ino)]) {
            Some(done) => tokio::time::timeout(SETTLE, done).await.is_ok(),
            None => true,
        }
    }

    /// Makes the kernel drop what it knows of these inodes, on this thread; false where that must be left to the
    /// notifier: on fuser's own thread, and where the kernel does not know one yet.
    fn drop_at_once(&self, inodes: &[Ino]) -> bool {
        let may = tokio::task::try_id().is_some();
        let all_known = |kernel: &dyn Kernel| inodes.iter().all(|ino| kernel.drop_inode(*ino));
        may && self.kernel.get().is_none_or(|kernel| all_known(&**kernel))
    }

    /// As [`Fs::settle`], for a request during which the kernel may hold the directory's lock.
    fn settle_later(self: &Arc<Self>, notices: Vec<Notice>) {
        if !notices.is_empty() {
            let fs = self.clone();
            tokio::spawn(async move { fs.settle(notices).await });
        }
    }

    fn settled(&self, inodes: &[Ino]) {
        let mut state = self.state.lock();
        for ino in inodes {
            if let Some(inode) = state.inodes.get_mut(ino) {
                inode.stale = inode.stale.saturating_sub(1);
            }
        }
    }

    fn writable(&self) -> FsResult<()> {
        if self.settings.read_only { Err(FsError::ReadOnly) } else { Ok(()) }
    }
}
