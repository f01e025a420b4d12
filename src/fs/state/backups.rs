//! Keys that were renamed to backup names.

use std::time::Duration;

use tokio::time::Instant;

use crate::fs::rules::names::Names;
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::types::Ino;
use crate::store::{Change, Key, Meta};

/// How long a key renamed to a backup name is kept for its successor while the renaming process lives on.
const SUCCESSION: Duration = Duration::from_secs(2);

/// A key that was renamed to a backup name: it stays in the store until its successor is published or the
/// renaming process is gone.
#[derive(Clone, Debug)]
pub(crate) struct DeferredRename {
    /// The name it was renamed to.
    pub(crate) backup: String,
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
    /// How many files are put in its place on the condition that it is still in the store.
    pub(crate) kept: u32,
    /// How many deletions of it are under way; none while it is kept.
    pub(crate) deletions: u32,
}

impl DeferredRename {
    /// Whether the key is gone for `thread`: for the process that renamed it, and for all once no successor is
    /// to be expected any more.
    pub(crate) fn invisible_to(&self, thread: u32) -> bool {
        crate::sys::same_process(thread, self.by) || self.is_expired()
    }

    /// Whether no successor is to be expected any more.
    pub(crate) fn is_expired(&self) -> bool {
        self.since.elapsed() > SUCCESSION || !crate::sys::is_alive(self.by)
    }
}

impl State {
    /// What `hidden` is now, if it still is what has the name.
    pub(crate) fn same_deferred(
        &mut self,
        name: &str,
        deferred: &DeferredRename,
    ) -> Option<&mut DeferredRename> {
        let same = |now: &&mut DeferredRename| {
            now.since == deferred.since && now.meta.revision == deferred.meta.revision
        };
        self.deferred_renames.get_mut(name).filter(same)
    }

    /// Whether the caller may delete the key; nobody relies on it from now on.
    pub(crate) fn begin_deletion(&mut self, name: &str, deferred: &DeferredRename) -> bool {
        let now = self.same_deferred(name, deferred).filter(|now| now.kept == 0);
        now.is_some_and(|now| {
            now.deletions += 1;
            true
        })
    }

    /// Whether a key that is in the store will not be deleted as one that was renamed to a backup name, until it is no
    /// longer kept.
    pub(crate) fn pin_deferred(&mut self, name: &str) -> bool {
        let Some(deferred) = self.deferred_renames.get_mut(name) else { return true };
        deferred.kept += u32::from(deferred.deletions == 0);
        deferred.deletions == 0
    }

    /// Ends [`State::pin_deferred`].
    pub(crate) fn unpin_deferred(&mut self, name: &str) {
        if let Some(deferred) = self.deferred_renames.get_mut(name) {
            deferred.kept = deferred.kept.saturating_sub(1);
        }
    }

    /// The inode in which others than who renamed it see a key whose successor is being written.
    pub(crate) fn inode_for_others(&mut self, name: &str) -> Option<Ino> {
        let deferred = self.deferred_renames.get(name)?;
        if let Some(ino) = deferred.shown.filter(|ino| self.inodes.contains_key(ino)) {
            return Some(ino);
        }
        let (key, meta) = (deferred.key.clone(), deferred.meta.clone());
        let ino = self.add_inode(name, &key, Body::Key(meta));
        self.deferred_renames.get_mut(name)?.shown = Some(ino);
        Some(ino)
    }

    /// Whether this is the version of a key that was renamed to a backup name, and is told of late.
    pub(crate) fn is_superseded_by_backup(&self, change: &Change, names: &Names) -> bool {
        let Change::Set(key, meta) = change else { return false };
        let deferred = self.deferred_renames.get(&names.encode(key));
        deferred.is_some_and(|deferred| deferred.meta.revision >= meta.revision)
    }
}
