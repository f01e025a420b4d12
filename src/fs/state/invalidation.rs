//! What the kernel must drop from its caches.

use crate::fs::rules::names::parent;
use crate::fs::types::Ino;

/// What the kernel must drop from its caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Pages and attributes of an inode. Where the kernel does not know it, the answer that tells of it may be on the way:
    /// then the name in the directory that led to it must be dropped too, which waits for the answer, and then the inode.
    Inode(Ino, Option<(Ino, String)>),
    /// A name in a directory, also one known to be absent.
    Entry(Ino, String),
    /// The name of a directory: it is looked up again, and if it leads to the same inode it is what it was for those who are
    /// in there.
    Expired(Ino, String),
    /// All names. Only for a kernel that [can](Kernel::can_invalidate_all).
    Everything,
}

/// As [`Invalidation`], by paths, of which the kernel may know some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathInvalidation {
    /// What it knows of older versions of an inode.
    Inode(Ino),
    /// A file or directory.
    Entry(String),
    /// What a directory lists.
    Listing(String),
    Everything,
}

impl PathInvalidation {
    /// The name at `path` comes, goes, or means something else: what the kernel must drop.
    pub(crate) fn of_name(path: &str) -> Vec<Self> {
        vec![Self::Entry(path.to_owned()), Self::Listing(parent(path).to_owned())]
    }
}
