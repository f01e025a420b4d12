//! The tables: inodes, names, open handles, drafts. Plain data behind one lock (`Fs::state`), which is never held
//! while anything waits.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::fs::clock::Clock;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::directory::Directories;
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::files::Files;
use crate::fs::state::ledger::KernelCache;
use crate::fs::state::listings::OpenListings;
use crate::fs::state::locks::Locks;
use crate::fs::state::nodes::{Body, Content, Handle, Inode};
use crate::fs::state::paths::Paths;
use crate::fs::state::predecessors::Predecessors;
use crate::fs::state::quota::Quota;
use crate::fs::state::redirects::Redirects;
use crate::fs::state::turns::Turns;
use crate::fs::types::{ByNumber, DraftId, Fh, FileNumber, Ino, ROOT};
use crate::store::Key;
use crate::sys;

/// Everything the filesystem knows that is not in the store.
pub(crate) struct State {
    /// Inodes known to the kernel or holding local files.
    pub(super) inodes: ByNumber<Ino, Inode>,
    /// What is known of each path.
    pub(super) paths: Paths,
    /// The files by their numbers.
    pub(super) files: Files,
    /// What changed while directories are open.
    pub(super) listings: OpenListings,
    /// Open files.
    pub(super) handles: ByNumber<Fh, Handle>,
    /// Drafts.
    pub(super) drafts: ByNumber<DraftId, Draft>,
    /// By thread.
    pub(super) redirects: Redirects,
    /// What was removed of late.
    pub(super) predecessors: Predecessors,
    /// What is known of directories beside their records.
    pub(super) directories: Directories,
    /// What may be in memory alone.
    pub(super) quota: Quota,
    /// The store takes the ids of new keys from this mount.
    pub(super) takes_ids: bool,
    last_id: u64,
    clock: Arc<dyn Clock>,
}

impl State {
    /// An empty directory.
    pub(crate) fn new(clock: Arc<dyn Clock>, takes_ids: bool) -> Self {
        let now = clock.now();
        Self {
            inodes: ByNumber::default(),
            paths: Paths::default(),
            files: Files::default(),
            listings: OpenListings::default(),
            handles: ByNumber::default(),
            drafts: ByNumber::default(),
            redirects: Redirects::default(),
            predecessors: Predecessors::default(),
            directories: Directories::new(now),
            quota: Quota::MOUNT,
            takes_ids,
            last_id: ROOT.0,
            clock,
        }
    }

    /// The time of now.
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A new inode. It is kept while the kernel refers to it, it is open, or its name leads to it and it is local.
    pub(crate) fn add_inode(&mut self, name: &str, key: &Key, body: Body) -> Ino {
        let ino = Ino(self.next_id());
        let draft = match body {
            Body::Local(draft) | Body::Draft(draft) => Some(draft),
            Body::Key(_) | Body::Directory => None,
        };
        let file = match body {
            Body::Directory => FileNumber(ino.0),
            Body::Key(_) | Body::Local(_) | Body::Draft(_) => self.refer_to_file_at(name, key, &body),
        };
        let (name, key) = (name.to_owned(), key.clone());
        let inode = Inode {
            name,
            key,
            file,
            body,
            lookups: 0,
            handles: 0,
            readers: 0,
            cached: KernelCache::default(),
            number: None,
            unlinked: false,
            private: None,
            turns: Turns::default(),
        };
        self.inodes.insert(ino, inode);
        if let Some(draft) = draft {
            self.own_draft(draft, ino);
        }
        ino
    }

    /// The draft is that of the inode, under the name that the inode has.
    pub(crate) fn own_draft(&mut self, id: DraftId, ino: Ino) {
        if let (Some(draft), Some(inode)) = (self.drafts.get_mut(&id), self.inodes.get(&ino)) {
            draft.ino = ino;
            self.paths.add_draft(&inode.name, id);
        }
    }

    /// A new draft.
    pub(crate) fn add_draft(&mut self, draft: Draft) -> DraftId {
        let id = DraftId(self.next_id());
        self.drafts.insert(id, draft);
        id
    }

    /// A new handle on an inode.
    pub(crate) fn add_handle(&mut self, mut handle: Handle) -> Fh {
        let fh = Fh(self.next_id());
        handle.file = self.refer_to_opened(handle.ino);
        if let Some(inode) = self.inodes.get_mut(&handle.ino) {
            inode.handles += 1;
            inode.readers += u32::from(handle.is_reader());
            inode.turns.note_open(handle.is_reader());
        }
        if let Content::Draft(draft) = handle.content
            && handle.writable
            && let Some(draft) = self.drafts.get_mut(&draft)
        {
            draft.handles += 1;
        }
        self.handles.insert(fh, handle);
        fh
    }

    /// What is known of each path.
    pub(crate) const fn paths(&self) -> &Paths {
        &self.paths
    }

    pub(crate) const fn paths_mut(&mut self) -> &mut Paths {
        &mut self.paths
    }

    /// What changed while directories are open.
    pub(crate) const fn listings(&self) -> &OpenListings {
        &self.listings
    }

    /// flock(2) and fcntl(2).
    pub(crate) const fn locks(&self) -> &Locks {
        &self.files.locks
    }

    pub(crate) const fn locks_mut(&mut self) -> &mut Locks {
        &mut self.files.locks
    }

    /// Answers "look again" to an open by `thread`, and remembers what its lookup shall find.
    pub(crate) fn redirect(&mut self, thread: u32, from: Ino, to: Option<Ino>) -> FsError {
        let name = self.inodes.get(&from).map(|inode| inode.name.clone()).unwrap_or_default();
        self.redirect_name(thread, name, to)
    }

    /// As [`State::redirect`], of what `name` may lead to.
    pub(crate) fn redirect_name(&mut self, thread: u32, name: String, to: Option<Ino>) -> FsError {
        for ino in self.redirects.add(thread, name, to) {
            self.collect(ino);
        }
        FsError::Superseded
    }

    /// Whether `thread` was sent to look for this inode.
    pub(crate) fn is_sent_to(&self, thread: u32, ino: Ino) -> bool {
        self.redirects.is_target(thread, ino)
    }

    /// `thread` looks `name` up. Whether an open may follow that cannot be answered "look again" once more.
    pub(crate) fn look_up(&mut self, thread: u32, name: &str) -> bool {
        self.redirects.look_up(thread, name)
    }

    /// Whether `thread`, which came at `since`, was told to look `name` up again and now is back.
    pub(crate) fn is_retry(&self, thread: u32, name: &str, since: Instant) -> bool {
        self.redirects.is_retry(thread, name, since)
    }

    /// The inode that an open by `thread` was sent to look for.
    pub(crate) fn redirected(&self, thread: u32, name: &str) -> Option<Ino> {
        self.redirects.target(thread, name)
    }

    /// An open of `ino` by `thread` is answered: it is not sent anywhere any more.
    pub(crate) fn end_retry(&mut self, thread: u32, ino: Ino) {
        if thread == 0
            && let Some(inode) = self.inodes.get(&ino)
        {
            self.redirects.end_unknown(&inode.name);
        }
        self.end_redirect(thread);
    }

    /// Forgets the redirect of `thread`; the draft inode made for it goes if nothing took it up.
    pub(crate) fn end_redirect(&mut self, thread: u32) {
        if let Some(ino) = self.redirects.take(thread) {
            self.collect(ino);
        }
    }

    /// A draft that is still there.
    pub(crate) fn draft(&self, id: DraftId) -> Option<&Draft> {
        self.drafts.get(&id)
    }

    pub(crate) fn draft_mut(&mut self, id: DraftId) -> Option<&mut Draft> {
        self.drafts.get_mut(&id)
    }

    pub(crate) fn drafts(&self) -> impl Iterator<Item = (DraftId, &Draft)> {
        self.drafts.iter().map(|(id, draft)| (*id, draft))
    }

    /// An open file.
    pub(crate) fn handle(&self, fh: Fh) -> FsResult<&Handle> {
        self.handles.get(&fh).ok_or(FsError::BadHandle)
    }

    pub(crate) fn handle_mut(&mut self, fh: Fh) -> Option<&mut Handle> {
        self.handles.get_mut(&fh)
    }

    pub(crate) fn inode_mut(&mut self, ino: Ino) -> Option<&mut Inode> {
        self.inodes.get_mut(&ino)
    }

    /// The kernel is told of the inode by an answer that is good for `ttl`, and refers to it until it forgets it.
    pub(crate) fn count_lookup(&mut self, ino: Ino, ttl: Duration) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            if inode.lookups == 0 {
                inode.cached.introduce();
            }
            inode.lookups += 1;
            inode.cached.tell(!ttl.is_zero());
        }
    }

    /// From now on inodes are kept in mind that somebody may watch (`--notify`).
    pub(crate) const fn set_relay(&mut self) {
        self.paths.keep_replaced();
    }

    /// The inode, or the error for one the kernel should not know.
    pub(crate) fn inode(&self, ino: Ino) -> FsResult<&Inode> {
        self.inodes.get(&ino).ok_or(FsError::NotFound)
    }

    /// The inode a lookup of `name` gives.
    pub(crate) fn named(&self, name: &str) -> Option<(Ino, &Inode)> {
        let ino = self.paths.current(name)?;
        Some((ino, self.inodes.get(&ino)?))
    }

    /// Whether a lookup of the inode's name gives this inode.
    pub(crate) fn is_current(&self, ino: Ino, inode: &Inode) -> bool {
        match inode.body {
            Body::Directory => self.directory_ino(&inode.name) == Some(ino),
            Body::Key(_) | Body::Local(_) | Body::Draft(_) => self.paths.current(&inode.name) == Some(ino),
        }
    }

    /// The draft of an open file.
    pub(crate) fn draft_of(&mut self, fh: Fh) -> FsResult<(DraftId, &mut Draft)> {
        let handle = self.handles.get(&fh).filter(|handle| handle.writable).ok_or(FsError::BadHandle)?;
        let Content::Draft(id) = handle.content else { return Err(FsError::BadHandle) };
        self.drafts.get_mut(&id).map(|draft| (id, draft)).ok_or(FsError::BadHandle)
    }

    /// From now on a lookup of `name` gives `ino`.
    pub(crate) fn lead_to(&mut self, name: &str, ino: Ino) {
        self.lead_to_file(name, ino);
        if let Some(old) = self.paths.set_current(name, ino).filter(|old| *old != ino) {
            self.collect(old);
        }
    }

    /// Takes the name away from the inode it leads to. The kernel may still refer to the inode.
    pub(crate) fn remove_name(&mut self, name: &str) -> Option<Ino> {
        let ino = self.paths.take_current(name)?;
        self.collect(ino);
        Some(ino)
    }

    /// Drops kernel references.
    pub(crate) fn forget(&mut self, ino: Ino, lookups: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(lookups);
            self.collect(ino);
        }
    }

    /// Removes an inode that nothing refers to any more.
    pub(crate) fn collect(&mut self, ino: Ino) {
        let Some(inode) = self.inodes.get(&ino) else { return };
        let named = self.is_current(ino, inode);
        let expected = self.redirects.lead_to(ino);
        if inode.lookups > 0 || inode.handles > 0 || expected || named && matches!(inode.body, Body::Local(_))
        {
            return;
        }
        if let Some(inode) = self.inodes.remove(&ino) {
            self.let_go_of_file(inode.file);
            self.no_longer_replaced(&inode.name, Some(ino));
            self.paths.forget_lost(&inode.name, ino);
            self.paths.leave_home(&inode.name, ino);
            match inode.body {
                Body::Directory if named => self.forget_directory(&inode.name),
                Body::Directory if self.paths.unlinked_directory(&inode.name) == Some(ino) => {
                    self.paths.set_unlinked_directory(&inode.name, None);
                }
                _ if named => drop(self.paths.take_current(&inode.name)),
                _ => {}
            }
            // An inode that became a key keeps no draft.
            if let Body::Local(draft) | Body::Draft(draft) = inode.body
                && self.drafts.get(&draft).is_some_and(|draft| draft.handles == 0)
            {
                self.drafts.remove(&draft);
                self.paths.remove_draft(&inode.name, draft);
            }
            self.paths.forget_attributes(&inode.name);
        }
    }

    /// Takes a handle away. Returns it and whether it was its draft's last writer.
    pub(crate) fn remove_handle(&mut self, fh: Fh) -> Option<(Handle, bool)> {
        let handle = self.handles.remove(&fh)?;
        if let Some(inode) = self.inodes.get_mut(&handle.ino) {
            inode.cached.size.closed(fh);
            inode.handles = inode.handles.saturating_sub(1);
            inode.readers = inode.readers.saturating_sub(u32::from(handle.is_reader()));
        }
        self.files.locks.release_handle(handle.file, fh.0);
        self.let_go_of_file(handle.file);
        let mut last = false;
        if let Content::Draft(draft) = handle.content
            && handle.writable
            && let Some(draft) = self.drafts.get_mut(&draft)
        {
            draft.handles -= 1;
            last = draft.handles == 0;
        }
        Some((handle, last))
    }

    /// The draft that is written on the inode, if `thread` certainly is of the process that opened it, and comes by way of
    /// `/proc/self/fd/N`.
    pub(crate) fn draft_of_process(&self, thread: u32, ino: Ino) -> Option<DraftId> {
        let Body::Draft(id) = self.inodes.get(&ino)?.body else { return None };
        (self.redirects.has_no_name(thread) && self.is_written_by(id, thread)).then_some(id)
    }

    /// What the process of `thread`, for all that is certain, has open of the inode that it opens anew by way of
    /// `/proc/self/fd/N`: what it writes, if anything.
    pub(crate) fn opened_by_process(&self, thread: u32, ino: Ino) -> Option<Content> {
        if !self.redirects.has_no_name(thread) {
            return None;
        }
        let handles = self.handles.values().filter(|handle| handle.ino == ino);
        let own = handles.filter(|handle| sys::same_process(thread, handle.opener));
        own.max_by_key(|handle| !handle.is_reader()).map(|handle| handle.content.clone())
    }

    /// Whether `thread` certainly is of a process that opened the draft.
    pub(crate) fn is_written_by(&self, id: DraftId, thread: u32) -> bool {
        let of_it = |handle: &&Handle| matches!(handle.content, Content::Draft(other) if other == id);
        self.handles.values().filter(of_it).any(|handle| sys::same_process(thread, handle.opener))
    }

    /// Whether the inode has a draft of a key, which `thread` certainly does not write.
    pub(crate) fn is_written_by_others(&self, ino: Ino, thread: u32) -> bool {
        let Some(Inode { body: Body::Draft(id), .. }) = self.inodes.get(&ino) else { return false };
        !self.is_sent_to(thread, ino) && !self.is_written_by(*id, thread)
    }

    /// Whether somebody writes a draft for `name`.
    pub(crate) fn is_drafted(&self, name: &str) -> bool {
        let drafts = self.paths.drafts(name);
        drafts.iter().filter_map(|id| self.draft(*id)).any(|draft| draft.handles > 0 && !draft.orphan)
    }

    /// Name and key of a new file that nobody writes and that is empty, unless it is the successor of one that was renamed
    /// to a backup name.
    pub(crate) fn empty_file(&self, ino: Ino) -> Option<(String, Key)> {
        let inode = self.inodes.get(&ino)?;
        let Body::Local(id) = inode.body else { return None };
        let draft = self.drafts.get(&id)?;
        let empty = draft.purpose == Publish::OnClose && draft.handles == 0 && draft.bytes.is_empty();
        let new = self.is_current(ino, inode) && self.paths.deferred_rename(&inode.name).is_none();
        (empty && new).then(|| (inode.name.clone(), inode.key.clone()))
    }
}
