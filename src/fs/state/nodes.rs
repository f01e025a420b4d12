//! Inodes and open files as the kernel knows them.

use std::time::SystemTime;

use crate::fs::rules::error::FsError;
use crate::fs::state::closers::Closers;
use crate::fs::state::ledger::KernelCache;
use crate::fs::state::turns::Turns;
use crate::fs::types::{DraftId, FileNumber, Ino};
use crate::store::{Attributes, Key, Meta, Revision, Text};
use crate::sys::process::Tick;

/// What an inode is.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// One version of a key. The kernel may keep its pages and attributes.
    Key(Meta),
    /// A file that is not a key (yet): a scratch file or a new file. All who open it share its draft.
    Local(DraftId),
    /// What a writer of a key that exists works on. No name leads to it, so that readers never see its bytes or size.
    Draft(DraftId),
    /// A directory.
    Directory,
}

/// One inode as the kernel knows it.
#[derive(Debug)]
pub(crate) struct Inode {
    /// The path it was last seen under.
    pub(crate) name: String,
    /// The key of that name.
    pub(crate) key: Key,
    /// The file that it is, or a version or draft of.
    pub(crate) file: FileNumber,
    /// What it is.
    pub(crate) body: Body,
    /// References the kernel holds.
    pub(crate) lookups: u64,
    /// Open handles.
    pub(crate) handles: u32,
    /// Those of them that read a snapshot through the page cache.
    pub(crate) readers: u32,
    /// What the kernel may have cached of it.
    pub(crate) cached: KernelCache,
    /// The number that the file showed when the name went on to a newer version than this one, which somebody reads.
    pub(crate) number: Option<Ino>,
    /// The name was removed.
    pub(crate) unlinked: bool,
    /// Found by one lookup alone.
    pub(crate) private: Option<Private>,
    /// Opens that wait for it.
    pub(crate) turns: Turns,
}

/// What a caller finds who was sent to look again, and cannot be sent once more: an inode that nobody else has, which shows
/// one version whatever becomes of the name.
#[derive(Debug)]
pub(crate) struct Private {
    /// The text of its version, if that was at hand.
    pub(crate) text: Option<Text>,
}

impl Inode {
    /// Whether the draft is this inode's own.
    pub(crate) fn holds(&self, id: DraftId) -> bool {
        matches!(self.body, Body::Local(draft) | Body::Draft(draft) if draft == id)
    }
}

/// What a handle reads and writes.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// One version of a value, for as long as the handle is open.
    Snapshot(Text, Option<Meta>),
    /// A draft.
    Draft(DraftId),
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Of which inode.
    pub(crate) ino: Ino,
    /// Of which file: what its inode was of when it was opened. Given by [`State::add_handle`](super::tables::State::add_handle).
    pub(crate) file: FileNumber,
    /// What it reads and writes.
    pub(crate) content: Content,
    /// Opened for writing.
    pub(crate) writable: bool,
    /// Thread of the process that opened it; only that is told of an incomplete document.
    pub(crate) opener: u32,
    /// When it did, which tells it from a later one of its number.
    pub(crate) opened: Tick,
    /// It has written something.
    pub(crate) written: bool,
    /// Who closed copies of it.
    pub(crate) closers: Closers,
    /// A write failed: nothing of this handle is published any more.
    pub(crate) failed: Option<FsError>,
    /// The bytes of the write that failed, kept to be kept as rejected.
    pub(crate) refused: Vec<u8>,
}

impl Handle {
    /// What `thread` opens.
    pub(crate) fn new(thread: u32, ino: Ino, content: Content, writable: bool) -> Self {
        Self {
            ino,
            file: FileNumber(0),
            content,
            writable,
            opener: thread,
            opened: Tick::now(),
            written: false,
            closers: Closers::default(),
            failed: None,
            refused: Vec::new(),
        }
    }

    /// Whether its attributes are those that the inode has for all.
    pub(crate) fn shows(&self, inode: &Inode) -> bool {
        match (&self.content, &inode.body) {
            (Content::Snapshot(_, Some(meta)), Body::Key(known)) => meta.revision == known.revision,
            (Content::Draft(id), _) => inode.holds(*id),
            (Content::Snapshot(..), _) => true,
        }
    }

    /// Whether it reads a snapshot.
    pub(crate) fn is_reader(&self) -> bool {
        matches!(self.content, Content::Snapshot(..))
    }
}

/// What chmod, chown and utimes said: kept with the key, or else for the life of the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// Permission bits.
    pub(crate) mode: Option<u32>,
    /// Owner.
    pub(crate) uid: Option<u32>,
    /// Group.
    pub(crate) gid: Option<u32>,
    /// Access time.
    pub(crate) accessed: Option<SystemTime>,
    /// Modification time.
    pub(crate) modified: Option<SystemTime>,
    /// That is the time of the last write, which the kernel may know, and nobody asked for it.
    pub(crate) by_write: bool,
    /// The version of the key, or of the names in the directory, to which that belongs: a newer one has its own.
    pub(crate) version: Option<Revision>,
    /// When any of these was last set.
    pub(crate) changed: Option<SystemTime>,
    /// The revision at which the store has them, if it does.
    pub(crate) stored: Option<Revision>,
}

/// When a file or directory was last read, when its content was last changed, and when anything of it was.
pub(crate) struct Times {
    pub(crate) accessed: SystemTime,
    pub(crate) modified: SystemTime,
    pub(crate) changed: SystemTime,
}

impl Overrides {
    /// Whether a program asked for one of them. What it did not ask for may be forgotten once the kernel has forgotten it.
    pub(crate) fn are_asked_for(&self) -> bool {
        self.are_times_asked_for() || self.mode.is_some() || self.uid.is_some() || self.gid.is_some()
    }

    /// Whether a program asked for a time.
    pub(crate) fn are_times_asked_for(&self) -> bool {
        self.accessed.is_some() || self.modified.is_some() && !self.by_write
    }

    /// Whether nobody but this mount knows what a program asked for.
    pub(crate) fn are_in_memory(&self) -> bool {
        self.stored.is_none() && self.are_asked_for()
    }

    /// As the store keeps them; the content is as of `modified`, if a program asked for that.
    pub(crate) fn to_store(self, modified: Option<SystemTime>) -> Attributes {
        Attributes {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            accessed: self.accessed,
            modified,
            changed: self.changed,
            ..Attributes::default()
        }
    }

    /// These, of a directory of which the store keeps this, or nothing.
    pub(crate) fn kept(self, kept: Option<&Attributes>) -> Self {
        Self {
            mode: kept.and_then(|kept| kept.mode),
            uid: kept.and_then(|kept| kept.uid),
            gid: kept.and_then(|kept| kept.gid),
            changed: self.changed.max(kept.and_then(|kept| kept.changed)),
            stored: kept.map(|kept| kept.revision),
            ..self
        }
    }

    /// Takes in what the store has of the version `of` of the key.
    fn take_stored(&mut self, stored: &Attributes, of: Revision) {
        (self.mode, self.uid, self.gid) = (stored.mode, stored.uid, stored.gid);
        (self.accessed, self.stored) = (stored.accessed, Some(stored.revision));
        self.changed = self.changed.max(stored.changed);
        if stored.modified.is_some() && stored.version == of {
            (self.modified, self.by_write, self.version) = (stored.modified, false, Some(of));
        }
    }

    /// Whether `meta` of the key says something newer than these.
    pub(crate) fn are_older(this: Option<Self>, meta: &Meta) -> bool {
        let known = this.and_then(|this| this.stored).unwrap_or_default();
        let (version, now) = meta.version();
        now != known && version.max(now) >= known
    }

    /// These, once the key is known as `meta`.
    pub(crate) fn followed(this: Option<Self>, meta: &Meta) -> Option<Self> {
        let stored = meta.attributes.as_ref()?;
        let mut new = this.unwrap_or_default();
        new.take_stored(stored, meta.revision);
        Some(new)
    }

    /// The times of what was last changed at `modified`, and is of this `version` since.
    pub(crate) fn times(&self, modified: SystemTime, version: Option<Revision>) -> Times {
        let own = self.modified.filter(|_| version.is_some() && version == self.version);
        let changed = match own {
            Some(_) => self.changed,
            None => self.changed.max(Some(modified)),
        };
        let own = own.unwrap_or(modified);
        Times { accessed: self.accessed.unwrap_or(own), modified: own, changed: changed.unwrap_or(modified) }
    }
}
