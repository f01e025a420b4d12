//! From one version of a key to the next: which inode has the name, and what the kernel must drop.

use std::collections::HashSet;
use std::sync::Arc;

use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Body, Inode};
use crate::fs::state::tables::State;
use crate::fs::state::unlinked::unlinked;
use crate::fs::types::{DraftId, Ino};
use crate::store::{Key, Meta};

/// Most names whose changes are told apart while directories are open.
const CHANGES: usize = 10_000;

/// Who set a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A writer of this mount.
    LocalWrite,
    /// This mount, or it was read: the kernel can hold no absence of the name.
    Read,
    /// Somebody else.
    Remote,
}

impl State {
    /// Takes in that `name` has the version `meta`.
    ///
    /// Where nobody reads the inode it goes on as the new version, and the kernel drops its pages; where somebody
    /// does, or where this is its [last](Inode::pinned) version, it stays as it is, and the name leads to a new inode.
    pub(crate) fn install_version(&mut self, name: &str, meta: &Meta, by: Origin) -> Vec<PathInvalidation> {
        let entry = || vec![PathInvalidation::Entry(name.to_owned())];
        let known = self.named(name).map(|(_, inode)| &inode.body);
        if by != Origin::Read || matches!(known, Some(Body::Key(known)) if known.revision < meta.revision) {
            self.note_change(name);
        }
        let Some(&ino) = self.names.get(name) else {
            if by == Origin::Remote {
                self.touch(name);
                return PathInvalidation::of_name(name);
            }
            return Vec::new();
        };
        let Some(inode) = self.inodes.get_mut(&ino) else { return Vec::new() };
        // What utimes(2) said was about the version before.
        if by != Origin::LocalWrite
            && matches!(&inode.body, Body::Key(known) if known.revision < meta.revision)
            && let Some(set) = self.overrides.get_mut(name)
        {
            set.modified = None;
        }
        match &mut inode.body {
            Body::Key(known) if known.revision >= meta.revision => {
                // Who was told of this version waits for the kernel to know of no older one.
                if inode.is_fresh() { Vec::new() } else { vec![PathInvalidation::Inode(ino)] }
            }
            Body::Key(known) if inode.readers == 0 && !inode.pinned => {
                *known = meta.clone();
                inode.mark_stale();
                vec![PathInvalidation::Inode(ino)]
            }
            Body::Key(_) => {
                let successor = (inode.pinned && inode.lookups > 0).then(|| inode.key.clone());
                self.remove_name(name);
                if let Some(key) = successor {
                    self.note_replaced(name, ino);
                    // Those that follow their key find it here.
                    let ino = self.add_inode(name, &key, Body::Key(meta.clone()));
                    self.names.insert(name.to_owned(), ino);
                }
                // Those who hold it let it follow its key at the end of that.
                let mut invalidations = self.follow_again(ino);
                invalidations.extend(entry());
                invalidations
            }
            // Somebody else set the key of a file that is only local so far. Unless it is being written, it is
            // the key now.
            Body::Local(draft) => {
                let idle = |draft: &Draft| draft.handles == 0 && draft.text.is_empty();
                if self.drafts.get(draft).is_some_and(idle) {
                    self.names.remove(name);
                    self.collect(ino);
                    return entry();
                }
                Vec::new()
            }
            Body::Draft(_) | Body::Directory => Vec::new(),
        }
    }

    /// The inode of `name` never goes on as a newer version from now on.
    pub(crate) fn pin(&mut self, name: &str) {
        if let Some(inode) = self.names.get(name).and_then(|ino| self.inodes.get_mut(ino)) {
            inode.pinned = true;
        }
    }

    /// Notes that `name` is not what the directories that are open now may say of it.
    pub(crate) fn note_change(&mut self, name: &str) {
        if Arc::strong_count(&self.open_listings) == 1 {
            self.changes.clear();
            return;
        }
        if self.changes.len() == CHANGES {
            // Whatever was opened before finds all names changed: then each is looked at, as it would be alone.
            self.changes.clear();
            self.blurred = self.change;
        }
        self.change += 1;
        self.changes.insert(name.to_owned(), self.change);
    }

    /// Makes the kernel look every name up again, and open directories every name they list. A kernel that cannot drop
    /// all names `at_once` is told of each that it may remember.
    pub(crate) fn all_changed(&mut self, at_once: bool) -> Vec<PathInvalidation> {
        self.change += 1;
        self.blurred = self.change;
        self.changes.clear();
        let root = PathInvalidation::Listing(String::new());
        if at_once {
            return vec![PathInvalidation::Everything, root];
        }
        let known = self.inodes.values().filter(|inode| inode.lookups > 0);
        let names: HashSet<&String> = known.map(|inode| &inode.name).collect();
        names.into_iter().cloned().map(PathInvalidation::Entry).chain([root]).collect()
    }

    /// The count of changes so far, and the mark of an open directory.
    pub(crate) fn open_directory(&self) -> (u64, Arc<()>) {
        (self.change, self.open_listings.clone())
    }

    /// Whether `name` changed, for all that is known, since the count was `since`.
    pub(crate) fn changed_since(&self, name: &str, since: u64) -> bool {
        since < self.blurred || self.changes.get(name).is_some_and(|change| *change > since)
    }

    /// The store has the draft as `meta`. A local file that nobody writes any more is the key now; one that is
    /// written on stays its writer's own, and the key gets an inode for readers.
    pub(crate) fn published_draft(
        &mut self,
        ino: Ino,
        id: DraftId,
        name: &str,
        meta: &Meta,
        generation: u64,
    ) {
        let Some(draft) = self.drafts.get_mut(&id) else { return };
        draft.published(meta, generation);
        self.unpublished.remove(name);
        let (time_set, still_written, written) = (draft.time_set, draft.handles > 0, draft.modified);
        let created = self.inodes.get(&ino).is_some_and(|inode| matches!(inode.body, Body::Local(_)));
        if let Some(set) = self.overrides.get_mut(name) {
            // Of a new file the kernel may have seen and kept the time of the last write.
            set.modified = (time_set || created).then_some(written);
            if created && !time_set {
                set.changed = set.changed.max(Some(written));
            }
        }
        let Some(inode) = self.inodes.get_mut(&ino).filter(|inode| matches!(inode.body, Body::Local(_)))
        else {
            return;
        };
        if still_written {
            inode.body = Body::Draft(id);
            self.names.remove(name);
        } else if draft.changed && !draft.text.is_empty() {
            // Rewritten meanwhile, and closed: it becomes the key as any temporary file that is left alone.
            draft.purpose = Publish::OnRename;
        } else {
            if draft.changed {
                inode.mark_stale();
            }
            let key = inode.key.clone();
            self.remove_draft(id, Some(meta));
            self.become_key(ino, name, &key, meta.clone());
        }
    }

    /// Makes `ino` the inode of `name` and of this version of its key. What had the name before is replaced.
    pub(crate) fn become_key(&mut self, ino: Ino, name: &str, key: &Key, meta: Meta) {
        if let Some(old) = self.names.insert(name.to_owned(), ino).filter(|old| *old != ino) {
            self.collect(old);
        }
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.body = Body::Key(meta);
            inode.unlinked = false;
            inode.number = None;
            name.clone_into(&mut inode.name);
            inode.key = key.clone();
        }
    }

    /// The store has no such key any more. Who has it open keeps it.
    pub(crate) fn gone(&mut self, name: &str) {
        if self.named(name).is_some_and(|(_, inode)| matches!(inode.body, Body::Key(_))) {
            self.remove_name(name);
            self.note_change(name);
            self.touch(name);
        }
    }

    /// What has the name is replaced; those who hold it keep it.
    pub(crate) fn replace(&mut self, name: &str) {
        if let Some((_, inode)) = self.named(name) {
            if matches!(inode.body, Body::Local(_)) {
                unlinked(self, name);
            } else {
                self.remove_name(name);
            }
        }
    }

    /// Keeps in mind an inode that has lost its name to another one, if there may be some who watch it.
    pub(crate) fn note_replaced(&mut self, name: &str, ino: Ino) {
        let is_known = |ino: &Ino| self.inodes.get(ino).is_some_and(|inode| inode.lookups > 0);
        // One that the kernel still knows although its name leads elsewhere is more likely to be watched.
        if self.has_relay && is_known(&ino) && !self.replaced.get(name).is_some_and(is_known) {
            self.replaced.insert(name.to_owned(), ino);
        }
    }

    /// Those who watch this inode are told of `name`.
    pub(crate) fn no_longer_replaced(&mut self, name: &str, ino: Option<Ino>) {
        if self.replaced.get(name).copied() == ino {
            self.replaced.remove(name);
        }
    }

    /// The inode of a key under which the kernel knows the name, and which may be watched.
    pub(crate) fn watched(&self, name: &str) -> Option<Ino> {
        let is_watched = |inode: &Inode| inode.lookups > 0 && matches!(inode.body, Body::Key(_));
        let replaced = self.replaced.get(name).copied();
        let ino = replaced.filter(|ino| self.inodes.get(ino).is_some_and(is_watched));
        ino.or_else(|| self.named(name).filter(|(_, inode)| is_watched(inode)).map(|(ino, _)| ino))
    }

    /// Once nobody holds a replaced inode, its attributes are those of its key again.
    pub(crate) fn follow_again(&mut self, ino: Ino) -> Vec<PathInvalidation> {
        let Some(inode) = self.inodes.get(&ino) else { return Vec::new() };
        let replaced = matches!(inode.body, Body::Key(_)) && !self.is_current(ino, inode) && !inode.unlinked;
        if replaced && inode.handles == 0 && inode.lookups > 0 { self.stale(ino) } else { Vec::new() }
    }

    /// Makes the kernel drop what it knows of an inode.
    pub(crate) fn stale(&mut self, ino: Ino) -> Vec<PathInvalidation> {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.mark_stale();
        }
        vec![PathInvalidation::Inode(ino)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_directory_never_takes_a_changed_name_for_an_unchanged_one_and_few_are_remembered() {
        let mut state = State::new();
        let (before, _open) = state.open_directory();
        let name = |number: usize| number.to_string();
        for number in 0..2 * CHANGES + 10 {
            state.note_change(&name(number));
            assert!(state.changes.len() <= CHANGES);
        }
        assert!((0..2 * CHANGES + 10).all(|number| state.changed_since(&name(number), before)));
        let (since, _) = state.open_directory();
        assert!(!(0..2 * CHANGES + 10).any(|number| state.changed_since(&name(number), since)));
        state.note_change("k");
        assert!(state.changed_since("k", since) && !state.changed_since("l", since));
    }
}
