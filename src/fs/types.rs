//! What the kernel and a program name: inodes, handles, attributes, callers.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use rustc_hash::FxBuildHasher;

/// By a number that nobody else chooses.
pub(crate) type ByNumber<K, V> = HashMap<K, V, FxBuildHasher>;

/// An inode number; never used twice in the life of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// The directory of keys.
pub const ROOT: Ino = Ino(1);

/// The number of a file: of all its versions, drafts and snapshots. A rename takes it along; what has the name after a
/// removal or a replacement is another file. Never used twice in the life of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileNumber(pub u64);

/// A file handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

/// Names a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DraftId(pub(crate) u64);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Thread id, 0 if unknown.
    pub thread: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The bit in the mode of a file that has it run as its owner.
pub(crate) const SETUID: u32 = 0o4000;

/// That which has it run as its group, and in the mode of a directory gives the group to what is new in it.
pub(crate) const SETGID: u32 = 0o2000;

/// The bit that lets its group run it.
pub(crate) const GROUP_RUNS: u32 = 0o010;

/// Attributes of a file or of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode by which the kernel names the file.
    pub ino: Ino,
    /// Inode number that programs see: of the file, whichever inode it has for the kernel.
    pub number: Ino,
    /// True for the directory.
    pub directory: bool,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Links; 0 for a removed file that is still open.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access, as utimes(2) set it.
    pub accessed: SystemTime,
    /// Last change of the content.
    pub modified: SystemTime,
    /// Last change of content or attributes.
    pub changed: SystemTime,
    /// When the key was first set.
    pub created: SystemTime,
    /// Whether the kernel may keep them. Not while it cannot be told whether it takes in the size: it has to ask again.
    pub lasts: bool,
}

/// The answer to a lookup, and how long it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file; `None` is a confirmed absence.
    pub attr: Option<Attr>,
    /// For how long the name leads there.
    pub ttl: Duration,
}

/// What an open asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// `O_WRONLY` or `O_RDWR`.
    pub write: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
}

impl Access {
    /// Whether it may change the file.
    pub(crate) const fn writes(self) -> bool {
        self.write || self.truncate
    }
}

/// How a write comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteMode {
    /// `O_APPEND`, as fcntl(2) has set it by now.
    pub append: bool,
    /// `O_SYNC` or `O_DSYNC`: a sync follows.
    pub syncs: bool,
    /// From pages that a program has mapped.
    pub mapped: bool,
}

impl WriteMode {
    /// Whether it goes to the end, wherever that is.
    pub(crate) const fn appends(self) -> bool {
        self.append && !self.mapped
    }
}

/// What a write came to.
#[derive(Debug)]
pub enum Written {
    /// So many bytes.
    Bytes(usize),
    /// It completed a document.
    Document(Document),
}

/// A document that a write completed, and that is not published yet.
#[derive(Debug)]
pub struct Document {
    pub(crate) fh: Fh,
    /// Bytes of that write.
    pub(crate) length: usize,
    /// Bytes before it.
    pub(crate) size: usize,
    pub(crate) generation: u64,
}

/// An open file, and how the kernel shall treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub fh: Fh,
    /// Reads and writes go past the page cache.
    pub direct: bool,
    /// There is nothing to publish at close.
    pub no_flush: bool,
}

/// What chmod, chown, utimes and truncate ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// New size.
    pub size: Option<u64>,
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New access time.
    pub accessed: Option<SystemTime>,
    /// New modification time.
    pub modified: Option<SystemTime>,
}
