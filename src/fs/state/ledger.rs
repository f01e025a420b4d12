//! What the kernel may have cached of an inode.

use crate::fs::state::nodes::Inode;
use crate::fs::state::tables::State;
use crate::fs::types::Ino;

/// Pages and attributes that the kernel may know of versions of an inode before the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelCache {
    /// None, and no notice about the inode is under way.
    Fresh,
    /// Some.
    Stale,
    /// Some, and it is being told to drop them.
    Invalidating,
    /// As before, but of a version that came meanwhile it may know something afterwards.
    InvalidatingStale,
}

impl Inode {
    /// Whether the kernel knows nothing of older versions, and no notice about the inode is under way.
    pub(crate) fn is_fresh(&self) -> bool {
        self.cached == KernelCache::Fresh
    }

    /// What the kernel knows of the inode is of an older version from now on.
    pub(crate) fn mark_stale(&mut self) {
        self.cached = match self.cached {
            KernelCache::Fresh | KernelCache::Stale => KernelCache::Stale,
            KernelCache::Invalidating | KernelCache::InvalidatingStale => KernelCache::InvalidatingStale,
        };
    }
}

impl State {
    /// Whether the caller is to make the kernel drop older versions of an inode.
    pub(crate) fn begin_invalidation(&mut self, ino: Ino) -> bool {
        let stale = self.inodes.get_mut(&ino).filter(|inode| inode.cached == KernelCache::Stale);
        stale.is_some_and(|inode| {
            inode.cached = KernelCache::Invalidating;
            true
        })
    }

    pub(crate) fn end_invalidation(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.cached = match inode.cached {
                KernelCache::Invalidating => KernelCache::Fresh,
                KernelCache::InvalidatingStale => KernelCache::Stale,
                same => same,
            };
        }
    }
}
