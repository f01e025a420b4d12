//! From one version of a key to the next: which inode has the name, and what the kernel must drop.

use std::collections::HashSet;

use crate::fs::state::buffer::Moment;
use crate::fs::state::drafts::Publish;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Body, Content, Inode, Overrides};
use crate::fs::state::tables::State;
use crate::fs::state::unlinked::{orphan_drafts, unlinked};
use crate::fs::types::{DraftId, Fh, Ino};
use crate::store::{Entry, Expect, Key, Meta, Text};

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
    /// Where nobody reads the inode it goes on as the new version, and the kernel drops its pages; where somebody does, or
    /// where this is its [last](KernelCache::pin) version, it stays as it is, and the name leads to a new inode. While drafts
    /// are written no notice is needed: the name lasts for no lookup.
    pub(crate) fn install_version(&mut self, name: &str, meta: &Meta, by: Origin) -> Vec<PathInvalidation> {
        self.follow_attributes(name, meta);
        let known = self.named(name).map(|(_, inode)| &inode.body);
        if by != Origin::Read || matches!(known, Some(Body::Key(known)) if known.revision < meta.revision) {
            self.note_change(name);
        }
        let Some(ino) = self.paths.current(name) else {
            if by == Origin::Remote {
                return PathInvalidation::of_name(name);
            }
            return Vec::new();
        };
        let is_drafted = self.is_drafted(name);
        let Some(inode) = self.inodes.get_mut(&ino) else { return Vec::new() };
        match &mut inode.body {
            Body::Key(known) if known.revision >= meta.revision => {
                // Who was told of this version waits for the kernel to know of no older one.
                if inode.cached.is_fresh() { Vec::new() } else { vec![PathInvalidation::Inode(ino)] }
            }
            Body::Key(known) if inode.readers == 0 && !inode.cached.is_pinned() && !is_drafted => {
                *known = meta.clone();
                inode.cached.mark_stale();
                self.leave_readers_behind(name, meta.revision);
                vec![PathInvalidation::Inode(ino)]
            }
            Body::Key(_) => self.supersede(name, ino, meta, is_drafted),
            // Somebody else set the key of a file that is only local so far. It is the key now: who writes to the file goes on
            // with his draft of it. No dentry of a local file lasts.
            &mut Body::Local(id) => {
                match self.drafts.get(&id) {
                    Some(draft) if draft.purpose != Publish::OnClose || draft.orphan => {}
                    Some(draft) if draft.handles > 0 => {
                        inode.body = Body::Draft(id);
                        self.go_away(name, ino);
                    }
                    Some(draft) if draft.bytes.is_empty() => {
                        self.paths.take_current(name);
                        self.collect(ino);
                    }
                    Some(_) | None => {}
                }
                Vec::new()
            }
            Body::Draft(_) | Body::Directory => Vec::new(),
        }
    }

    /// Takes in the attributes of the key at `name`, if the kernel may know that: the inodes whose attributes are others now.
    pub(crate) fn follow_attributes(&mut self, name: &str, meta: &Meta) -> Vec<Ino> {
        let inos = [self.paths.current(name), self.paths.home(name)];
        let (known, is_drafted) = (self.paths.attributes(name), self.is_drafted(name));
        if known.is_none() && !is_drafted && inos.iter().all(Option::is_none) {
            return Vec::new();
        }
        if !Overrides::are_older(known, meta) {
            return Vec::new();
        }
        self.paths.set_attributes(name, Overrides::followed(known, meta));
        inos.into_iter().flatten().collect()
    }

    /// The inode of the name keeps its version, and the name leads elsewhere: until those who have it open have closed it, or
    /// for good if it is pinned.
    fn supersede(&mut self, name: &str, ino: Ino, meta: &Meta, is_drafted: bool) -> Vec<PathInvalidation> {
        let Some(inode) = self.inodes.get_mut(&ino) else { return Vec::new() };
        let (pinned, known) = (inode.cached.is_pinned(), inode.lookups > 0);
        let (key, may_last) = (inode.key.clone(), inode.cached.drop_dentry());
        let mut invalidations = Vec::new();
        if pinned && !is_drafted {
            self.remove_name(name);
            if known {
                self.note_replaced(name, ino);
                // Those that follow their key find it here.
                let successor = self.add_inode(name, &key, Body::Key(meta.clone()));
                self.lead_to(name, successor);
            }
            invalidations = self.follow_again(ino);
        } else {
            self.go_away(name, ino);
        }
        self.leave_readers_behind(name, meta.revision);
        if may_last {
            invalidations.push(PathInvalidation::Entry(name.to_owned()));
        }
        invalidations
    }

    /// The name is being removed or replaced: its inodes, the one that it comes back to too, never go on as a newer version from
    /// now on.
    pub(crate) fn begin_removal(&mut self, name: &str) -> [Option<Ino>; 2] {
        let inos = self.inodes_of(name);
        for ino in inos.into_iter().flatten() {
            self.inodes.get_mut(&ino).into_iter().for_each(|inode| inode.cached.begin_removal());
        }
        inos
    }

    /// The removal of the name of these inodes is over, however it ended.
    pub(crate) fn end_removal(&mut self, inos: [Option<Ino>; 2]) {
        for ino in inos.into_iter().flatten() {
            self.inodes.get_mut(&ino).into_iter().for_each(|inode| inode.cached.end_removal());
        }
    }

    /// Whether somebody reads the file past the page cache of whom it is not known whether he has its size.
    pub(crate) fn has_unsure_reader(&self, name: &str) -> bool {
        let has_witness =
            |ino: &Ino| self.inodes.get(ino).is_some_and(|inode| inode.cached.size.witness().is_some());
        self.inodes_of(name).iter().flatten().any(has_witness)
    }

    /// Whether a reader of the inode may not have its size, and the kernel is about to ignore what it asks for it.
    pub(crate) fn may_stay_unsure(&self, ino: Ino) -> bool {
        self.inodes
            .get(&ino)
            .is_some_and(|inode| inode.cached.is_being_removed() && !inode.cached.size.is_known())
    }

    fn inodes_of(&self, name: &str) -> [Option<Ino>; 2] {
        [self.paths.current(name), self.paths.home(name)]
    }

    /// What pinned the inode is over, and the name that it had is another file's: one that is bind-mounted alone follows that.
    pub(crate) fn follow_replacement(&mut self, ino: Ino) {
        let has_name = self.inodes.get(&ino).is_none_or(|inode| self.belongs_to(&inode.name, ino));
        if let Some(inode) = self.inodes.get_mut(&ino).filter(|_| !has_name) {
            inode.cached.replaced();
        }
    }

    /// Notes that `name` is not what the directories that are open now may say of it.
    pub(crate) fn note_change(&mut self, name: &str) {
        self.listings.note(name);
        self.forget_predecessor(name);
    }

    /// Makes the kernel look every name up again, and open directories every name they list. A kernel that cannot drop
    /// all names `at_once` is told of each that it may remember.
    pub(crate) fn all_changed(&mut self, at_once: bool) -> Vec<PathInvalidation> {
        self.listings.note_all();
        let root = PathInvalidation::Listing(String::new());
        if at_once {
            return vec![PathInvalidation::Everything, root];
        }
        let known = self.inodes.values().filter(|inode| inode.lookups > 0);
        let names: HashSet<&String> = known.map(|inode| &inode.name).collect();
        names.into_iter().cloned().map(PathInvalidation::Entry).chain([root]).collect()
    }

    /// The store has the draft as `meta`. A local file that nobody writes any more is the key now; one that is
    /// written on stays its writer's own, and the key gets an inode for readers.
    pub(crate) fn published_draft(&mut self, ino: Ino, id: DraftId, name: &str, meta: &Meta, moment: Moment) {
        let Some(draft) = self.drafts.get_mut(&id) else { return };
        draft.published(meta, moment);
        self.paths.set_failure(name, None);
        let (time_set, still_written, written) =
            (draft.bytes.is_time_set(), draft.handles > 0, draft.bytes.modified());
        self.paths.edit_attributes(name, |set| {
            // Who wrote it has seen the time of the last write, and so may the kernel have.
            set.modified = Some(written);
            set.by_write = !time_set;
            set.version = Some(meta.revision);
            if !time_set {
                set.changed = set.changed.max(Some(written));
            }
        });
        self.paths.note_written(name);
        let Some(inode) = self.inodes.get_mut(&ino).filter(|inode| matches!(inode.body, Body::Local(_)))
        else {
            return;
        };
        if still_written {
            inode.body = Body::Draft(id);
            self.go_away(name, ino);
        } else if draft.bytes.is_changed() && !draft.bytes.is_empty() {
            // Rewritten meanwhile, and closed: it becomes the key as any temporary file that is left alone.
            draft.purpose = Publish::OnRename;
        } else {
            if draft.bytes.is_changed() || !draft.shows_published() {
                inode.cached.mark_stale();
            }
            let key = inode.key.clone();
            self.remove_draft(id, Some(meta));
            self.become_key(ino, name, &key, meta.clone());
        }
    }

    /// Makes `ino` the inode of `name` and of this version of its key. What had the name before is replaced.
    pub(crate) fn become_key(&mut self, ino: Ino, name: &str, key: &Key, meta: Meta) {
        self.lead_to(name, ino);
        self.leave_readers_behind(name, meta.revision);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            self.paths.forget_lost(&inode.name, ino);
            inode.body = Body::Key(meta);
            inode.unlinked = false;
            inode.private = None;
            name.clone_into(&mut inode.name);
            inode.key = key.clone();
        }
        self.paths.leave_home(name, ino);
    }

    /// The store has no such key any more. Who has it open keeps it.
    pub(crate) fn gone(&mut self, name: &str) {
        if self.named(name).is_some_and(|(_, inode)| matches!(inode.body, Body::Key(_))) {
            self.drop_version(name);
            self.forget_home(name);
            self.end_file(name);
        }
    }

    /// Which version the store has is not known any more.
    pub(super) fn drop_version(&mut self, name: &str) {
        if self.named(name).is_some_and(|(_, inode)| matches!(inode.body, Body::Key(_))) {
            self.remove_name(name);
            self.note_change(name);
            self.touch(name);
        }
    }

    /// What has the name is replaced by another file. Who writes it goes on with one that has no name; who reads it keeps it;
    /// one that is bind-mounted alone follows the name.
    pub(crate) fn replace(&mut self, name: &str) {
        if let Some((ino, inode)) = self.named(name) {
            match inode.body {
                Body::Local(_) => unlinked(self, name),
                _ => self.go_away(name, ino),
            }
        }
        orphan_drafts(self, name, true);
        if let Some(ino) = self.paths.home(name) {
            self.paths.leave_home(name, ino);
            // What pinned it was this.
            self.inodes.get_mut(&ino).into_iter().for_each(|inode| inode.cached.replaced());
        }
        self.end_file(name);
    }

    /// Keeps in mind an inode that has lost its name to another one, if there may be some who watch it.
    pub(crate) fn note_replaced(&mut self, name: &str, ino: Ino) {
        let is_known = |ino: &Ino| self.inodes.get(ino).is_some_and(|inode| inode.lookups > 0);
        // One that the kernel still knows although its name leads elsewhere is more likely to be watched.
        if self.paths.keeps_replaced()
            && is_known(&ino)
            && !self.paths.replaced(name).is_some_and(|ino| is_known(&ino))
        {
            self.paths.set_replaced(name, Some(ino));
        }
    }

    /// Those who watch this inode are told of `name`.
    pub(crate) fn no_longer_replaced(&mut self, name: &str, ino: Option<Ino>) {
        if self.paths.replaced(name) == ino {
            self.paths.set_replaced(name, None);
        }
    }

    /// The inode of a key under which the kernel knows the name, and which may be watched.
    pub(crate) fn watched(&self, name: &str) -> Option<Ino> {
        let is_watched =
            |inode: &Inode| inode.lookups > 0 && matches!(inode.body, Body::Key(_) | Body::Draft(_));
        let replaced = self.paths.replaced(name).or_else(|| self.paths.home(name));
        let ino = replaced.filter(|ino| self.inodes.get(ino).is_some_and(is_watched));
        ino.or_else(|| self.named(name).filter(|(_, inode)| is_watched(inode)).map(|(ino, _)| ino))
    }

    /// Once nobody holds an inode that was replaced, or whose name was removed, its attributes are those of its key again.
    pub(crate) fn follow_again(&mut self, ino: Ino) -> Vec<PathInvalidation> {
        let Some(inode) = self.inodes.get(&ino) else { return Vec::new() };
        let replaced = matches!(inode.body, Body::Key(_)) && !self.is_current(ino, inode);
        if replaced && inode.handles == 0 && inode.lookups > 0 { self.stale(ino) } else { Vec::new() }
    }

    /// Makes the kernel drop what it knows of an inode.
    pub(crate) fn stale(&mut self, ino: Ino) -> Vec<PathInvalidation> {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.cached.mark_stale();
        }
        vec![PathInvalidation::Inode(ino)]
    }

    /// Gives a handle that changed nothing the current version. False if it changed something meanwhile.
    pub(crate) fn renew(&mut self, ino: Ino, fh: Fh, entry: &Entry) -> bool {
        let Some(handle) = self.handles.get_mut(&fh) else { return false };
        match &mut handle.content {
            Content::Snapshot(text, meta) => {
                *text = entry.text.clone();
                *meta = Some(entry.meta.clone());
                if let Some(inode) = self.inodes.get_mut(&ino) {
                    inode.body = Body::Key(entry.meta.clone());
                }
                true
            }
            Content::Draft(id) => {
                let id = *id;
                let Some(draft) = self.drafts.get_mut(&id).filter(|draft| !draft.bytes.is_changed()) else {
                    return false;
                };
                draft.reset(&entry.text, entry.meta.modified);
                draft.expect = Expect::At(entry.meta.revision);
                draft.published = Some(entry.meta.clone());
                true
            }
        }
    }

    /// The inode that has the name, or comes to have it as that of this version of a key, and what the kernel is to drop then.
    pub(crate) fn instantiate(&mut self, name: &str, key: &Key, meta: &Meta) -> (Ino, Vec<PathInvalidation>) {
        if let Some(ino) = self.paths.current(name) {
            self.follow_attributes(name, meta);
            return (ino, Vec::new());
        }
        let invalidations = self.come_home(name, Some(meta.clone()));
        if let Some(ino) = self.paths.current(name) {
            return (ino, invalidations);
        }
        let ino = self.add_inode(name, key, Body::Key(meta.clone()));
        self.lead_to(name, ino);
        self.follow_attributes(name, meta);
        self.leave_readers_behind(name, meta.revision);
        (ino, invalidations)
    }

    /// Removes a draft that nobody writes any more. Who reads it goes on with its last text, which is the version
    /// `published`, if that is one.
    pub(crate) fn remove_draft(&mut self, id: DraftId, published: Option<&Meta>) {
        let Some(draft) = self.drafts.remove(&id) else { return };
        if let Some(inode) = self.inodes.get(&draft.ino) {
            self.paths.remove_draft(&inode.name, id);
        }
        if self.inodes.get(&draft.ino).is_none_or(|inode| inode.handles == 0) {
            return;
        }
        let text = Text::from(draft.bytes.text());
        for handle in self.handles.values_mut() {
            if matches!(handle.content, Content::Draft(read) if read == id) {
                handle.content = Content::Snapshot(text.clone(), published.cloned());
                if let Some(inode) = self.inodes.get_mut(&handle.ino) {
                    inode.readers += 1;
                }
            }
        }
    }
}
