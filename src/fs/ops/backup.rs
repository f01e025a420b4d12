//! Keys that were renamed to backup names, as editors do before they write the new version: such a key stays in the
//! store, and for everybody else, until its successor is published, or none is to be expected any more.

use std::sync::Arc;

use tokio::time::Instant;

use crate::cache::Keys;
use crate::fs::core::Fs;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::backups::DeferredRename;
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::Body;
use crate::fs::state::unlinked::unlinked;
use crate::fs::types::Caller;
use crate::store;
use crate::store::{Error, Expect, Key};

impl Fs {
    /// An editor moves the key aside before it writes the new version. The key stays in the store, and for
    /// everybody else, until the successor is published; the backup is a scratch file.
    pub(crate) async fn rename_to_backup(
        &self,
        caller: Caller,
        key: &Key,
        from: &str,
        to: &str,
        target: &Key,
    ) -> FsResult<()> {
        let entry = self.cache.get_key_value(key).await?.value.ok_or(FsError::NotFound)?;
        let mut state = self.state.lock();
        if state.scratch_full(entry.text.len()) {
            return Err(FsError::ScratchFull);
        }
        if state.names.contains_key(to) {
            unlinked(&mut state, to);
        }
        let mut draft = Draft::new(entry.text.to_vec(), Publish::Never, Expect::Anything);
        draft.modified = entry.meta.modified;
        draft.was_key = true;
        let id = state.add_draft(draft);
        // The kernel takes the inode along to the new name.
        let ino = match state.names.get(from) {
            Some(ino) => *ino,
            None => state.add_inode(from, key, Body::Key(entry.meta.clone())),
        };
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.body = Body::Local(id);
        }
        if let Some(draft) = state.drafts.get_mut(&id) {
            draft.ino = ino;
        }
        let attributes = state.overrides.get(from).copied();
        state.move_name(ino, from, to, target);
        if let Some(attributes) = attributes {
            state.overrides.insert(from.to_owned(), attributes);
        }
        // Who relies on the key, or deletes it, does so however often it is renamed.
        let (kept, deletions) =
            state.deferred_renames.get(from).map_or((0, 0), |before| (before.kept, before.deletions));
        let deferred = DeferredRename {
            backup: to.to_owned(),
            by: caller.thread,
            since: Instant::now(),
            key: key.clone(),
            meta: entry.meta,
            shown: None,
            kept,
            deletions,
        };
        state.deferred_renames.insert(from.to_owned(), deferred);
        Ok(())
    }

    /// Deletes a key that was renamed to a backup name, unless somebody changed it meanwhile.
    pub(crate) async fn finish_rename(
        self: &Arc<Self>,
        name: &str,
        deferred: &DeferredRename,
    ) -> store::Result<()> {
        if !self.state.lock().begin_deletion(name, deferred) {
            return Ok(());
        }
        let entry = self.cache.get_key_value(&deferred.key).await.ok().and_then(|answer| answer.value);
        let mut operation = self.begin([name.to_owned()]).await;
        let deleted = self.cache.delete_key(&deferred.key, Expect::At(deferred.meta.revision)).await;
        let over = matches!(deleted, Ok(_) | Err(Error::NotFound | Error::Changed));
        {
            let mut state = self.state.lock();
            let now = state.same_deferred(name, deferred);
            let is_it = now.is_some();
            if let Some(now) = now {
                now.deletions = now.deletions.saturating_sub(1);
            }
            if over && is_it {
                state.deferred_renames.remove(name);
                state.gone(name);
            }
            if over {
                state.note_change(name);
                state.touch(name);
            }
        }
        operation.made(deleted.clone().unwrap_or_default());
        drop(operation);
        match (deleted, entry) {
            (Ok(_), Some(entry)) => self.rejected.keep_deleted(name, entry.text),
            (Err(error), _) if !over => return Err(error),
            _ => {}
        }
        Ok(())
    }

    /// Deletes the keys in the directory at `path` that were renamed to backup names, if nothing else that `caller` can
    /// see is in it. The kernel may hold the lock of the directory; `moving` must be held.
    pub(crate) async fn finish_renames(self: &Arc<Self>, caller: Caller, path: &str) -> FsResult<()> {
        let keys = self.keys().await?.value;
        for (name, deferred) in self.left_in(caller, path, &keys) {
            self.finish_rename(&name, &deferred).await?;
            self.invalidate_later(PathInvalidation::of_name(&name));
        }
        Ok(())
    }

    /// The keys that were renamed to backup names, if they are all that is in the directory at `path`.
    fn left_in(&self, caller: Caller, path: &str, keys: &Keys) -> Vec<(String, DeferredRename)> {
        let Some(prefix) = self.prefix(path, keys) else { return Vec::new() };
        let state = self.state.lock();
        if state.is_inhabited(path) {
            return Vec::new();
        }
        let left = keys.below(&prefix).filter_map(|position| keys.at(position)).map(|(key, _)| {
            let name = self.settings.names.encode(key);
            let deferred =
                state.deferred_renames.get(&name).filter(|deferred| deferred.invisible_to(caller.thread))?;
            (!state.is_drafted(&name)).then(|| (name, deferred.clone()))
        });
        left.collect::<Option<_>>().unwrap_or_default()
    }
}
