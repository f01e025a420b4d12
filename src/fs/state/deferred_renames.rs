//! What becomes of keys that were renamed to backup names.

use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::is_inside;
use crate::fs::state::backups::DeferredRename;
use crate::fs::state::drafts::Publish;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::state::versions::Origin;
use crate::fs::types::{DraftId, Ino};
use crate::store::{Change, Expect, Key, Meta, Revision, Text};

impl State {
    /// The deferred rename that is to be carried out before `thread` renames `from` to `to`. A backup that is moved back is
    /// not: it ends its own.
    pub(crate) fn deferred_before(
        &self,
        thread: u32,
        from: &str,
        to: &str,
    ) -> Option<(String, DeferredRename)> {
        let moved = self.deferred_to(from);
        if moved.as_ref().is_some_and(|(name, _)| name == to) {
            return None;
        }
        let onto = moved.or_else(|| self.deferred_to(to));
        let others = || self.deferred_by_others(from, thread).or_else(|| self.deferred_by_others(to, thread));
        onto.or_else(others)
    }

    /// Whether `deferred` still is what has become of the key of this name.
    pub(crate) fn is_deferred(&self, name: &str, deferred: &DeferredRename) -> bool {
        self.paths.deferred_rename(name).is_some_and(|now| now.since == deferred.since)
    }

    /// The deferred rename to this backup name, and the old name.
    pub(crate) fn deferred_to(&self, backup: &str) -> Option<(String, DeferredRename)> {
        let (name, deferred) =
            self.paths.deferred_renames().find(|(_, deferred)| deferred.backup == backup)?;
        Some((name.to_owned(), deferred.clone()))
    }

    /// The deferred rename to the backup name that this file has, and the old name.
    pub(crate) fn deferred_at(&self, ino: Ino) -> FsResult<Option<(String, DeferredRename)>> {
        let name = &self.inode(ino)?.name;
        Ok(self.deferred_to(name).filter(|_| self.paths.current(name) == Some(ino)))
    }

    /// The deferred rename of this name by another process than that of `thread`.
    pub(crate) fn deferred_by_others(&self, name: &str, thread: u32) -> Option<(String, DeferredRename)> {
        let deferred = self.paths.deferred_rename(name).filter(|deferred| !deferred.is_by(thread))?;
        Some((name.to_owned(), deferred.clone()))
    }

    /// Those that are due; one whose successor is being written is not.
    pub(crate) fn due_renames(&self) -> Vec<(String, DeferredRename)> {
        self.deferred_where(|name, deferred| {
            deferred.is_expired() && !(crate::sys::is_alive(deferred.by) && self.is_drafted(name))
        })
    }

    /// Those for which `is_one` holds, by the names that they had.
    pub(crate) fn deferred_where(
        &self,
        is_one: impl Fn(&str, &DeferredRename) -> bool,
    ) -> Vec<(String, DeferredRename)> {
        let found = self.paths.deferred_renames().filter(|(name, deferred)| is_one(name, deferred));
        found.map(|(name, deferred)| (name.to_owned(), deferred.clone())).collect()
    }

    /// The text that was renamed.
    pub(crate) fn backup_text(&self, backup: &str) -> Option<Text> {
        let (_, id) = self.backup_draft(backup)?;
        Some(Text::from(self.drafts.get(&id)?.bytes.text()))
    }

    fn backup_draft(&self, backup: &str) -> Option<(Ino, DraftId)> {
        let (ino, inode) = self.named(backup)?;
        let Body::Local(id) = inode.body else { return None };
        Some((ino, id))
    }

    /// The store has renamed the key to its backup name.
    pub(crate) fn carried_out(
        &mut self,
        name: &str,
        deferred: &DeferredRename,
        target: &Key,
        meta: &Meta,
    ) -> Vec<PathInvalidation> {
        self.paths.take_deferred_rename(name);
        for id in self.paths.drafts(name) {
            let draft = self.drafts.get_mut(&id).filter(|draft| !draft.orphan);
            // Who has opened it under its old name makes a new key of that.
            if let Some(draft) = draft.filter(|draft| draft.expect == Expect::At(deferred.meta.revision)) {
                draft.expect = Expect::Absent;
            }
        }
        for name in [name, &deferred.backup] {
            self.note_change(name);
            self.touch(name);
        }
        self.paths.version_became(&deferred.backup, deferred.meta.revision, meta.revision);
        let mut invalidations = PathInvalidation::of_name(name);
        match self.backup_draft(&deferred.backup) {
            Some((ino, id)) => {
                self.remove_draft(id, Some(meta));
                self.become_key(ino, &deferred.backup, target, meta.clone());
                invalidations.extend(self.stale(ino));
            }
            None => invalidations.extend(self.install_version(&deferred.backup, meta, Origin::Remote)),
        }
        invalidations
    }

    /// The store cannot have the backup name, for this reason: the key has its old name again, and the backup is a scratch
    /// file.
    pub(crate) fn give_back(&mut self, name: &str, why: &FsError) -> Vec<PathInvalidation> {
        if let Some(backup) = self.paths.deferred_rename(name).map(|deferred| deferred.backup.clone()) {
            self.paths.set_failure(&backup, Some(why.clone()));
        }
        self.keep_name(name)
    }

    /// The draft is that of a successor which is refused: unless there is another one, the key keeps its name.
    pub(crate) fn successor_refused(&mut self, id: DraftId) {
        let draft = self.drafts.get(&id).filter(|draft| !draft.orphan && draft.published.is_none());
        let Some(inode) = draft.and_then(|draft| self.inodes.get(&draft.ino)) else { return };
        let name = inode.name.clone();
        if let Some(deferred) = self.paths.deferred_rename_mut(&name) {
            deferred.is_kept = true;
        }
    }

    /// As [`State::successor_refused`], of a file that the process of `thread` could not rename to `name`.
    pub(crate) fn successor_refused_at(&mut self, name: &str, thread: u32) {
        if let Some(deferred) = self.paths.deferred_rename_mut(name).filter(|deferred| deferred.is_by(thread))
        {
            deferred.is_kept = true;
        }
    }

    /// Whether a successor of the key was refused.
    pub(crate) fn is_kept(&self, name: &str) -> bool {
        self.paths.deferred_rename(name).is_some_and(|deferred| deferred.is_kept)
    }

    /// The key has its old name again, and the backup is a scratch file.
    pub(crate) fn keep_name(&mut self, name: &str) -> Vec<PathInvalidation> {
        let Some(deferred) = self.paths.take_deferred_rename(name) else { return Vec::new() };
        if let Some((_, id)) = self.backup_draft(&deferred.backup)
            && let Some(draft) = self.drafts.get_mut(&id)
        {
            // The store has the text.
            draft.was_key = false;
        }
        // A successor had its own.
        let attributes = self.paths.attributes(&deferred.backup);
        self.paths.set_attributes(name, attributes);
        let mut invalidations = self.install_version(name, &deferred.meta, Origin::Remote);
        if let Some(ino) = deferred.shown.filter(|ino| self.inodes.contains_key(ino))
            && self.paths.current(name).is_none()
        {
            self.become_key(ino, name, &deferred.key, deferred.meta);
        }
        self.touch(name);
        invalidations.extend(PathInvalidation::of_name(name));
        invalidations
    }

    /// Somebody else has changed the key since it was renamed. Theirs stays, and the backup becomes a key as any temporary
    /// file; its draft, and whether the store can have it.
    pub(crate) fn overtaken(&mut self, name: &str) -> Option<(Ino, DraftId, bool)> {
        let deferred = self.paths.take_deferred_rename(name)?;
        let (ino, id) = self.backup_draft(&deferred.backup)?;
        let draft = self.drafts.get_mut(&id)?;
        if deferred.target.is_some() {
            draft.purpose = Publish::OnRename;
            draft.expect = Expect::Absent;
        }
        Some((ino, id, deferred.target.is_some()))
    }

    /// As [`State::overtaken`], if a change at this revision is newer than what was renamed.
    pub(crate) fn overtaken_at(&mut self, name: &str, revision: Revision) -> Option<(Ino, DraftId, bool)> {
        self.paths.deferred_rename(name).filter(|deferred| deferred.meta.revision < revision)?;
        self.overtaken(name)
    }

    /// Those in the directory at `path`, or with backup names in it.
    pub(crate) fn deferred_in(&self, path: &str) -> Vec<(String, DeferredRename)> {
        self.deferred_where(|name, deferred| is_inside(name, path) || is_inside(&deferred.backup, path))
    }

    /// The inode in which others than who renamed it see a key whose successor is being written.
    pub(crate) fn inode_for_others(&mut self, name: &str) -> Option<Ino> {
        let deferred = self.paths.deferred_rename(name)?;
        if let Some(ino) = deferred.shown.filter(|ino| self.inodes.contains_key(ino)) {
            return Some(ino);
        }
        let (key, meta) = (deferred.key.clone(), deferred.meta.clone());
        let ino = self.add_inode(name, &key, Body::Key(meta));
        self.paths.deferred_rename_mut(name)?.shown = Some(ino);
        Some(ino)
    }

    /// Whether this is the version of a key that was renamed to a backup name, and is told of late.
    pub(crate) fn is_superseded_by_backup(&self, name: &str, change: &Change) -> bool {
        let deferred = self.paths.deferred_rename(name);
        matches!(change, Change::Set(..))
            && deferred.is_some_and(|deferred| deferred.meta.revision >= change.revision())
    }
}
