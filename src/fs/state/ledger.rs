//! What the kernel may have cached of an inode: the dentry that leads to it, its pages and its attributes.
//!
//! An inode is updated in place only while the kernel takes our word for its size, and only one invalidation of it is in
//! flight at a time: with each the kernel counts a new version of the attributes, and ignores the answers to questions that
//! it asked before.

use crate::fs::state::size::KernelSize;
use crate::fs::types::Fh;

/// The pages and attributes that the kernel may have of versions before the present one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cached {
    /// None, and no invalidation is in flight.
    #[default]
    Fresh,
    /// Some.
    Stale,
    /// Some, and an invalidation is in flight.
    Invalidating,
    /// As before, but of a version that came meanwhile it may have something afterwards.
    InvalidatingStale,
}

/// The ledger of one inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelCache {
    cached: Cached,
    /// The kernel may use the dentry that leads to it without a question.
    lasts: bool,
    /// Whether it has the size of the present version.
    pub(crate) size: KernelSize,
    /// An UNLINK, RENAME or SETATTR of it may be in flight, after which the kernel distrusts our size, or takes an older one
    /// for the newest.
    pinned: bool,
    /// An UNLINK or RENAME of it is being carried out.
    removal: bool,
}

impl KernelCache {
    /// Whether the kernel has nothing of older versions, and no invalidation is in flight.
    pub(crate) const fn is_fresh(self) -> bool {
        matches!(self.cached, Cached::Fresh)
    }

    /// Whether the inode is never updated in place.
    pub(crate) const fn is_pinned(self) -> bool {
        self.pinned
    }

    /// The inode is never updated in place from now on.
    pub(crate) const fn pin(&mut self) {
        self.pinned = true;
    }

    /// Its name is being removed or replaced.
    pub(crate) const fn begin_removal(&mut self) {
        (self.pinned, self.removal) = (true, true);
    }

    /// That has been carried out, or has failed.
    pub(crate) const fn end_removal(&mut self) {
        self.removal = false;
    }

    /// Whether its name is being removed or replaced.
    pub(crate) const fn is_being_removed(self) -> bool {
        self.removal
    }

    /// What happened to it before is over for the kernel, too: it holds the lock of the inode for a write.
    pub(crate) const fn unpin(&mut self) {
        self.pinned = false;
    }

    /// What happened to it was a RENAME over it, which is about to be answered.
    pub(crate) fn replaced(&mut self) {
        self.pinned = false;
        self.size.replaced();
    }

    /// The first answer that names the inode tells the attributes: there are none that the kernel could keep.
    pub(crate) const fn introduce(&mut self) {
        if self.is_fresh() {
            self.size.know();
        }
    }

    /// An answer tells the attributes, and that the name leads here, for longer than this once if it is `lasting`.
    pub(crate) fn tell(&mut self, lasting: bool) {
        if self.is_fresh() {
            self.size.tell();
        }
        self.lasts |= lasting;
    }

    /// A reader reads. Whether he asked before, so that the kernel certainly has the size.
    pub(crate) fn read(&mut self, fh: Fh) -> bool {
        !self.pinned && self.size.read(fh)
    }

    /// The dentry is to be dropped; whether there may be one that lasts.
    pub(crate) const fn drop_dentry(&mut self) -> bool {
        std::mem::replace(&mut self.lasts, false)
    }

    /// What the kernel has of it is of an older version from now on.
    pub(crate) const fn mark_stale(&mut self) {
        self.size.forget();
        self.cached = match self.cached {
            Cached::Fresh | Cached::Stale => Cached::Stale,
            Cached::Invalidating | Cached::InvalidatingStale => Cached::InvalidatingStale,
        };
    }

    /// Whether the caller is to make the kernel drop what it has; nobody else is until [`KernelCache::end_invalidation`].
    pub(crate) fn begin_invalidation(&mut self) -> bool {
        let begins = self.cached == Cached::Stale;
        if begins {
            self.cached = Cached::Invalidating;
        }
        begins
    }

    /// As [`KernelCache::begin_invalidation`], whoever else is at it: an inode that is being opened is known, and can be
    /// invalidated at once.
    pub(crate) fn invalidate_now(&mut self) -> bool {
        let stale = self.cached != Cached::Fresh;
        if stale {
            self.cached = Cached::Invalidating;
        }
        stale
    }

    pub(crate) fn end_invalidation(&mut self) {
        self.size.invalidated();
        self.cached = match self.cached {
            Cached::Invalidating => Cached::Fresh,
            Cached::InvalidatingStale => Cached::Stale,
            same => same,
        };
    }
}
