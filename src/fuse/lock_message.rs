//! Messages about locks. fuser leaves out whether one is of flock(2) or of fcntl(2), so that is read from the message
//! itself, which lies where fuser has taken it apart.

use std::fs::File;
use std::os::unix::fs::FileExt;

use fuser::{FileHandle, LockOwner, Request};

use crate::fs::locks::{Family, Kind, Lock, Range};

/// Of `lk_flags`: the lock is of flock(2).
const FUSE_LK_FLOCK: u32 = 1;

/// What fuser tells of a lock.
#[derive(Clone, Copy)]
pub(super) struct LockMessage {
    pub(super) fh: FileHandle,
    pub(super) owner: LockOwner,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) typ: i32,
    pub(super) pid: u32,
}

impl LockMessage {
    /// The lock that it is about; `None` if it ends locks.
    pub(super) fn lock(&self, family: Family) -> Option<Lock> {
        let kind = match self.typ {
            libc::F_RDLCK => Kind::Shared,
            libc::F_WRLCK => Kind::Exclusive,
            _ => return None,
        };
        let range = Range { start: self.start, end: self.end };
        Some(Lock { owner: self.owner.0, handle: self.fh.0, pid: self.pid, family, kind, range })
    }

    /// `struct fuse_lk_in` up to its flags.
    fn bytes(&self) -> Vec<u8> {
        let longs = [self.fh.0, self.owner.0, self.start, self.end].map(u64::to_ne_bytes);
        [longs.as_flattened(), &self.typ.to_ne_bytes(), &self.pid.to_ne_bytes()].concat()
    }
}

/// As the protocol has it.
pub(super) const fn type_of(kind: Kind) -> i32 {
    match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
    }
}

/// The memory of this process, as the kernel reads it: a reference to the head of a message gives no right to what follows.
pub(super) struct Memory(Option<File>);

impl Memory {
    pub(super) fn open() -> Self {
        Self(File::open("/proc/self/mem").ok())
    }

    /// Which kind of lock a message is about. One that cannot be told is taken for fcntl(2)'s.
    pub(super) fn family(&self, request: &Request, message: &LockMessage) -> Family {
        let at = std::ptr::from_ref(request).addr() + size_of::<Request>();
        let (mut body, told) = ([0; 44], message.bytes());
        let read = self.0.as_ref().is_some_and(|memory| memory.read_exact_at(&mut body, at as u64).is_ok());
        let flags =
            body.strip_prefix(&told[..]).and_then(|flags| flags.try_into().ok()).map(u32::from_ne_bytes);
        match flags.filter(|_| read) {
            Some(flags) if flags & FUSE_LK_FLOCK != 0 => Family::Flock,
            Some(_) | None => Family::Fcntl,
        }
    }
}
