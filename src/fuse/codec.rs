//! Conversions between the types of `fs` and those of `fuser`.

use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileType, FopenFlags, INodeNo, OpenAccMode, OpenFlags, ReplyAttr, ReplyEmpty,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::cache::FOREVER;
use crate::fs::{Access, Attr, Caller, Found, FsError, WriteMode};

/// The block size of stat(2) and statfs(2).
pub(super) const BLOCK: u32 = 4096;

/// A validity that fits the kernel's clock.
pub(super) fn ttl(duration: Duration) -> Duration {
    if duration == FOREVER { Duration::from_hours(10 * 365 * 24) } else { duration }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { thread: request.pid(), uid: request.uid(), gid: request.gid() }
}

pub(super) fn access(flags: i32) -> Access {
    Access {
        write: OpenFlags(flags).acc_mode() != OpenAccMode::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
    }
}

pub(super) fn write_mode(flags: OpenFlags, write_flags: WriteFlags) -> WriteMode {
    WriteMode {
        append: flags.0 & libc::O_APPEND != 0,
        syncs: flags.0 & libc::O_DSYNC != 0,
        mapped: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
    }
}

/// Whether a write is by who may not leave that a file runs as its owner or group.
pub(super) const fn kills_suid(write_flags: WriteFlags) -> bool {
    write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
}

/// Our names are UTF-8, as the keys of every store are.
pub(super) fn utf8(name: &OsStr) -> Result<String, FsError> {
    name.to_str().map(str::to_owned).ok_or(FsError::BadName)
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.number.0),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: attr.accessed,
        mtime: attr.modified,
        ctime: attr.changed,
        crtime: attr.created,
        kind: if attr.directory { FileType::Directory } else { FileType::RegularFile },
        perm: attr.mode as u16,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

pub(super) fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

pub(super) fn open_flags(direct: bool, no_flush: bool) -> FopenFlags {
    let mut flags = if direct { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::FOPEN_KEEP_CACHE };
    if no_flush {
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    flags
}

/// The answer to GETXATTR and LISTXATTR: the size, the bytes, or ERANGE.
pub(super) fn xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        size if size < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

pub(super) fn answer_attr(reply: ReplyAttr, result: Result<Found, Errno>) {
    match result {
        Ok(found) => match found.attr {
            Some(attr) => reply.attr(&ttl(found.ttl), &file_attr(&attr)),
            None => reply.error(Errno::ENOENT),
        },
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn answer_empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}
