//! Keys that were renamed to backup names.

use std::time::Duration;

use tokio::time::Instant;

use crate::fs::types::Ino;
use crate::store::{Key, Meta};

/// How long the rename of a key to a backup name is deferred while the renaming process lives on.
const SUCCESSION: Duration = Duration::from_secs(2);

/// A key that was renamed to a backup name, and still has its old name in the store: until the process that renamed it has
/// published a successor, or none is to be expected any more.
#[derive(Clone, Debug)]
pub(crate) struct DeferredRename {
    /// The name it was renamed to.
    pub(crate) backup: String,
    /// The key of that name; `None` where the store cannot have it.
    pub(crate) target: Option<Key>,
    /// Thread that renamed it; its process no longer sees the key.
    pub(crate) by: u32,
    /// When.
    pub(crate) since: Instant,
    /// The key.
    pub(crate) key: Key,
    /// The value that was renamed.
    pub(crate) meta: Meta,
    /// The inode in which all others still see it.
    pub(crate) shown: Option<Ino>,
    /// A successor was refused: it keeps its name, unless there is another one.
    pub(crate) is_kept: bool,
}

impl DeferredRename {
    /// Whether the old name is gone for `thread`: for the process that renamed it, and for all once no successor is to be
    /// expected any more; but then it is back for all where the store cannot have the backup name, or a successor was refused.
    pub(crate) fn invisible_to(&self, thread: u32) -> bool {
        if self.target.is_some() && !self.is_kept {
            self.is_by(thread) || self.is_expired()
        } else {
            self.is_by(thread) && !self.is_expired()
        }
    }

    /// Whether the process of `thread` renamed it.
    pub(crate) fn is_by(&self, thread: u32) -> bool {
        crate::sys::same_process(thread, self.by)
    }

    /// Whether no successor is to be expected any more.
    pub(crate) fn is_expired(&self) -> bool {
        self.since.elapsed() > SUCCESSION || !crate::sys::is_alive(self.by)
    }
}
