//! One method per message: decodes it, calls `Fs`, and has `answer` encode and send the result.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::answer::{Answers, Step};
use super::codec::{
    BLOCK, access, answer_attr, answer_empty, caller, kills_suid, open_flags, time, utf8, write_mode, xattr,
};
use super::directories::Directories;
use super::entry::{Device, Entries};
use super::lock_message::{LockMessage, Memory, answer_lock};
use super::messages::Op;
use super::{STATUS, Status, refusals};
use crate::fs::locks::Family;
use crate::fs::{Changes, Fh, Fs, FsError, Ino, Written};

/// A store has no fixed number of keys, and most have no size: 1 TiB, so that tools that look for space find some.
const MANY: u64 = 1 << 28;

/// The filesystem as fuser calls it.
pub(super) struct Adapter {
    pub(super) fs: Arc<Fs>,
    pub(super) answers: Answers,
    pub(super) device: Device,
    pub(super) directories: Arc<Directories>,
    pub(super) memory: Memory,
    pub(super) status: Status,
    /// Resolves [`Ended`](super::Ended) at DESTROY.
    pub(super) end: Mutex<Option<oneshot::Sender<()>>>,
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // All optional: a kernel may lack some.
        for flag in [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_FLOCK_LOCKS,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ] {
            _ = config.add_capabilities(flag);
        }
        // A write(2) over the limit must come in one message, to be refused as a whole.
        _ = config.set_max_write(super::MAX_WRITE);
        _ = config.set_max_background(64);
        Ok(())
    }

    fn destroy(&mut self) {
        // Without a receiver the process is ending by itself.
        _ = self.end.lock().take().map(|end| end.send(()));
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let caller = caller(request);
        // A name that is not UTF-8 has no file.
        let Ok(name) = utf8(name) else { return reply.error(Errno::ENOENT) };
        let found = self.fs.clone().lookup(caller, Ino(parent.0), name.clone());
        let answer = self.device.answer_to(request);
        self.answers.give(Op::Lookup, (parent, name), found, |result| answer.entry(reply, result));
    }

    fn forget(&self, _request: &Request, ino: INodeNo, lookups: u64) {
        self.answers.fill(Op::Forget, || self.fs.forget(Ino(ino.0), lookups));
    }

    fn getattr(&self, request: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let (caller, inode, fh, fs) = (caller(request), Ino(ino.0), fh.map(|fh| Fh(fh.0)), self.fs.clone());
        let attr = || {
            if fs.stat_waits(caller, inode, fh) {
                return Ok(Step::Wait(fs.stat(caller, inode)));
            }
            fs.getattr_as(caller, inode, fh).map(Step::Done)
        };
        self.answers.now_or_give(Op::GetAttr, ino, attr, |result| answer_attr(reply, result));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (accessed, modified) = (atime.map(time), mtime.map(time));
        let changes = Changes { size, mode, uid, gid, accessed, modified };
        let attr = self.fs.clone().setattr(caller(request), Ino(ino.0), fh.map(|fh| Fh(fh.0)), changes);
        self.answers.give(Op::SetAttr, ino, attr, |result| answer_attr(reply, result));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(self.answers.refuse(Op::MkNod, parent, name));
        }
        let (caller, shown) = (caller(request), name.to_string_lossy().into_owned());
        let (fs, name) = (self.fs.clone(), utf8(name));
        let done = async move { fs.make_file(caller, (Ino(parent.0), &name?), mode).await };
        let answer = self.device.answer_to(request);
        self.answers.give(Op::MkNod, (parent, shown), done, |result| answer.entry(reply, result));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (caller, shown) = (caller(request), name.to_string_lossy().into_owned());
        let (fs, name) = (self.fs.clone(), utf8(name));
        let done = async move { fs.make_directory(caller, Ino(parent.0), name?, mode).await };
        let answer = self.device.answer_to(request);
        self.answers.give(Op::MkDir, (parent, shown), done, |result| answer.entry(reply, result));
    }

    fn symlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(self.answers.refuse(Op::SymLink, parent, name));
    }

    fn link(&self, _request: &Request, _ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply.error(self.answers.refuse(Op::Link, parent, name));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Ok(name) = utf8(name) else { return reply.error(Errno::ENOENT) };
        let done = self.fs.clone().remove_directory(caller(request), Ino(parent.0), name.clone());
        self.answers.give(Op::RmDir, (parent, name), done, |result| answer_empty(reply, result));
    }

    fn readlink(&self, _request: &Request, _ino: INodeNo, reply: ReplyData) {
        self.answers.count(Op::ReadLink);
        reply.error(Errno::EINVAL);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let caller = caller(request);
        let Ok(name) = utf8(name) else { return reply.error(Errno::ENOENT) };
        let done = self.fs.clone().unlink(caller, Ino(parent.0), name.clone());
        self.answers.give(Op::Unlink, (parent, name), done, |result| answer_empty(reply, result));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (caller, fs) = (caller(request), self.fs.clone());
        let (from, to) = (utf8(name), utf8(new_name));
        let shown = new_name.to_string_lossy().into_owned();
        let done = async move {
            if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
                return Err(FsError::Argument);
            }
            let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
            fs.rename(caller, (Ino(parent.0), from?), (Ino(new_parent.0), to?), no_replace).await
        };
        self.answers.give(Op::Rename, (new_parent, shown), done, |result| answer_empty(reply, result));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.fs.clone().open(caller(request), Ino(ino.0), access(flags.0));
        self.answers.give(Op::Open, ino, opened, |result| match result {
            Ok(opened) => reply.opened(FileHandle(opened.fh.0), open_flags(opened.direct, opened.no_flush)),
            Err(errno) => reply.error(errno),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let shown = name.to_string_lossy().into_owned();
        let exclusive = flags & libc::O_EXCL != 0;
        let (caller, place) = (caller(request), (Ino(parent.0), name));
        let create = || self.create_or_wait(caller, place, mode, access(flags), exclusive);
        let answer = self.device.answer_to(request);
        let subject = (parent, shown);
        self.answers.now_or_give(Op::Create, subject, create, |result| answer.created(reply, result));
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || self.fs.read_as(caller(request), Fh(fh.0), offset, size as usize, <[u8]>::to_vec);
        self.answers.now(Op::Read, ino, read, |result| match result {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        });
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let fs = self.fs.clone();
        let write = || {
            kills_suid(write_flags).then(|| fs.end_privileges(Fh(fh.0))).transpose()?;
            match fs.write_as(Fh(fh.0), offset, data, write_mode(flags, write_flags))? {
                Written::Bytes(length) => Ok(Step::Done(length)),
                Written::Document(document) => Ok(Step::Wait(fs.publish_written(document))),
            }
        };
        self.answers.now_or_give(Op::Write, ino, write, |result| match result {
            Ok(bytes) => reply.written(bytes as u32),
            Err(errno) => reply.error(errno),
        });
    }

    fn flush(&self, request: &Request, ino: INodeNo, fh: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        let done = self.fs.clone().flush(caller(request), Fh(fh.0), owner.0);
        self.answers.give(Op::Flush, ino, done, |result| answer_empty(reply, result));
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let done = self.fs.clone().fsync(Fh(fh.0));
        self.answers.give(Op::FSync, ino, done, |result| answer_empty(reply, result));
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // The kernel lets few such messages be in flight, and no read of a page beside those.
        reply.ok();
        let fs = self.fs.clone();
        let done = async move {
            fs.release(Fh(fh.0)).await;
            Ok(())
        };
        self.answers.give(Op::Release, ino, done, |_| ());
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let reserve = || {
            if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
                return Err(FsError::NotSupported);
            }
            self.fs.allocate(Fh(fh.0), offset, length, keep_size)
        };
        self.answers.now(Op::FAllocate, ino, reserve, |result| answer_empty(reply, result));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let directories = self.directories.clone();
        let opened = self.fs.clone().open_directory(caller(request), Ino(ino.0));
        self.answers.give(Op::OpenDir, ino, opened, move |result| match result {
            Ok(directory) => {
                // Not FOPEN_CACHE_DIR: a cached listing never refreshes attributes, and `ls -l` after `ls` would cost one LOOKUP
                // per key.
                reply.opened(directories.add(directory), FopenFlags::empty());
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn readdir(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let fs = self.fs.clone();
        let directory = self.directories.clone().at(fs.clone(), caller(request), fh, offset);
        self.answers.give(Op::ReadDir, ".", directory, move |result| match result {
            Ok(directory) => {
                fs.read_directory(&directory, offset, |item| {
                    let kind = if item.directory { FileType::Directory } else { FileType::RegularFile };
                    reply.add(INodeNo(item.number.0), item.next, kind, &item.name)
                });
                reply.ok();
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let fs = self.fs.clone();
        let directory = self.directories.clone().at(fs.clone(), caller(request), fh, offset);
        let answer = self.device.answer_to(request);
        self.answers.give(Op::ReadDirPlus, ".", directory, move |result| match result {
            Ok(directory) => {
                let mut entries = Entries::of(&reply);
                fs.read_directory_plus(&directory, offset, |item, attr, valid| {
                    entries.add(item, attr, valid)
                });
                answer.entries(reply, &entries);
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.answers.count(Op::ReleaseDir);
        self.close_directory(fh);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let done = self.fs.clone().fsync_directory(Ino(ino.0));
        self.answers.give(Op::FSyncDir, ino, done, |result| answer_empty(reply, result));
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.answers.count(Op::StatFs);
        let cache = self.fs.cache();
        let keys = MANY - (cache.known_keys().unwrap_or(0) as u64).min(MANY);
        let [total, free, available] = match cache.space() {
            Some(space) => [space.total, space.free, space.available].map(|bytes| bytes / u64::from(BLOCK)),
            None => [MANY, keys, keys],
        };
        reply.statfs(total, free, available, MANY, keys, BLOCK, 255, BLOCK);
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let done = self.fs.clone().set_xattr(Ino(ino.0), name.to_string_lossy().into_owned(), value.to_vec());
        self.answers.give(Op::SetXAttr, ino, done, |result| answer_empty(reply, result));
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_string_lossy().into_owned();
        let done = self.fs.clone().set_xattr(Ino(ino.0), name, b"[]".to_vec());
        self.answers.give(Op::RemoveXAttr, ino, done, |result| answer_empty(reply, result));
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if name == STATUS {
            return xattr(reply, (self.status)().as_bytes(), size);
        }
        let value = refusals::attribute(self.fs.clone(), Ino(ino.0), name.to_string_lossy().into_owned());
        self.answers.give(Op::GetXAttr, ino, value, move |result| match result {
            Ok(value) => xattr(reply, value.as_bytes(), size),
            Err(errno) => reply.error(errno),
        });
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names =
            || Ok(self.fs.list_xattrs(Ino(ino.0))?.into_iter().map(|name| name + "\0").collect::<String>());
        self.answers.now(Op::ListXAttr, ino, names, move |result| match result {
            Ok(names) => xattr(reply, names.as_bytes(), size),
            Err(errno) => reply.error(errno),
        });
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // Not sent: the kernel checks permissions itself (default_permissions).
        self.answers.count(Op::Access);
        reply.ok();
    }

    fn getlk(
        &self,
        _request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let message = LockMessage { fh, owner, start, end, typ, pid };
        let held = self.fs.clone().test_lock(message.lock(Family::Fcntl));
        self.answers.give(Op::GetLk, ino, held, |result| answer_lock(reply, result));
    }

    fn setlk(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let (fs, caller) = (self.fs.clone(), caller(request));
        let message = LockMessage { fh, owner, start, end, typ, pid };
        let family = self.memory.family(request, &message);
        let done = async move {
            match message.lock(family) {
                Some(lock) => fs.lock(caller, lock, sleep).await,
                None => fs.publish_and_unlock(Fh(fh.0), message.owner(family), message.range()).await,
            }
        };
        self.answers.give(Op::SetLk, ino, done, |result| answer_empty(reply, result));
    }

    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: IoctlFlags,
        command: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.hand_over(request, (ino, fh), command, reply);
    }
}
