//! GETLK and SETLK messages. fuser drops the flag that distinguishes flock(2) from fcntl(2), so it is read from the message
//! itself, in the buffer that fuser has parsed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use fuser::{Errno, FileHandle, LockOwner, ReplyLock, Request};

use crate::fs::locks::{Family, Kind, Lock, Owner, Range};

/// In `lk_flags`: the lock is of flock(2).
const FUSE_LK_FLOCK: u32 = 1;

/// The fields of the message that fuser passes on.
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
    /// The lock to take; `None` for an unlock.
    pub(super) fn lock(&self, family: Family) -> Option<Lock> {
        let kind = match self.typ {
            libc::F_RDLCK => Kind::Shared,
            libc::F_WRLCK => Kind::Exclusive,
            _ => return None,
        };
        let (owner, range) = (self.owner(family), self.range());
        Some(Lock { owner, handle: self.fh.0, pid: self.pid, process: None, kind, range })
    }

    pub(super) fn owner(&self, family: Family) -> Owner {
        Owner { family, id: self.owner.0 }
    }

    pub(super) fn range(&self) -> Range {
        Range { start: self.start, end: self.end }
    }

    /// `struct fuse_lk_in` up to its flags.
    fn bytes(&self) -> Vec<u8> {
        let longs = [self.fh.0, self.owner.0, self.start, self.end].map(u64::to_ne_bytes);
        [longs.as_flattened(), &self.typ.to_ne_bytes(), &self.pid.to_ne_bytes()].concat()
    }
}

/// What `F_GETLK` answers: the lock that is held, if any.
pub(super) fn answer_lock(reply: ReplyLock, result: Result<Option<Lock>, Errno>) {
    match result {
        Ok(Some(Lock { kind, range, pid, .. })) => {
            let typ = if kind == Kind::Shared { libc::F_RDLCK } else { libc::F_WRLCK };
            reply.locked(range.start, range.end, typ, pid);
        }
        Ok(None) => reply.locked(0, 0, libc::F_UNLCK, 0),
        Err(errno) => reply.error(errno),
    }
}

/// The memory of this process, read through the kernel: a reference to the head of a message must not be used to read beyond it.
pub(super) struct Memory(Option<File>);

impl Memory {
    pub(super) fn open() -> Self {
        Self(File::open("/proc/self/mem").ok())
    }

    /// The family of the lock in a message; fcntl(2)'s if it cannot be read.
    pub(super) fn family(&self, request: &Request, message: &LockMessage) -> Family {
        let at = std::ptr::from_ref(request).addr() + size_of::<Request>();
        let (mut body, expected) = ([0; 44], message.bytes());
        let read = self.0.as_ref().is_some_and(|memory| memory.read_exact_at(&mut body, at as u64).is_ok());
        let flags =
            body.strip_prefix(&expected[..]).and_then(|flags| flags.try_into().ok()).map(u32::from_ne_bytes);
        match flags.filter(|_| read) {
            Some(flags) if flags & FUSE_LK_FLOCK != 0 => Family::Flock,
            Some(_) | None => Family::Fcntl,
        }
    }
}
