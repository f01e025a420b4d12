//! The way to the kernel's caches.

use std::sync::OnceLock;

use tokio::sync::{Notify, oneshot};

use crate::fs::state::invalidation::Invalidation;
use crate::fs::types::Ino;

/// The way to the kernel's caches.
pub trait Kernel: Send + Sync {
    /// Whether it can drop all names at once.
    fn can_invalidate_all(&self) -> bool;

    /// Passes notices on, which are taken in one after the other; the receiver resolves when these have been.
    fn invalidate(&self, invalidations: Vec<Invalidation>) -> oneshot::Receiver<()>;

    /// Makes the kernel drop pages and attributes of an inode, on the caller's thread; false if it does not know it. The
    /// kernel waits for reads of the inode that are under way, so this must not be the thread that answers them.
    fn invalidate_inode(&self, ino: Ino) -> bool;

    /// Makes the kernel drop the attributes of an inode, and no pages, on the caller's thread and whatever is locked.
    fn expire_attributes(&self, ino: Ino);

    /// Makes the kernel drop all names, on the caller's thread and whatever is locked. Only for one that
    /// [can](Self::can_invalidate_all).
    fn invalidate_all(&self);
}

/// The kernel that a mount is attached to, once it is.
#[derive(Default)]
pub(super) struct Attached {
    kernel: OnceLock<Box<dyn Kernel>>,
    /// Number of the device that the mount is.
    pub(super) device: OnceLock<u64>,
    /// Wakes those who wait until the kernel has dropped an older version.
    pub(super) dropped: Notify,
}

impl Attached {
    /// The kernel. Before the mount is attached there is none, and nothing to drop.
    pub(super) fn get(&self) -> Option<&dyn Kernel> {
        self.kernel.get().map(AsRef::as_ref)
    }

    pub(super) fn set(&self, kernel: Box<dyn Kernel>) {
        _ = self.kernel.set(kernel);
    }
}
