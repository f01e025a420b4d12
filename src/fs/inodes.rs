//! The tables: inodes, names, open handles, drafts. Plain data behind one lock (`Fs::state`), which is never held
//! while anything waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::drafts::{Draft, DraftId, Purpose};
use super::error::{FsError, FsResult};
use super::herald::Before;
use super::hidden::Hidden;
use super::kernel::Older;
use super::locks::Locks;
use super::redirects::Redirect;
use super::scratch;
use crate::store::{Change, Key, Meta, Text};

/// An inode number; never used twice in the life of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// The directory of keys.
pub const ROOT: Ino = Ino(1);

/// A file handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

/// What an inode is.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// One version of a key. The kernel may keep its pages and attributes.
    Key(Meta),
    /// A file that is not a key (yet): a scratch file or a new file. All who open it share its draft.
    Local(DraftId),
    /// A writer's own inode for a key that exists, so that readers never see its bytes or size.
    Draft(DraftId),
    /// A directory.
    Directory,
}

/// A directory below the root: one that the kernel may know, or that was made here.
#[derive(Debug)]
pub(super) struct Folder {
    /// Its inode, if the kernel may know it.
    pub(super) ino: Option<Ino>,
    /// It stays while no key is below it.
    pub(super) kept: bool,
    /// When the names in it last changed.
    pub(super) modified: SystemTime,
}

/// One inode as the kernel knows it.
#[derive(Debug)]
pub(super) struct Inode {
    /// The path it was last seen under.
    pub(super) name: String,
    /// The key of that name.
    pub(super) key: Key,
    /// What it is.
    pub(super) body: Body,
    /// References the kernel holds.
    pub(super) lookups: u64,
    /// Open handles.
    pub(super) handles: u32,
    /// Those of them that read a snapshot through the page cache.
    pub(super) readers: u32,
    /// What the kernel knows of older versions.
    pub(super) older: Older,
    /// It does not go on as a newer version, for it was or is being removed, replaced, or given other attributes: upon the
    /// answer to that the kernel ignores a newer size, or takes an older one for the newest.
    pub(super) last: bool,
    /// The inode number to show, if not its own.
    pub(super) number: Option<Ino>,
    /// The name was removed.
    pub(super) unlinked: bool,
}

impl Inode {
    /// Whether the draft is this inode's own.
    pub(super) fn holds(&self, id: DraftId) -> bool {
        matches!(self.body, Body::Local(draft) | Body::Draft(draft) if draft == id)
    }
}

/// What a handle reads and writes.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// One version of a value, for as long as the handle is open.
    Snapshot(Text, Option<Meta>),
    /// A draft.
    Draft(DraftId),
}

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    /// Of which inode.
    pub(super) ino: Ino,
    /// What it reads and writes.
    pub(super) content: Content,
    /// Opened for writing.
    pub(super) writable: bool,
    /// Opened with `O_APPEND`.
    pub(super) append: bool,
    /// Thread that opened it; only its process is told of an incomplete document.
    pub(super) opener: u32,
    /// A write failed: nothing of this handle is published any more.
    pub(super) failed: Option<FsError>,
    /// The bytes of the write that failed, kept to be set aside.
    pub(super) refused: Vec<u8>,
}

impl Handle {
    /// Whether its attributes are those that the inode has for all.
    pub(super) fn shows(&self, inode: &Inode) -> bool {
        match (&self.content, &inode.body) {
            (Content::Snapshot(_, Some(meta)), Body::Key(known)) => meta.revision == known.revision,
            (Content::Draft(id), _) => inode.holds(*id),
            (Content::Snapshot(..), _) => true,
        }
    }

    /// Whether it reads a snapshot.
    pub(super) fn is_reader(&self) -> bool {
        matches!(self.content, Content::Snapshot(..))
    }
}

/// What chmod, chown and utimes said: kept for the life of the mount.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overrides {
    /// Permission bits.
    pub(super) mode: Option<u32>,
    /// Owner.
    pub(super) uid: Option<u32>,
    /// Group.
    pub(super) gid: Option<u32>,
    /// Access time.
    pub(super) accessed: Option<SystemTime>,
    /// Modification time.
    pub(super) modified: Option<SystemTime>,
    /// When any of these was last set.
    pub(super) changed: Option<SystemTime>,
}

/// What the store tells of a name while this mount changes it: most likely of these very changes.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// How many changes of ours are under way.
    pub(super) operations: u32,
    /// What was told meanwhile, and whether it is known to take a name away.
    pub(super) news: Vec<(Change, bool)>,
    /// Others may have changed it unnoticed meanwhile: what we left is not the newest for certain.
    pub(super) missed: bool,
    /// What those who watch are yet to be told of.
    pub(super) untold: Vec<(Change, Before)>,
}

/// Everything the filesystem knows that is not in the store.
pub(super) struct State {
    /// Inodes known to the kernel or holding local files.
    pub(super) inodes: HashMap<Ino, Inode>,
    /// The inode a lookup of a name gives: of a key's current version, or of a local file.
    pub(super) names: HashMap<String, Ino>,
    /// Directories below the root, by path.
    pub(super) folders: HashMap<String, Folder>,
    /// Those that are gone and that the kernel still refers to, because somebody is in them.
    pub(super) vanished: HashMap<String, Ino>,
    /// Open files.
    pub(super) handles: HashMap<Fh, Handle>,
    /// Drafts.
    pub(super) drafts: HashMap<DraftId, Draft>,
    /// Keys renamed to a backup name.
    pub(super) hidden: HashMap<String, Hidden>,
    /// When, in the count of changes, a name last changed while a directory was open.
    pub(super) changes: HashMap<String, u64>,
    /// The count of changes.
    pub(super) change: u64,
    /// Up to this count it is not known any more which names changed.
    pub(super) blurred: u64,
    /// Shared with each open directory.
    pub(super) directories: Arc<()>,
    /// Why the last text written to a file was not published, until one is.
    pub(super) unpublished: HashMap<String, FsError>,
    /// The inodes that the files had when changes were missed, and those that went on as no newer version, for those who watch
    /// them.
    pub(super) replaced: HashMap<String, Ino>,
    /// There are some (`--notify`).
    pub(super) heralded: bool,
    /// Names that this mount is changing in the store.
    pub(super) held: HashMap<String, Held>,
    /// By thread.
    pub(super) redirects: HashMap<u32, Redirect>,
    /// By path; that of a directory ends in a slash.
    pub(super) overrides: HashMap<String, Overrides>,
    /// flock(2) and fcntl(2).
    pub(super) locks: Locks,
    /// Of the root.
    pub(super) root: Overrides,
    /// When the names in the root last changed.
    pub(super) root_modified: SystemTime,
    last_id: u64,
}

impl State {
    /// An empty directory.
    pub(super) fn new() -> Self {
        Self {
            inodes: HashMap::new(),
            names: HashMap::new(),
            folders: HashMap::new(),
            vanished: HashMap::new(),
            replaced: HashMap::new(),
            heralded: false,
            handles: HashMap::new(),
            drafts: HashMap::new(),
            hidden: HashMap::new(),
            changes: HashMap::new(),
            change: 0,
            blurred: 0,
            directories: Arc::default(),
            unpublished: HashMap::new(),
            held: HashMap::new(),
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
    pub(super) fn add_inode(&mut self, name: &str, key: &Key, body: Body) -> Ino {
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
            older: Older::Nothing,
            last: false,
            number: None,
            unlinked: false,
        };
        self.inodes.insert(ino, inode);
        ino
    }

    /// A new draft.
    pub(super) fn add_draft(&mut self, draft: Draft) -> DraftId {
        let id = DraftId(self.next_id());
        self.drafts.insert(id, draft);
        id
    }

    /// A new handle on an inode.
    pub(super) fn add_handle(&mut self, handle: Handle) -> Fh {
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
    pub(super) fn inode(&self, ino: Ino) -> FsResult<&Inode> {
        self.inodes.get(&ino).ok_or(FsError::NotFound)
    }

    /// The inode a lookup of `name` gives.
    pub(super) fn named(&self, name: &str) -> Option<(Ino, &Inode)> {
        let ino = *self.names.get(name)?;
        Some((ino, self.inodes.get(&ino)?))
    }

    /// Whether a lookup of the inode's name gives this inode.
    pub(super) fn is_current(&self, ino: Ino, inode: &Inode) -> bool {
        match inode.body {
            Body::Directory => self.folder_ino(&inode.name) == Some(ino),
            Body::Key(_) | Body::Local(_) | Body::Draft(_) => self.names.get(&inode.name) == Some(&ino),
        }
    }

    /// The draft of an open file.
    pub(super) fn draft_of(&mut self, fh: Fh) -> FsResult<(DraftId, &mut Draft)> {
        let handle = self.handles.get(&fh).filter(|handle| handle.writable).ok_or(FsError::BadHandle)?;
        let Content::Draft(id) = handle.content else { return Err(FsError::BadHandle) };
        self.drafts.get_mut(&id).map(|draft| (id, draft)).ok_or(FsError::BadHandle)
    }

    /// Takes the name away from the inode it leads to. The kernel may still refer to the inode.
    pub(super) fn remove_name(&mut self, name: &str) -> Option<Ino> {
        let ino = self.names.remove(name)?;
        self.collect(ino);
        Some(ino)
    }

    /// Drops kernel references.
    pub(super) fn forget(&mut self, ino: Ino, lookups: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(lookups);
            self.collect(ino);
        }
    }

    /// Removes an inode that nothing refers to any more.
    pub(super) fn collect(&mut self, ino: Ino) {
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
                Body::Directory if named => self.forget_folder(&inode.name),
                Body::Directory if self.vanished.get(&inode.name) == Some(&ino) => {
                    self.vanished.remove(&inode.name);
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
    pub(super) fn remove_handle(&mut self, fh: Fh) -> Option<(Handle, bool)> {
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
    pub(super) fn is_drafted(&self, name: &str) -> bool {
        let writing = self.drafts.values().filter(|draft| draft.handles > 0 && !draft.orphan);
        writing.filter_map(|draft| self.inodes.get(&draft.ino)).any(|inode| inode.name == name)
    }

    /// Name and key of a new file that nobody writes and that is empty, unless it is the successor of one that was renamed
    /// to a backup name.
    pub(super) fn empty_file(&self, ino: Ino) -> Option<(String, Key)> {
        let inode = self.inodes.get(&ino)?;
        let Body::Local(id) = inode.body else { return None };
        let draft = self.drafts.get(&id)?;
        let empty = draft.purpose == Purpose::Key && draft.handles == 0 && draft.text.is_empty();
        let new = self.is_current(ino, inode) && !self.hidden.contains_key(&inode.name);
        (empty && new).then(|| (inode.name.clone(), inode.key.clone()))
    }

    /// Bytes in scratch files, against [`scratch::TOTAL_LIMIT`].
    pub(super) fn scratch_full(&self, more: usize) -> bool {
        let scratch = self.drafts.values().filter(|draft| draft.purpose != Purpose::Key);
        scratch.map(|draft| draft.text.len()).sum::<usize>().saturating_add(more) > scratch::TOTAL_LIMIT
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
