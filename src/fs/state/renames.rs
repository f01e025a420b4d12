//! Renames: what is known of a path goes along.

use crate::fs::rules::names::is_inside;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Body, Content};
use crate::fs::state::tables::State;
use crate::fs::types::Ino;
use crate::store::{Expect, Key, Meta, Revision};

impl State {
    /// Moves number, inode and attributes of a file to another name.
    pub(crate) fn move_name(&mut self, ino: Ino, from: &str, to: &str, key: &Key) {
        if let Some(home) = self.paths.home(from) {
            self.paths.leave_home(from, home);
        }
        self.rename_file(from, to);
        self.paths.rename_file(ino, from, to);
        for id in self.paths.drafts(from) {
            if self.drafts.get(&id).is_some_and(|draft| draft.ino == ino) {
                self.paths.remove_draft(from, id);
                self.paths.add_draft(to, id);
            }
        }
        if let Some(inode) = self.inodes.get_mut(&ino) {
            to.clone_into(&mut inode.name);
            inode.key = key.clone();
        }
        let now = self.now();
        self.paths.edit_attributes(to, |set| set.changed = Some(now));
        self.note_change(from);
        self.note_change(to);
        self.touch(from);
        self.touch(to);
    }

    /// The store renamed a key as it was at `before`. Writers of the old name go on under the new one.
    pub(crate) fn renamed_key(
        &mut self,
        from: &str,
        to: &str,
        key: &Key,
        before: Revision,
        meta: &Meta,
    ) -> Vec<PathInvalidation> {
        self.paths.take_deferred_rename(to);
        self.replace(to);
        self.note_change(from);
        self.note_change(to);
        self.rename_drafts(from, to, key, (before, meta));
        self.rename_readers(from, before, meta);
        self.rename_home(from, to, key);
        self.touch(from);
        self.touch(to);
        self.paths.version_became(from, before, meta.revision);
        let Some(ino) = self.paths.current(from) else {
            self.rename_file(from, to);
            let attributes = self.paths.attributes(from);
            self.paths.set_attributes(from, None);
            if attributes.is_some() {
                self.paths.set_attributes(to, attributes);
            }
            // What the kernel took along is an older version.
            return vec![PathInvalidation::Entry(to.to_owned())];
        };
        self.move_name(ino, from, to, key);
        let inode =
            self.inodes.get(&ino).map(|inode| (inode.readers > 0 || inode.cached.is_pinned(), &inode.body));
        let mut invalidations = match inode {
            Some((_, Body::Key(known))) if known.revision == before => {
                self.become_key(ino, to, key, meta.clone());
                Vec::new()
            }
            // Readers keep the older version that they have open.
            Some((true, _)) => {
                self.remove_name(to);
                self.follow_again(ino)
            }
            _ => {
                self.become_key(ino, to, key, meta.clone());
                self.stale(ino)
            }
        };
        // What the kernel took along may be another inode, of an older version.
        if self.named(to).is_none_or(|(_, inode)| inode.lookups == 0) {
            invalidations.push(PathInvalidation::Entry(to.to_owned()));
        }
        invalidations
    }

    /// Writers of the key at `from`, which was at `before` and is `meta` now, go on at `to`.
    fn rename_drafts(&mut self, from: &str, to: &str, key: &Key, (before, meta): (Revision, &Meta)) {
        for id in self.paths.drafts(from) {
            let Some(draft) = self.drafts.get_mut(&id).filter(|draft| !draft.orphan) else { continue };
            // A draft that was stale before stays so.
            if draft.expect == Expect::At(before) {
                draft.expect = Expect::At(meta.revision);
            }
            if draft.follows == Some(before) {
                draft.follows = Some(meta.revision);
            }
            if let Some(published) = draft.published.as_mut().filter(|known| known.revision == before) {
                *published = meta.clone();
            }
            if let Some(inode) = self.inodes.get_mut(&draft.ino) {
                to.clone_into(&mut inode.name);
                inode.key = key.clone();
            }
            self.paths.remove_draft(from, id);
            self.paths.add_draft(to, id);
        }
    }

    /// Who reads the key at `from` as it was at `before` reads this version, which has the same value.
    fn rename_readers(&mut self, from: &str, before: Revision, meta: &Meta) {
        let Some(file) = self.paths.file(from) else { return };
        for handle in self.handles.values_mut().filter(|handle| handle.file == file) {
            if let Content::Snapshot(_, Some(read)) = &mut handle.content
                && read.revision == before
            {
                *read = meta.clone();
            }
        }
    }

    /// The directory at `from`, with those in it, is at `to` now.
    pub(crate) fn move_directory(&mut self, from: &str, to: &str) {
        let moved = |path: &str| path == from || is_inside(path, from);
        let known = self.paths.directories().map(|(path, _)| path.to_owned()).filter(|path| moved(path));
        for path in known.collect::<Vec<_>>() {
            let new = format!("{to}{}", &path[from.len()..]);
            let Some(directory) = self.paths.take_directory(&path) else { continue };
            if let Some(inode) = directory.ino.and_then(|ino| self.inodes.get_mut(&ino)) {
                debug_assert!(matches!(inode.body, Body::Directory));
                inode.name.clone_from(&new);
            }
            self.note_change(&path);
            self.note_change(&new);
            self.paths.put_directory(&new, directory);
        }
        self.redirects.move_directory(from, to);
        self.touch(from);
        self.touch(to);
    }
}
