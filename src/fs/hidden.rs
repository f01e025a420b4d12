//! Keys that were renamed to backup names, as editors do before they write the new version: such a key stays in the
//! store, and for everybody else, until its successor is published, or none is to be expected any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::drafts::{Draft, Purpose};
use super::inodes::{Body, Ino, State};
use super::names::Names;
use super::unlink::unlinked;
use super::{Caller, Fs, FsError, FsResult, Notice};
use crate::cache::Keys;
use crate::store::{self, Change, Error, Expect, Key, Meta};

/// How long a key renamed to a backup name is kept for its successor while the renaming process lives on.
const SUCCESSION: Duration = Duration::from_secs(2);

/// A key that was renamed to a backup name: it stays in the store until its successor is published or the
/// renaming process is gone.
#[derive(Clone, Debug)]
pub(super) struct Hidden {
    /// The name it was renamed to.
    pub(super) backup: String,
    /// Thread that renamed it; its process no longer sees the key.
    pub(super) by: u32,
    /// When.
    pub(super) since: Instant,
    /// The key.
    pub(super) key: Key,
    /// The value that was renamed.
    pub(super) meta: Meta,
    /// The inode in which all others still see it.
    pub(super) shown: Option<Ino>,
    /// How many files are put in its place on the condition that it is still in the store.
    kept: u32,
    /// How many deletions of it are under way; none while it is kept.
    endings: u32,
}

impl Hidden {
    /// Whether the key is gone for `thread`: for the process that renamed it, and for all once no successor is
    /// to be expected any more.
    pub(super) fn gone_for(&self, thread: u32) -> bool {
        crate::sys::same_process(thread, self.by) || self.is_over()
    }

    /// Whether no successor is to be expected any more.
    pub(super) fn is_over(&self) -> bool {
        self.since.elapsed() > SUCCESSION || !crate::sys::is_alive(self.by)
    }
}

impl Fs {
    /// An editor moves the key aside before it writes the new version. The key stays in the store, and for
    /// everybody else, until the successor is published; the backup is a scratch file.
    pub(super) async fn rename_to_backup(
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
        let mut draft = Draft::new(entry.text.to_vec(), Purpose::Hard, Expect::Anything);
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
        let (kept, endings) = state.hidden.get(from).map_or((0, 0), |before| (before.kept, before.endings));
        let hidden = Hidden {
            backup: to.to_owned(),
            by: caller.thread,
            since: Instant::now(),
            key: key.clone(),
            meta: entry.meta,
            shown: None,
            kept,
            endings,
        };
        state.hidden.insert(from.to_owned(), hidden);
        Ok(())
    }

    /// Deletes a key that was renamed to a backup name, unless somebody changed it meanwhile.
    pub(super) async fn finish_rename(self: &Arc<Self>, name: &str, hidden: &Hidden) -> store::Result<()> {
        if !self.state.lock().begin_end(name, hidden) {
            return Ok(());
        }
        let entry = self.cache.get_key_value(&hidden.key).await.ok().and_then(|answer| answer.value);
        self.hold_changes(name);
        let deleted = self.cache.delete_key(&hidden.key, Expect::At(hidden.meta.revision)).await;
        let over = matches!(deleted, Ok(_) | Err(Error::NotFound | Error::Changed));
        {
            let mut state = self.state.lock();
            let now = state.hidden_as(name, hidden);
            let is_it = now.is_some();
            if let Some(now) = now {
                now.endings = now.endings.saturating_sub(1);
            }
            if over && is_it {
                state.hidden.remove(name);
                state.gone(name);
            }
            if over {
                state.note_change(name);
                state.touch(name);
            }
        }
        self.release_changes(name, deleted.clone().unwrap_or_default());
        match (deleted, entry) {
            (Ok(_), Some(entry)) => self.aside.keep_deleted(name, entry.text),
            (Err(error), _) if !over => return Err(error),
            _ => {}
        }
        Ok(())
    }

    /// Deletes the keys in the directory at `path` that were renamed to backup names, if nothing else that `caller` can
    /// see is in it. The kernel may hold the lock of the directory; `moving` must be held.
    pub(super) async fn finish_renames(self: &Arc<Self>, caller: Caller, path: &str) -> FsResult<()> {
        let keys = self.keys().await?.value;
        for (name, hidden) in self.left_in(caller, path, &keys) {
            self.finish_rename(&name, &hidden).await?;
            self.settle_later(Notice::of_name(&name));
        }
        Ok(())
    }

    /// The keys that were renamed to backup names, if they are all that is in the directory at `path`.
    fn left_in(&self, caller: Caller, path: &str, keys: &Keys) -> Vec<(String, Hidden)> {
        let Some(prefix) = self.prefix(path, keys) else { return Vec::new() };
        let state = self.state.lock();
        if state.is_inhabited(path) {
            return Vec::new();
        }
        let left = keys.below(&prefix).filter_map(|position| keys.at(position)).map(|(key, _)| {
            let name = self.settings.names.encode(key);
            let hidden = state.hidden.get(&name).filter(|hidden| hidden.gone_for(caller.thread))?;
            (!state.is_drafted(&name)).then(|| (name, hidden.clone()))
        });
        left.collect::<Option<_>>().unwrap_or_default()
    }
}

impl State {
    /// What `hidden` is now, if it still is what has the name.
    fn hidden_as(&mut self, name: &str, hidden: &Hidden) -> Option<&mut Hidden> {
        let same = |now: &&mut Hidden| now.since == hidden.since && now.meta.revision == hidden.meta.revision;
        self.hidden.get_mut(name).filter(same)
    }

    /// Whether the caller may delete the key; nobody relies on it from now on.
    fn begin_end(&mut self, name: &str, hidden: &Hidden) -> bool {
        let now = self.hidden_as(name, hidden).filter(|now| now.kept == 0);
        now.is_some_and(|now| {
            now.endings += 1;
            true
        })
    }

    /// Whether a key that is in the store will not be deleted as one that was renamed to a backup name, until it is no
    /// longer kept.
    pub(super) fn keep_hidden(&mut self, name: &str) -> bool {
        let Some(hidden) = self.hidden.get_mut(name) else { return true };
        hidden.kept += u32::from(hidden.endings == 0);
        hidden.endings == 0
    }

    /// Ends [`State::keep_hidden`].
    pub(super) fn keep_hidden_no_more(&mut self, name: &str) {
        if let Some(hidden) = self.hidden.get_mut(name) {
            hidden.kept = hidden.kept.saturating_sub(1);
        }
    }

    /// The inode in which others than who renamed it see a key whose successor is being written.
    pub(super) fn show_hidden(&mut self, name: &str) -> Option<Ino> {
        let hidden = self.hidden.get(name)?;
        if let Some(ino) = hidden.shown.filter(|ino| self.inodes.contains_key(ino)) {
            return Some(ino);
        }
        let (key, meta) = (hidden.key.clone(), hidden.meta.clone());
        let ino = self.add_inode(name, &key, Body::Key(meta));
        self.hidden.get_mut(name)?.shown = Some(ino);
        Some(ino)
    }

    /// Whether this is the version of a key that was renamed to a backup name, and is told of late.
    pub(super) fn hides(&self, change: &Change, names: &Names) -> bool {
        let Change::Set(key, meta) = change else { return false };
        let hidden = self.hidden.get(&names.encode(key));
        hidden.is_some_and(|hidden| hidden.meta.revision >= meta.revision)
    }
}
