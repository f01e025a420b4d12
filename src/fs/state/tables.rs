//! The tables: inodes, names, open handles, drafts. Plain data behind one lock (`Fs::state`), which is never held
//! while anything waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::scratch;
use crate::fs::state::backups::DeferredRename;
use crate::fs::state::deferred::Deferred;
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::ledger::KernelCache;
use crate::fs::state::locks::Locks;
use crate::fs::state::nodes::{Body, Content, Directory, Handle, Inode, Overrides};
use crate::fs::state::redirects::Redirect;
use crate::fs::types::{DraftId, Fh, Ino, ROOT};
use crate::store::Key;

/// Everything the filesystem knows that is not in the store.
pub(crate) struct State {
    /// Inodes known to the kernel or holding local files.
    pub(crate) inodes: HashMap<Ino, Inode>,
    /// The inode a lookup of a name gives: of a key's current version, or of a local file.
    pub(crate) names: HashMap<String, Ino>,
    /// Directories below the root, by path.
    pub(crate) directories: HashMap<String, Directory>,
    /// Those that are gone and that the kernel still refers to, because somebody is in them.
    pub(crate) unlinked_directories: HashMap<String, Ino>,
    /// Open files.
    pub(crate) handles: HashMap<Fh, Handle>,
    /// Drafts.
    pub(crate) drafts: HashMap<DraftId, Draft>,
    /// Keys renamed to a backup name.
    pub(crate) deferred_renames: HashMap<String, DeferredRename>,
    /// When, in the count of changes, a name last changed while a directory was open.
    pub(crate) changes: HashMap<String, u64>,
    /// The count of changes.
    pub(crate) change: u64,
    /// Up to this count it is not known any more which names changed.
    pub(crate) blurred: u64,
    /// Shared with each open directory.
    pub(crate) open_listings: Arc<()>,
    /// Why the last text written to a file was not published, until one is.
    pub(crate) unpublished: HashMap<String, FsError>,
    /// The inodes that the files had when changes were missed, and those that went on as no newer version, for those who watch
    /// them.
    pub(crate) replaced: HashMap<String, Ino>,
    /// There are some (`--notify`).
    pub(crate) has_relay: bool,
    /// Names that this mount is changing in the store.
    pub(crate) in_flight: HashMap<String, Deferred>,
    /// By thread.
    pub(crate) redirects: HashMap<u32, Redirect>,
    /// By path; that of a directory ends in a slash.
    pub(crate) overrides: HashMap<String, Overrides>,
    /// flock(2) and fcntl(2).
    pub(crate) locks: Locks,
    /// Of the root.
    pub(crate) root: Overrides,
    /// When the names in the root last changed.
    pub(crate) root_modified: SystemTime,
    last_id: u64,
}

impl State {
    /// An empty directory.
    pub(crate) fn new() -> Self {
        Self {
            inodes: HashMap::new(),
            names: HashMap::new(),
            directories: HashMap::new(),
            unlinked_directories: HashMap::new(),
            replaced: HashMap::new(),
            has_relay: false,
            handles: HashMap::new(),
            drafts: HashMap::new(),
            deferred_renames: HashMap::new(),
            changes: HashMap::new(),
            change: 0,
            blurred: 0,
            open_listings: Arc::default(),
            unpublished: HashMap::new(),
            in_flight: HashMap::new(),
            redirects: HashMap::new(),
            overrides: HashMap::new(),
            locks: Locks::default(),
            root: Overrides::default(),
            root_modified: SystemTime::now(),
            last_id: ROOT.0,
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A new inode. It is kept while the kernel refers to it, it is open, or its name leads to it and it is local.
    pub(crate) fn add_inode(&mut self, name: &str, key: &Key, body: Body) -> Ino {
        let ino = Ino(self.next_id());
        if let Body::Local(draft) | Body::Draft(draft) = body
            && let Some(draft) = self.drafts.get_mut(&draft)
        {
            draft.ino = ino;
        }
        let (name, key) = (name.to_owned(), key.clone());
        let inode = Inode {
            name,
            key,
            body,
            lookups: 0,
            handles: 0,
            readers: 0,
            cached: KernelCache::Fresh,
            pinned: false,
            number: None,
            unlinked: false,
        };
        self.inodes.insert(ino, inode);
        ino
    }

    /// A new draft.
    pub(crate) fn add_draft(&mut self, draft: Draft) -> DraftId {
        let id = DraftId(self.next_id());
        self.drafts.insert(id, draft);
        id
    }

    /// A new handle on an inode.
    pub(crate) fn add_handle(&mut self, handle: Handle) -> Fh {
        let fh = Fh(self.next_id());
        if let Some(inode) = self.inodes.get_mut(&handle.ino) {
            inode.handles += 1;
            inode.readers += u32::from(handle.is_reader());
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

    /// The inode, or the error for one the kernel should not know.
    pub(crate) fn inode(&self, ino: Ino) -> FsResult<&Inode> {
        self.inodes.get(&ino).ok_or(FsError::NotFound)
    }

    /// The inode a lookup of `name` gives.
    pub(crate) fn named(&self, name: &str) -> Option<(Ino, &Inode)> {
        let ino = *self.names.get(name)?;
        Some((ino, self.inodes.get(&ino)?))
    }

    /// Whether a lookup of the inode's name gives this inode.
    pub(crate) fn is_current(&self, ino: Ino, inode: &Inode) -> bool {
        match inode.body {
            Body::Directory => self.directory_ino(&inode.name) == Some(ino),
            Body::Key(_) | Body::Local(_) | Body::Draft(_) => self.names.get(&inode.name) == Some(&ino),
        }
    }

    /// The draft of an open file.
    pub(crate) fn draft_of(&mut self, fh: Fh) -> FsResult<(DraftId, &mut Draft)> {
        let handle = self.handles.get(&fh).filter(|handle| handle.writable).ok_or(FsError::BadHandle)?;
        let Content::Draft(id) = handle.content else { return Err(FsError::BadHandle) };
        self.drafts.get_mut(&id).map(|draft| (id, draft)).ok_or(FsError::BadHandle)
    }

    /// Takes the name away from the inode it leads to. The kernel may still refer to the inode.
    pub(crate) fn remove_name(&mut self, name: &str) -> Option<Ino> {
        let ino = self.names.remove(name)?;
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
        let expected = self.redirects.values().any(|redirect| redirect.to == Some(ino));
        if inode.lookups > 0 || inode.handles > 0 || expected || named && matches!(inode.body, Body::Local(_))
        {
            return;
        }
        if let Some(inode) = self.inodes.remove(&ino) {
            self.no_longer_replaced(&inode.name, Some(ino));
            match inode.body {
                Body::Directory if named => self.forget_directory(&inode.name),
                Body::Directory if self.unlinked_directories.get(&inode.name) == Some(&ino) => {
                    self.unlinked_directories.remove(&inode.name);
                }
                _ if named => drop(self.names.remove(&inode.name)),
                _ => {}
            }
            // An inode that became a key keeps no draft.
            if let Body::Local(draft) | Body::Draft(draft) = inode.body
                && self.drafts.get(&draft).is_some_and(|draft| draft.handles == 0)
            {
                self.drafts.remove(&draft);
            }
        }
    }

    /// Takes a handle away. Returns it and whether it was its draft's last writer.
    pub(crate) fn remove_handle(&mut self, fh: Fh) -> Option<(Handle, bool)> {
        let handle = self.handles.remove(&fh)?;
        if let Some(inode) = self.inodes.get_mut(&handle.ino) {
            inode.handles = inode.handles.saturating_sub(1);
            inode.readers = inode.readers.saturating_sub(u32::from(handle.is_reader()));
        }
        self.locks.release_handle(fh.0);
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

    /// Whether somebody writes a draft for `name`.
    pub(crate) fn is_drafted(&self, name: &str) -> bool {
        let writing = self.drafts.values().filter(|draft| draft.handles > 0 && !draft.orphan);
        writing.filter_map(|draft| self.inodes.get(&draft.ino)).any(|inode| inode.name == name)
    }

    /// Name and key of a new file that nobody writes and that is empty, unless it is the successor of one that was renamed
    /// to a backup name.
    pub(crate) fn empty_file(&self, ino: Ino) -> Option<(String, Key)> {
        let inode = self.inodes.get(&ino)?;
        let Body::Local(id) = inode.body else { return None };
        let draft = self.drafts.get(&id)?;
        let empty = draft.purpose == Publish::OnClose && draft.handles == 0 && draft.text.is_empty();
        let new = self.is_current(ino, inode) && !self.deferred_renames.contains_key(&inode.name);
        (empty && new).then(|| (inode.name.clone(), inode.key.clone()))
    }

    /// Bytes in scratch files, against [`scratch::TOTAL_LIMIT`].
    pub(crate) fn scratch_full(&self, more: usize) -> bool {
        let scratch = self.drafts.values().filter(|draft| draft.purpose != Publish::OnClose);
        scratch.map(|draft| draft.text.len()).sum::<usize>().saturating_add(more) > scratch::TOTAL_LIMIT
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
