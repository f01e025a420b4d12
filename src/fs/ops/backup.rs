//! Keys that were renamed to backup names, as editors do before they write the new version: such a rename is deferred. It
//! becomes needless if the process that made it publishes a successor; else the store renames the key.

use std::sync::Arc;

use tokio::time::Instant;

use crate::cache::Keys;
use crate::fs::core::Fs;
use crate::fs::operation::Operation;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::parent;
use crate::fs::state::backups::DeferredRename;
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::nodes::{Body, Overrides};
use crate::fs::state::tables::State;
use crate::fs::state::unlinked::unlinked;
use crate::fs::types::{Caller, DraftId, Ino};
use crate::store;
use crate::store::{Error, Expect, Key, Meta};

/// What became of a deferred rename.
pub(crate) enum Ended {
    /// The store has the key under the backup name, or the rename was over already.
    Renamed,
    /// The store cannot have the backup name, for this reason: the key has its old name again.
    GivenBack(FsError),
    /// A successor was refused: the key has its old name again.
    Kept,
}

impl Fs {
    /// An editor renames the key before it writes the new version. The key stays in the store, and for
    /// everybody else, until the successor is published; the backup is a scratch file.
    pub(crate) async fn rename_to_backup(
        &self,
        caller: Caller,
        key: &Key,
        from: &str,
        to: &str,
        target: Option<&Key>,
    ) -> FsResult<()> {
        let entry = self.cache.get_key_value(key).await?.value.ok_or(FsError::NotFound)?;
        let mut state = self.state.lock();
        if state.scratch_full(entry.text.len()) {
            return Err(FsError::ScratchFull);
        }
        if state.paths().current(to).is_some() {
            unlinked(&mut state, to);
        }
        let text = entry.text.to_vec();
        let mut draft = Draft::new(text, Publish::Never, Expect::Anything, entry.meta.modified);
        draft.was_key = true;
        let id = state.add_draft(draft);
        // The kernel takes the inode along to the new name.
        let ino = match state.paths().current(from) {
            Some(ino) => ino,
            None => state.add_inode(from, key, Body::Key(entry.meta.clone())),
        };
        if let Some(inode) = state.inode_mut(ino) {
            inode.body = Body::Local(id);
        }
        state.own_draft(id, ino);
        let attributes = state.paths().attributes(from);
        state.move_name(ino, from, to, target.unwrap_or(&Key::from(to)));
        if let Some(attributes) = attributes.filter(Overrides::are_asked_for) {
            state.paths_mut().set_attributes(from, Some(attributes));
        }
        let deferred = DeferredRename {
            backup: to.to_owned(),
            target: target.cloned(),
            by: caller.thread,
            since: Instant::now(),
            key: key.clone(),
            meta: entry.meta,
            shown: None,
            is_kept: false,
        };
        state.paths_mut().set_deferred_rename(from, deferred);
        Ok(())
    }

    /// Begins a change of `names` once no deferred rename is `in_the_way`: such a one is carried out first.
    pub(crate) async fn begin_after_renames(
        self: &Arc<Self>,
        names: &[&str],
        in_the_way: impl Fn(&State) -> Option<(String, DeferredRename)>,
    ) -> FsResult<Operation> {
        loop {
            let operation = self.begin(names.iter().map(|name| (*name).to_owned())).await?;
            let found = in_the_way(&self.state.lock());
            let Some((name, deferred)) = found else { return Ok(operation) };
            drop(operation);
            self.carry_out(&name, &deferred).await?;
        }
    }

    /// Carries a deferred rename out: the store renames the key, or it gets its old name back. While the store is in trouble
    /// nothing changes. The kernel may hold the lock of the directory; directories must [stay](Fs::stay).
    pub(crate) async fn carry_out(
        self: &Arc<Self>,
        name: &str,
        deferred: &DeferredRename,
    ) -> FsResult<Ended> {
        let operation = self.begin([name.to_owned(), deferred.backup.clone()]).await?;
        {
            let mut state = self.state.lock();
            if !state.is_deferred(name, deferred) {
                return Ok(Ended::Renamed);
            }
            if state.is_kept(name) {
                let invalidations = state.keep_name(name);
                drop(state);
                self.invalidate_later(invalidations);
                return Ok(Ended::Kept);
            }
        }
        let Some(target) = &deferred.target else {
            return Ok(self.give_back(name, deferred, self.why_no_key(&deferred.backup)));
        };
        match self.rename_in_store(deferred, target).await {
            Ok(meta) => {
                let invalidations = self.state.lock().carried_out(name, deferred, target, &meta);
                self.invalidate_later(invalidations);
                Ok(Ended::Renamed)
            }
            Err(Error::Changed | Error::NotFound) => {
                let draft = self.state.lock().overtaken(name);
                drop(operation);
                self.keep_backup(draft).await;
                Ok(Ended::Renamed)
            }
            Err(error) if error.is_outage() => Err(error.into()),
            Err(error) => Ok(self.give_back(name, deferred, error.into())),
        }
    }

    fn give_back(self: &Arc<Self>, name: &str, deferred: &DeferredRename, why: FsError) -> Ended {
        let invalidations = self.state.lock().give_back(name, &why);
        self.invalidate_later(invalidations);
        let reason =
            format!("the key keeps its old name, for it cannot be renamed to {:?}: {why}", deferred.backup);
        tracing::warn!("{name:?}: {reason}");
        self.note_late(name, &reason);
        Ended::GivenBack(why)
    }

    /// Why no key can have the name.
    fn why_no_key(&self, name: &str) -> FsError {
        let refused = self.cache.limits().check_key(&Key::from(name)).err();
        refused
            .map_or_else(|| FsError::NoExtension(self.settings.names.extension().to_owned()), FsError::from)
    }

    async fn rename_in_store(&self, deferred: &DeferredRename, target: &Key) -> store::Result<Meta> {
        let at = Expect::At(deferred.meta.revision);
        let renamed = self.cache.rename_key(&deferred.key, target, at, Expect::Absent).await;
        let Err(Error::Changed | Error::NotFound | Error::Exists) = renamed else { return renamed };
        // The answer to an earlier try may have been lost.
        let text = self.state.lock().backup_text(&deferred.backup);
        match self.cache.ask_store(target).await? {
            Some(entry) if Some(&entry.text) == text.as_ref() && self.is_gone(&deferred.key).await? => {
                Ok(entry.meta)
            }
            Some(_) | None => renamed,
        }
    }

    async fn is_gone(&self, key: &Key) -> store::Result<bool> {
        Ok(self.cache.ask_store(key).await?.is_none())
    }

    /// Carries the deferred rename out to the backup name that this file has, if any: what is written to, or synced, is a key,
    /// or a scratch file.
    pub(crate) async fn carry_out_at(self: &Arc<Self>, ino: Ino) -> FsResult<Option<Ended>> {
        let Some((name, deferred)) = self.state.lock().deferred_at(ino)? else { return Ok(None) };
        let _staying = self.stay().await?;
        self.carry_out(&name, &deferred).await.map(Some)
    }

    /// fsync(2) of a directory: names are durable when the call that changed them returns, but for deferred renames. The
    /// kernel holds the lock of the directory.
    pub async fn fsync_directory(self: Arc<Self>, ino: Ino) -> FsResult<()> {
        let found = {
            let state = self.state.lock();
            // Nothing is in one that was removed.
            let Ok(path) = state.directory_path(ino) else { return Ok(()) };
            let within = |name: &str| parent(name) == path;
            state.deferred_where(|name, deferred| within(name) || within(&deferred.backup))
        };
        if found.is_empty() {
            return Ok(());
        }
        let _staying = self.stay().await?;
        for (name, deferred) in found {
            if let Ended::GivenBack(why) = self.carry_out(&name, &deferred).await? {
                return Err(why);
            }
        }
        Ok(())
    }

    /// Carries out all deferred renames, before the mount ends.
    pub(crate) async fn carry_out_all(self: &Arc<Self>) {
        let all = self.state.lock().deferred_where(|_, _| true);
        if !all.is_empty() {
            self.wait_until_tried_again().await;
        }
        for (name, deferred) in all {
            if let Err(error) = self.carry_out_in_time(&name, &deferred).await {
                tracing::warn!("{name:?} keeps its old name, and is not {:?}: {error}", deferred.backup);
            }
        }
    }

    /// As [`Fs::carry_out`], for background work: with a deadline of its own.
    pub(crate) async fn carry_out_in_time(
        self: &Arc<Self>,
        name: &str,
        deferred: &DeferredRename,
    ) -> FsResult<Ended> {
        let carried_out = async {
            let _staying = self.stay().await?;
            self.carry_out(name, deferred).await
        };
        self.deadline().scope(carried_out).await
    }

    /// As [`Fs::keep_backup`], for who holds a lock.
    pub(crate) fn keep_backup_later(self: &Arc<Self>, draft: (Ino, DraftId, bool)) {
        let fs = self.clone();
        tokio::spawn(async move {
            let _staying = fs.gates.stay().await;
            fs.keep_backup(Some(draft)).await;
        });
    }

    /// Sets what was renamed to a backup name, and was since changed by somebody else under the old one; directories must [stay](Fs::stay).
    pub(crate) async fn keep_backup(self: &Arc<Self>, draft: Option<(Ino, DraftId, bool)>) {
        let Some((ino, id, has_key)) = draft else { return };
        let set = if has_key { Box::pin(self.publish_now(ino, id, 0)).await } else { Err(FsError::BadName) };
        let error = match set {
            Ok(invalidations) => return self.invalidate_later(invalidations),
            Err(error) => error,
        };
        // A temporary file is tried again by itself.
        if !error.is_outage() {
            let fs = self.clone();
            _ = tokio::task::spawn_blocking(move || fs.keep_copy(id, &error.to_string())).await;
        }
    }

    /// Carries out all deferred renames that are in the directory at `path`, or whose backup names are.
    pub(crate) async fn carry_out_in(self: &Arc<Self>, path: &str) -> FsResult<()> {
        let found = self.state.lock().deferred_in(path);
        for (name, deferred) in found {
            self.carry_out(&name, &deferred).await?;
        }
        Ok(())
    }

    /// Carries out the deferred renames in the directory at `path`, if nothing else that `caller` can see is in it. The
    /// kernel may hold the lock of the directory; directories must [stay](Fs::stay).
    pub(crate) async fn finish_renames(self: &Arc<Self>, caller: Caller, path: &str) -> FsResult<()> {
        let keys = self.keys().await?.value;
        for (name, deferred) in self.left_in(caller, path, &keys) {
            self.carry_out(&name, &deferred).await?;
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
            let deferred = state
                .paths()
                .deferred_rename(&name)
                .filter(|deferred| deferred.invisible_to(caller.thread))?;
            (!state.is_drafted(&name)).then(|| (name, deferred.clone()))
        });
        left.collect::<Option<_>>().unwrap_or_default()
    }
}
