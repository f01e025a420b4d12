//! Counts the kernel's messages, which are the cost of this filesystem.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! ops {
    ($($op:ident = $name:literal),* $(,)?) => {
        /// A FUSE opcode.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Op { $($op),* }
        const NAMES: &[&str] = &[$($name),*];
        impl Op {
            /// The kernel's name of the opcode.
            pub(super) fn name(self) -> &'static str {
                NAMES[self as usize]
            }
        }
    };
}

ops! {
    Lookup = "LOOKUP", Forget = "FORGET", GetAttr = "GETATTR", SetAttr = "SETATTR", MkNod = "MKNOD", MkDir = "MKDIR",
    SymLink = "SYMLINK", Link = "LINK", RmDir = "RMDIR", ReadLink = "READLINK", Unlink = "UNLINK", Rename = "RENAME",
    Open = "OPEN", Create = "CREATE", Read = "READ", Write = "WRITE", Flush = "FLUSH", FSync = "FSYNC",
    Release = "RELEASE", FAllocate = "FALLOCATE", OpenDir = "OPENDIR", ReadDir = "READDIR",
    ReadDirPlus = "READDIRPLUS", ReleaseDir = "RELEASEDIR", FSyncDir = "FSYNCDIR", StatFs = "STATFS",
    SetXAttr = "SETXATTR", RemoveXAttr = "REMOVEXATTR", GetXAttr = "GETXATTR", ListXAttr = "LISTXATTR",
    Access = "ACCESS", GetLk = "GETLK", SetLk = "SETLK", IoCtl = "IOCTL",
}

/// The number of messages by opcode.
#[derive(Debug)]
pub struct Messages(Vec<AtomicU64>);

impl Default for Messages {
    fn default() -> Self {
        Self(NAMES.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Messages {
    pub(super) fn add(&self, op: Op) {
        self.0[op as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts by opcode, without zeros.
    pub fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        let counts = NAMES.iter().zip(&self.0).map(|(name, count)| (*name, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}
