//! The inode that a name comes back to.
//!
//! A writer works on the inode that the name has, if nobody else has that open: so those who watch it, have bound it or look
//! by a descriptor see what becomes of the file. Meanwhile lookups find a snapshot of the published version, for which the
//! kernel remembers no dentry. Who reads the inode keeps its version, and the name leads elsewhere until he has closed it.

use std::time::Duration;

use tokio::time::Instant;

use crate::fs::rules::error::FsError;
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Body, Inode, Private};
use crate::fs::state::tables::State;
use crate::fs::state::turns::{Turn, Turns};
use crate::fs::types::{DraftId, Ino};
use crate::store::{Deadline, Entry, Expect, Key, Meta, Revision, Text};

impl State {
    /// Whether the name is not at home, or will not stay there: a lookup of it is good for no time.
    pub(crate) fn is_away(&self, name: &str) -> bool {
        let lives = |draft: &Draft| draft.handles > 0 || self.redirects.are_awaited_at(draft.ino);
        let drafts = self.paths.drafts(name);
        let mut drafts = drafts.iter().filter_map(|id| self.draft(*id)).filter(|draft| !draft.orphan);
        self.paths.home(name).is_some() || drafts.any(lives)
    }

    /// What a caller finds who was sent to look again, where others find `ino`: the `newest` version that is known, which may be
    /// one that is about to be shown to all.
    pub(crate) fn private(&mut self, ino: Ino, newest: Option<Entry>) -> Ino {
        let Some(Inode { name, key, body: Body::Key(meta), .. }) = self.inodes.get(&ino) else { return ino };
        let (name, key) = (name.clone(), key.clone());
        let (meta, text) = match newest.filter(|entry| entry.meta.revision >= meta.revision) {
            Some(entry) => (entry.meta, Some(entry.text)),
            None => (meta.clone(), None),
        };
        let private = self.add_inode(&name, &key, Body::Key(meta));
        // The kernel drops the dentry itself when it is told of another inode.
        self.drop_dentries(&name);
        if let Some(inode) = self.inodes.get_mut(&private) {
            inode.private = Some(Private { text });
        }
        private
    }

    /// What the kernel is to drop before `thread` writes where it was sent, at the name `name`: nothing, for it drops the dentry
    /// itself when it is told of that inode, unless that was long ago.
    pub(crate) fn drop_late_dentries(&mut self, thread: u32, name: &str) -> Option<PathInvalidation> {
        let dentry = self.drop_dentries(name);
        dentry.filter(|_| self.redirects.is_late(thread))
    }

    /// A draft that nobody has opened yet goes on from this version of the key, if it began with another one: who was sent to it
    /// may have given that open up, and come for another one.
    pub(crate) fn rebase(&mut self, ino: Ino, newest: &Entry) -> bool {
        let Some(inode) = self.inodes.get_mut(&ino).filter(|inode| inode.handles == 0) else { return false };
        let Body::Draft(id) = inode.body else { return false };
        let is_other = |draft: &&mut Draft| {
            draft.handles == 0 && draft.published.as_ref().is_some_and(|base| *base != newest.meta)
        };
        let Some(draft) = self.drafts.get_mut(&id).filter(is_other) else { return false };
        // One that truncates begins with nothing, whatever is there.
        if matches!(draft.expect, Expect::At(_)) {
            draft.reset(&newest.text, newest.meta.modified);
            draft.expect = Expect::At(newest.meta.revision);
        }
        draft.published = Some(newest.meta.clone());
        if inode.lookups > 0 {
            inode.cached.mark_stale();
        }
        true
    }

    /// Whether the inode is that of a new file which others write and have published nothing of, for all that is known of
    /// `thread`.
    pub(crate) fn is_unpublished_to(&self, ino: Ino, thread: u32) -> bool {
        let Some(Inode { body: Body::Local(id), .. }) = self.inodes.get(&ino) else { return false };
        let is_new = |draft: &Draft| {
            draft.purpose == Publish::OnClose
                && draft.published.is_none()
                && draft.handles > 0
                && !draft.orphan
        };
        self.draft(*id).is_some_and(is_new) && !self.is_written_by(*id, thread)
    }

    /// What others see of a new file of which nothing is published: an empty file. Who writes to that has a draft of his own.
    pub(crate) fn empty_stand_in(&mut self, ino: Ino) -> Ino {
        let Some(Inode { name, key, body: Body::Local(id), .. }) = self.inodes.get(&ino) else { return ino };
        let (name, key) = (name.clone(), key.clone());
        let modified = self.draft(*id).map_or_else(|| self.now(), |draft| draft.bytes.unchanged());
        let empty = self.add_inode(&name, &key, Body::Key(Meta::nothing(modified)));
        if let Some(inode) = self.inodes.get_mut(&empty) {
            inode.private = Some(Private { text: Some(Text::from([])) });
        }
        empty
    }

    /// Whether the inode shows this version, and nobody writes to it.
    pub(crate) fn is_read_as(&self, ino: Ino, version: Revision) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| {
            let shows = matches!(&inode.body, Body::Key(meta) if meta.revision == version);
            shows && inode.readers == inode.handles && !inode.unlinked
        })
    }

    /// truncate(2) of an inode that somebody has open: its size is not to change under him. The answer "look again" makes the
    /// kernel look the name up, whatever dentry it has, and what it is told then lasts for no time. Who comes back has an
    /// inode of his own, or no name.
    pub(crate) fn look_again_to_truncate(&mut self, thread: u32, ino: Ino) -> Option<FsError> {
        let inode = self.inodes.get(&ino)?;
        let is_key = matches!(inode.body, Body::Key(_) | Body::Draft(_)) && inode.private.is_none();
        if !is_key || inode.handles == 0 || self.is_retry(thread, &inode.name, Instant::now()) {
            return None;
        }
        Some(self.redirect(thread, ino, None))
    }

    /// stat(2) of an inode that is written to by others, by who may have found it by its name before. The answer "look again" makes
    /// the kernel look the name up; who is back without that has none.
    pub(crate) fn look_again_to_stat(&mut self, thread: u32, ino: Ino) -> Option<FsError> {
        let name = self.inodes.get(&ino).filter(|inode| matches!(inode.body, Body::Draft(_)))?.name.clone();
        self.redirects.add_look(thread, &name).then_some(FsError::Superseded)
    }

    /// A lookup by `thread` finds nothing under `name`; the draft inode made for it goes.
    pub(crate) fn finds_nothing(&mut self, thread: u32, name: &str) {
        if let Some(ino) = self.redirects.find_nothing(thread, name) {
            self.collect(ino);
        }
    }

    /// truncate(2) by name made the inode this version, and the kernel truncates what it has of it; but not under who reads it.
    pub(crate) fn truncated(&mut self, ino: Ino, meta: &Meta) {
        let inode = self.inodes.get_mut(&ino).filter(|inode| inode.handles == 0 && inode.cached.is_fresh());
        if let Some(Inode { name, body: Body::Key(known), cached, .. }) = inode {
            *known = meta.clone();
            // It ignores what it is told until it has taken in the answer.
            cached.size.forget();
            let name = name.clone();
            self.note_change(&name);
        }
    }

    /// An inode that its name does not lead to, and that nobody has open, goes on as this version: who opens it comes by way
    /// of a bind mount, or was sent to look again when the text of its version was not at hand. Whether the kernel is to drop
    /// what it has of others first.
    pub(crate) fn follow(&mut self, ino: Ino, meta: &Meta) -> bool {
        let follows = |inode: &&mut Inode| {
            let is_other = matches!(&inode.body, Body::Key(known) if known.revision != meta.revision);
            is_other
                && inode.handles == 0
                && inode.private.as_ref().is_none_or(|private| private.text.is_none())
                && !inode.unlinked
                && !inode.cached.is_pinned()
        };
        let Some(inode) = self.inodes.get_mut(&ino).filter(follows) else { return false };
        inode.body = Body::Key(meta.clone());
        inode.cached.mark_stale();
        true
    }

    /// Whether the name leads to the inode, or comes back to it.
    pub(crate) fn belongs_to(&self, name: &str, ino: Ino) -> bool {
        self.paths.current(name) == Some(ino) || self.paths.home(name) == Some(ino)
    }

    /// Whether a writer may work on the inode itself: nobody else has it open, or may have it open next as the snapshot that a
    /// lookup found, and the kernel has no pages of another version.
    pub(crate) fn is_free(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| {
            matches!(inode.body, Body::Key(_))
                && inode.handles == 0
                && !inode.unlinked
                && (inode.private.is_some() || !self.is_stand_in(ino, inode))
                && inode.cached.is_fresh()
                && self.paths.deferred_rename(&inode.name).is_none()
        })
    }

    /// Whether lookups find the inode while the one that the name comes back to is written.
    fn is_stand_in(&self, ino: Ino, inode: &Inode) -> bool {
        let is_away = self.paths.home(&inode.name).is_some_and(|home| home != ino);
        is_away && self.is_current(ino, inode)
    }

    /// Whether it is the turn of this open of the inode.
    pub(crate) fn is_next(&self, ino: Ino, turn: Option<Turn>, writes: bool) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| inode.turns.is_next(turn, writes))
    }

    /// For how long an open of the inode by `thread`, which cannot be answered "look again", waits for others to close it. Its own
    /// process does not; and one that cannot be recognised is not known to be back for long.
    pub(crate) fn patience(&self, ino: Ino, thread: u32) -> Duration {
        let time = self.inodes.get(&ino).map_or(Duration::ZERO, |inode| inode.turns.patience());
        if time > Turns::PATIENCE && (thread == 0 || self.opened_by_process(thread, ino).is_some()) {
            return Turns::PATIENCE;
        }
        Deadline::left(time)
    }

    /// Whether readers alone have the inode open that the name has, and one of them came within this time: they may be gone soon.
    pub(crate) fn may_be_free_soon(&self, ino: Ino, time: Duration) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| {
            let is_read = matches!(inode.body, Body::Key(_)) && inode.handles > 0;
            is_read && inode.turns.is_read_within(time) && self.is_current(ino, inode)
        })
    }

    /// The draft is written on the inode; if that has the name, it has it again at the end of that. What the kernel is to drop
    /// before the draft changes: while it lives, the name lasts for no lookup. A dentry that were only expired could get a new
    /// life by a revalidation in flight.
    pub(crate) fn write_on(&mut self, ino: Ino, draft: DraftId) -> Option<PathInvalidation> {
        let inode = self.inodes.get_mut(&ino)?;
        inode.body = Body::Draft(draft);
        let name = inode.name.clone();
        self.own_draft(draft, ino);
        self.go_away(&name, ino);
        self.drop_dentries(&name)
    }

    /// The name leads elsewhere for as long as somebody has the inode open.
    pub(super) fn go_away(&mut self, name: &str, ino: Ino) {
        if self.paths.current(name) == Some(ino) {
            self.paths.set_home(name, ino);
            self.remove_name(name);
        }
    }

    /// The file at `from` is at `to`, with the inode that its name comes back to.
    pub(super) fn rename_home(&mut self, from: &str, to: &str, key: &Key) {
        let Some(ino) = self.paths.home(from) else { return };
        self.paths.leave_home(from, ino);
        self.paths.set_home(to, ino);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            to.clone_into(&mut inode.name);
            inode.key = key.clone();
        }
    }

    /// The name does not come back: what it leads to from now on is another file, or nothing.
    pub(super) fn forget_home(&mut self, name: &str) {
        if let Some(ino) = self.paths.home(name) {
            self.paths.leave_home(name, ino);
            self.lose(ino);
        }
    }

    /// The name of the inode is removed.
    pub(super) fn lose(&mut self, ino: Ino) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.unlinked = true;
        // What pinned it was this.
        inode.cached.replaced();
        if inode.lookups > 0 {
            self.paths.lose(&inode.name, ino);
        }
    }

    /// Whether the inode goes on as what its name leads to: it is bind-mounted alone, and was replaced or removed.
    pub(crate) fn follows_name(&self, ino: Ino, inode: &Inode) -> bool {
        let is_left = matches!(inode.body, Body::Key(_)) && inode.handles == 0 && inode.private.is_none();
        is_left && !self.is_current(ino, inode)
    }

    /// There is a file again at `path`: the inode that has lost the name, and shows another one from now on.
    pub(crate) fn take_lost(&mut self, path: &str) -> Option<Ino> {
        self.paths.take_lost(path)
    }

    /// There is a file again under the name that the inode has lost: one that nobody has open, and that is bind-mounted alone, goes
    /// on as that.
    pub(crate) fn find_again(&mut self, ino: Ino) {
        if self.inodes.get(&ino).is_some_and(|inode| self.follows_name(ino, inode)) {
            self.inodes.get_mut(&ino).into_iter().for_each(|inode| inode.unlinked = false);
        }
    }

    /// A draft is to be written elsewhere than on the inode of the name: what the kernel is to drop before.
    pub(crate) fn drop_dentries(&mut self, name: &str) -> Option<PathInvalidation> {
        let inodes = [self.paths.current(name), self.paths.home(name)];
        let mut may_last = false;
        for ino in inodes.into_iter().flatten() {
            may_last |= self.inodes.get_mut(&ino).is_some_and(|inode| inode.cached.drop_dentry());
        }
        may_last.then(|| PathInvalidation::Entry(name.to_owned()))
    }

    /// The name comes back to its inode if nobody has that open any more, as the `newest` version that is known. The kernel is
    /// to drop what it has of others.
    pub(crate) fn come_home(&mut self, name: &str, newest: Option<Meta>) -> Vec<PathInvalidation> {
        let Some(ino) = self.paths.home(name) else { return Vec::new() };
        let Some(inode) = self.inodes.get(&ino) else { return Vec::new() };
        let Body::Key(own) = &inode.body else { return Vec::new() };
        if inode.handles > 0 || self.is_drafted(name) || self.paths.deferred_rename(name).is_some() {
            return Vec::new();
        }
        let (own, key, pinned) = (own.revision, inode.key.clone(), inode.cached.is_pinned());
        let snapshot = self.named(name).map(|(ino, inode)| (ino, inode.body.clone()));
        let meta = match &snapshot {
            Some((_, Body::Key(meta))) => Some(meta.clone()),
            Some(_) => return Vec::new(),
            None => newest,
        };
        let Some(meta) = meta else { return Vec::new() };
        self.paths.leave_home(name, ino);
        if pinned && own != meta.revision {
            return self.follow_again(ino);
        }
        let mut invalidations = Vec::new();
        if let Some((snapshot, _)) = snapshot
            && self.inodes.get_mut(&snapshot).is_some_and(|inode| inode.cached.drop_dentry())
        {
            invalidations.push(PathInvalidation::Entry(name.to_owned()));
        }
        let is_other = own != meta.revision;
        self.become_key(ino, name, &key, meta);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            if is_other {
                inode.cached.mark_stale();
            }
            if !inode.cached.is_fresh() {
                invalidations.push(PathInvalidation::Inode(ino));
            }
        }
        invalidations
    }
}
