//! `kvfs::fs::Fs` without a kernel: does between a program and the directory what the kernel does.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kvfs::cache::{self, Cache};
use kvfs::fs::document::Validate;
use kvfs::fs::names::Names;
use kvfs::fs::scratch::Patterns;
use kvfs::fs::{self, Access, Attr, Caller, Changes, Fh, Fs, FsError, FsResult, Ino, ROOT, WriteMode};
use kvfs::store::{Error, MemoryStore, Store};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::door::{Client, Door, Fd, Outcome, Stat, kept_in};

/// A thread that is alive and belongs to another process.
const ANOTHER: u32 = 1;

#[derive(Clone, Copy)]
struct Open {
    fh: Fh,
    ino: Ino,
    flags: i32,
    no_flush: bool,
    position: u64,
}

#[derive(Default)]
struct Table {
    open: HashMap<Fd, Open>,
    last: i32,
    /// References to inodes, as the kernel counts them.
    lookups: HashMap<Ino, u64>,
    /// Where names are still thought to lead.
    remembered: HashMap<String, Ino>,
}

/// A directory of a store in memory.
pub(crate) struct InProcess {
    fs: Arc<Fs>,
    table: Mutex<Table>,
    client: Client,
    runtime: Runtime,
    home: TempDir,
}

impl InProcess {
    pub(crate) fn new(validate: Validate) -> Self {
        let home = TempDir::new().unwrap();
        let memory = MemoryStore::new();
        let client = Client::new(Arc::new(memory.second_client()));
        let store: Arc<dyn Store> = Arc::new(memory);
        let bounds = cache::Settings {
            entries: 1000.try_into().unwrap(),
            bytes: 1 << 20,
            max_age: Duration::from_secs(1),
            max_stale: Duration::ZERO,
        };
        let cache = Arc::new(Cache::new(store, bounds));
        let feed = cache.follow();
        let settings = fs::Settings {
            read_only: false,
            uid: 0,
            gid: 0,
            umask: 0o022,
            of_new: fs::OfNew::default(),
            validate,
            names: Names::default(),
            scratch: Patterns::new(&[]).unwrap(),
            rejected: home.path().join("rejected"),
            clock: Arc::new(kvfs::fs::SystemClock),
            timeout: Duration::from_secs(5),
        };
        let fs = Fs::new(cache, settings);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(fs.clone().follow(feed));
        Self { fs, table: Mutex::default(), client, runtime, home }
    }

    /// Looks after backups and temporary files too, as a mount does.
    pub(crate) fn tended(self) -> Self {
        self.runtime.spawn(self.fs.clone().tend());
        self
    }

    /// Drops all references but those of open files, as the kernel does when it needs memory.
    pub(crate) fn drop_caches(&self) {
        let idle: Vec<(Ino, u64)> = {
            let mut table = self.table.lock();
            let Table { open, lookups, .. } = &mut *table;
            let held = |ino: &Ino| open.values().any(|open| open.ino == *ino);
            lookups.extract_if(|ino, _| !held(ino)).collect()
        };
        for (ino, lookups) in idle {
            self.fs.forget(ino, lookups);
        }
    }

    /// Drops the references to a removed file that nobody has open any more, as the kernel does.
    fn drop_removed(&self, ino: Ino) {
        if self.attributes(ino).is_ok_and(|stat| stat.links > 0) {
            return;
        }
        let mut table = self.table.lock();
        if !table.open.values().any(|open| open.ino == ino)
            && let Some(lookups) = table.lookups.remove(&ino)
        {
            self.fs.forget(ino, lookups);
        }
    }

    /// The next open of `name` is sent to where it leads now.
    pub(crate) fn remember(&self, name: &str) {
        let ino = self.expect(name).unwrap().ino;
        self.table.lock().remembered.insert(name.to_owned(), ino);
    }

    fn wait<T>(&self, call: impl Future<Output = FsResult<T>>) -> Outcome<T> {
        self.runtime.block_on(call).map_err(|error| errno(&error))
    }

    fn look_up(&self, caller: Caller, name: &str) -> Outcome<Option<Attr>> {
        let found = self.wait(self.fs.clone().lookup(caller, ROOT, name.to_owned()))?;
        if let Some(attr) = found.attr {
            self.refer(attr.ino);
        }
        Ok(found.attr)
    }

    fn refer(&self, ino: Ino) {
        *self.table.lock().lookups.entry(ino).or_default() += 1;
    }

    fn expect(&self, name: &str) -> Outcome<Attr> {
        self.look_up(caller(), name)?.ok_or(libc::ENOENT)
    }

    fn open_as(&self, caller: Caller, name: &str, flags: i32) -> Outcome<Fd> {
        let remembered = self.table.lock().remembered.remove(name);
        let there = match remembered {
            Some(ino) => Some(ino),
            None => self.look_up(caller, name)?.map(|attr| attr.ino),
        };
        match self.open_once(caller, name, there, flags) {
            // What the kernel remembers of the name may be old: it looks again, and opens once more.
            Err(libc::ESTALE) => {
                self.look_up(caller, name)?;
                let there = self.look_up(caller, name)?.map(|attr| attr.ino);
                self.open_once(caller, name, there, flags)
            }
            outcome => outcome,
        }
    }

    fn open_once(&self, caller: Caller, name: &str, there: Option<Ino>, flags: i32) -> Outcome<Fd> {
        let access = Access {
            write: flags & libc::O_ACCMODE != libc::O_RDONLY,
            append: flags & libc::O_APPEND != 0,
            truncate: flags & libc::O_TRUNC != 0,
        };
        let exclusive = flags & libc::O_EXCL != 0;
        let (ino, opened) = match there {
            Some(_) if exclusive && flags & libc::O_CREAT != 0 => return Err(libc::EEXIST),
            Some(ino) => (ino, self.wait(self.fs.clone().open(caller, ino, access))?),
            None if flags & libc::O_CREAT == 0 => return Err(libc::ENOENT),
            None => {
                let created = self.fs.create(caller, (ROOT, name), 0o644, access, exclusive);
                let (found, opened) = created.map_err(|error| errno(&error))?;
                let ino = found.attr.unwrap().ino;
                self.refer(ino);
                (ino, opened)
            }
        };
        // Past the page cache are served readers, of a key without a value or whose name leads elsewhere, and who changes a text
        // whose size the kernel is yet to ask for.
        assert!(!opened.direct || !access.truncate, "{name:?} has a name to look up");
        let mut table = self.table.lock();
        table.last += 1;
        let fd = Fd(table.last);
        table.open.insert(fd, Open { fh: opened.fh, ino, flags, no_flush: opened.no_flush, position: 0 });
        Ok(fd)
    }

    fn file(&self, fd: Fd) -> Outcome<Open> {
        self.table.lock().open.get(&fd).copied().ok_or(libc::EBADF)
    }

    fn advance(&self, fd: Fd, position: u64) {
        if let Some(open) = self.table.lock().open.get_mut(&fd) {
            open.position = position;
        }
    }

    fn resize(&self, ino: Ino, fh: Option<Fh>, size: u64) -> Outcome<()> {
        let changes = Changes { size: Some(size), ..Changes::default() };
        self.wait(self.fs.clone().setattr(caller(), ino, fh, changes)).map(drop)
    }

    fn attributes(&self, ino: Ino) -> Outcome<Stat> {
        let attr = self.fs.getattr(ino, None).map_err(|error| errno(&error))?.attr.ok_or(libc::ENOENT)?;
        Ok(Stat { size: attr.size, links: attr.links.into(), mode: attr.mode, modified: attr.modified })
    }
}

impl Door for InProcess {
    fn open(&self, name: &str, flags: i32) -> Outcome<Fd> {
        self.open_as(caller(), name, flags)
    }

    fn pread(&self, fd: Fd, at: u64, limit: usize) -> Outcome<Vec<u8>> {
        let open = self.file(fd)?;
        if open.flags & libc::O_ACCMODE == libc::O_WRONLY {
            return Err(libc::EBADF);
        }
        self.fs.read(open.fh, at, limit, <[u8]>::to_vec).map_err(|error| errno(&error))
    }

    fn read(&self, fd: Fd, limit: usize) -> Outcome<Vec<u8>> {
        let at = self.file(fd)?.position;
        let data = self.pread(fd, at, limit)?;
        self.advance(fd, at + data.len() as u64);
        Ok(data)
    }

    fn pwrite(&self, fd: Fd, at: u64, data: &[u8]) -> Outcome<usize> {
        let open = self.file(fd)?;
        if open.flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(libc::EBADF);
        }
        let mode = WriteMode { append: open.flags & libc::O_APPEND != 0, ..WriteMode::default() };
        self.wait(self.fs.clone().write_and_publish(open.fh, at, data, mode))
    }

    fn write(&self, fd: Fd, data: &[u8]) -> Outcome<usize> {
        let at = self.file(fd)?.position;
        let count = self.pwrite(fd, at, data)?;
        self.advance(fd, at + count as u64);
        Ok(count)
    }

    fn seek(&self, fd: Fd, at: u64) -> Outcome<()> {
        self.advance(fd, at);
        Ok(())
    }

    fn ftruncate(&self, fd: Fd, size: u64) -> Outcome<()> {
        let open = self.file(fd)?;
        if open.flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(libc::EINVAL);
        }
        self.resize(open.ino, Some(open.fh), size)
    }

    fn allocate(&self, fd: Fd, size: u64, keep_size: bool) -> Outcome<()> {
        self.fs.allocate(self.file(fd)?.fh, 0, size, keep_size).map_err(|error| errno(&error))
    }

    fn truncate(&self, name: &str, size: u64) -> Outcome<()> {
        let truncated = self.resize(self.expect(name)?.ino, None, size);
        // The kernel looks the name up again, once.
        if truncated == Err(libc::ESTALE) {
            self.resize(self.expect(name)?.ino, None, size)
        } else {
            truncated
        }
    }

    fn fsync(&self, fd: Fd) -> Outcome<()> {
        self.wait(self.fs.clone().fsync(self.file(fd)?.fh))
    }

    fn close(&self, fd: Fd) -> Outcome<()> {
        let open = self.file(fd)?;
        let flushed =
            if open.no_flush { Ok(()) } else { self.wait(self.fs.clone().flush(caller(), open.fh, 1)) };
        self.runtime.block_on(self.fs.clone().release(open.fh));
        self.table.lock().open.remove(&fd);
        self.drop_removed(open.ino);
        flushed
    }

    fn fstat(&self, fd: Fd) -> Outcome<Stat> {
        self.attributes(self.file(fd)?.ino)
    }

    fn stat(&self, name: &str) -> Outcome<Stat> {
        self.attributes(self.expect(name)?.ino)
    }

    fn chmod(&self, name: &str, mode: u32) -> Outcome<()> {
        let changes = Changes { mode: Some(mode), ..Changes::default() };
        self.wait(self.fs.clone().setattr(caller(), self.expect(name)?.ino, None, changes)).map(drop)
    }

    fn unlink(&self, name: &str) -> Outcome<()> {
        self.expect(name)?;
        self.wait(self.fs.clone().unlink(caller(), ROOT, name.to_owned()))
    }

    fn rename(&self, from: &str, to: &str, no_replace: bool) -> Outcome<()> {
        let source = self.expect(from)?;
        match self.look_up(caller(), to)? {
            Some(_) if no_replace => return Err(libc::EEXIST),
            Some(target) if target.ino == source.ino => return Ok(()),
            Some(_) | None => {}
        }
        self.wait(self.fs.clone().rename(
            caller(),
            (ROOT, from.to_owned()),
            (ROOT, to.to_owned()),
            no_replace,
        ))
    }

    fn list(&self) -> Outcome<Vec<String>> {
        let directory = self.wait(self.fs.clone().open_directory(caller(), ROOT))?;
        let mut names = Vec::new();
        self.fs.read_directory(&directory, 0, |item| {
            if item.number != ROOT {
                names.push(item.name.clone());
            }
            false
        });
        names.sort();
        Ok(names)
    }

    fn read_as_another(&self, name: &str) -> Option<Vec<u8>> {
        let fd = self.open_as(Caller { thread: ANOTHER, ..caller() }, name, libc::O_RDONLY).ok()?;
        let text = (self as &dyn Door).contents(fd);
        self.close(fd).and(text).ok()
    }

    fn save_as_another(&self, name: &str, text: &str) -> Outcome<()> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
        let fd = self.open_as(Caller { thread: ANOTHER, ..caller() }, name, flags)?;
        let written = (self as &dyn Door).write_all(fd, text.as_bytes());
        let closed = self.close(fd);
        written.and(closed)
    }

    fn rejected(&self) -> Vec<Vec<u8>> {
        kept_in(&self.home.path().join("rejected"))
    }

    fn store(&self) -> Option<&Client> {
        Some(&self.client)
    }
}

/// This thread.
fn caller() -> Caller {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    let thread = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
    Caller { thread, uid: 0, gid: 0 }
}

/// The errno table of docs/semantics.md.
fn errno(error: &FsError) -> i32 {
    match error {
        FsError::NotFound | FsError::Store(Error::NotFound) => libc::ENOENT,
        FsError::Exists | FsError::Store(Error::Exists) => libc::EEXIST,
        FsError::TooLarge { .. } | FsError::Store(Error::TooLarge { .. }) => libc::EFBIG,
        FsError::Invalid(_)
        | FsError::BadName
        | FsError::NoExtension(_)
        | FsError::Tags
        | FsError::Argument
        | FsError::Store(Error::BadKey(_) | Error::KeyTooLong { .. } | Error::Invalid(_)) => libc::EINVAL,
        FsError::NameTooLong => libc::ENAMETOOLONG,
        FsError::ScratchFull
        | FsError::NamesFull { .. }
        | FsError::AttributesFull { .. }
        | FsError::Store(Error::NoSpace(_)) => libc::ENOSPC,
        FsError::ReadOnly | FsError::Store(Error::ReadOnly(_)) => libc::EROFS,
        FsError::Flat | FsError::NoLinks => libc::EPERM,
        FsError::IsDirectory => libc::EISDIR,
        FsError::NotDirectory => libc::ENOTDIR,
        FsError::NotEmpty => libc::ENOTEMPTY,
        FsError::Superseded | FsError::Store(Error::Changed) => libc::ESTALE,
        FsError::NotSupported => libc::EOPNOTSUPP,
        FsError::NoAttribute => libc::ENODATA,
        FsError::BadHandle => libc::EBADF,
        FsError::WouldBlock => libc::EAGAIN,
        FsError::Deadlock => libc::EDEADLK,
        FsError::Replaced => libc::ENOLCK,
        FsError::Interrupted => libc::EINTR,
        FsError::Store(Error::Denied(_)) => libc::EACCES,
        FsError::Store(Error::Busy(_) | Error::Contended(_)) => libc::EBUSY,
        FsError::Store(Error::TimedOut(_) | Error::Expired(_)) => libc::ETIMEDOUT,
        FsError::Store(Error::Unreachable(_)) => libc::EHOSTUNREACH,
        FsError::Store(Error::Quota(_)) => libc::EDQUOT,
        FsError::Store(Error::TooMany(_)) => libc::EXDEV,
        FsError::Store(Error::Damaged(_) | Error::Displaced(_) | Error::Untrusted(_) | Error::Other(_)) => {
            libc::EIO
        }
        FsError::PartlySet { why, .. } | FsError::PutBack(why) => errno(why),
        FsError::Store(Error::Unsure(reason)) => errno(&FsError::Store((**reason).clone())),
    }
}
