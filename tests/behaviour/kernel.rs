//! The real kernel and a mount of the built binary.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::any::Any;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvfs::store::{Location, Store, open};
use parking_lot::MutexGuard;

use super::door::{Client, Door, Fd, Outcome, Stat, errno};
use super::sys;
use crate::common::Mount;

/// A child that another test starts would inherit the files that are open here, and close them: a flush, which
/// publishes what is complete by then (rule 4).
static ONE_AT_A_TIME: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Keeps a directory in which there is nothing else.
const KEPT: &str = "kept";

/// A mount and the files this process has open on it.
pub(crate) struct Mounted {
    pub(crate) mount: Mount,
    /// Where the files are.
    dir: PathBuf,
    files: Mutex<HashMap<Fd, File>>,
    client: Option<Client>,
    /// What the store is behind; ends after the mount.
    server: Option<Box<dyn Any>>,
    _alone: MutexGuard<'static, ()>,
}

impl Mounted {
    pub(crate) fn memory(args: &[&str]) -> Self {
        let alone = ONE_AT_A_TIME.lock();
        Self::new(Mount::memory(args), None, alone)
    }

    pub(crate) fn sqlite(args: &[&str]) -> Self {
        let alone = ONE_AT_A_TIME.lock();
        let mount = Mount::sqlite(args);
        let location = Location::Sqlite(mount.home.path().join("kv.db"));
        let (store, _) = open(&location, Duration::from_secs(5)).unwrap();
        Self::new(mount, Some(Client::new(store)), alone)
    }

    /// A mount of what a server keeps, and another client of it; `None` if there is no such server.
    pub(crate) fn served<S: Any>(
        keeps_bytes: bool,
        start: impl FnOnce() -> Option<(S, Mount, Arc<dyn Store>)>,
    ) -> Option<Self> {
        let alone = ONE_AT_A_TIME.lock();
        let (server, mount, store) = start()?;
        let mut client = Client::new(store);
        client.keeps_bytes = keeps_bytes;
        let mut mounted = Self::new(mount, Some(client), alone);
        mounted.server = Some(Box::new(server));
        Some(mounted)
    }

    fn new(mount: Mount, client: Option<Client>, alone: MutexGuard<'static, ()>) -> Self {
        let dir = mount.dir.clone();
        Self { mount, dir, files: Mutex::default(), client, server: None, _alone: alone }
    }

    /// The files of the keys that begin with `prefix`, in the directory of that name.
    pub(crate) fn below(mut self, prefix: &str) -> Self {
        self.dir = self.mount.path(prefix);
        // Others may delete all keys there.
        fs::create_dir_all(self.dir.join(KEPT)).unwrap();
        if let Some(client) = &mut self.client {
            prefix.clone_into(&mut client.prefix);
        }
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn with<T>(&self, fd: Fd, call: impl FnOnce(&mut File) -> io::Result<T>) -> Outcome<T> {
        let mut files = self.files.lock().unwrap();
        call(files.get_mut(&fd).ok_or(libc::EBADF)?).map_err(|error| errno(&error))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A file that stays open would keep the daemon from ending.
        self.files.get_mut().unwrap().clear();
    }
}

/// Opens `path` with the flags of open(2), whatever their combination.
pub(crate) fn open_with(path: &std::path::Path, flags: i32, mode: u32) -> io::Result<File> {
    let access = flags & libc::O_ACCMODE;
    let mut options = OpenOptions::new();
    options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
    options.custom_flags(flags & !libc::O_ACCMODE).mode(mode).open(path)
}

fn stat_of(meta: &fs::Metadata) -> Stat {
    Stat {
        size: meta.len(),
        links: meta.nlink(),
        mode: meta.permissions().mode() & 0o7777,
        modified: meta.modified().unwrap(),
    }
}

fn got(file: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>, limit: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; limit];
    let count = file(&mut buffer)?;
    buffer.truncate(count);
    Ok(buffer)
}

impl Door for Mounted {
    fn open(&self, name: &str, flags: i32) -> Outcome<Fd> {
        let file = open_with(&self.path(name), flags, 0o666).map_err(|error| errno(&error))?;
        let fd = Fd(file.as_raw_fd());
        self.files.lock().unwrap().insert(fd, file);
        Ok(fd)
    }

    fn pread(&self, fd: Fd, at: u64, limit: usize) -> Outcome<Vec<u8>> {
        self.with(fd, |file| got(&mut |buffer| file.read_at(buffer, at), limit))
    }

    fn read(&self, fd: Fd, limit: usize) -> Outcome<Vec<u8>> {
        self.with(fd, |file| got(&mut |buffer| file.read(buffer), limit))
    }

    fn pwrite(&self, fd: Fd, at: u64, data: &[u8]) -> Outcome<usize> {
        self.with(fd, |file| file.write_at(data, at))
    }

    fn write(&self, fd: Fd, data: &[u8]) -> Outcome<usize> {
        self.with(fd, |file| file.write(data))
    }

    fn seek(&self, fd: Fd, at: u64) -> Outcome<()> {
        self.with(fd, |file| file.seek(SeekFrom::Start(at)).map(drop))
    }

    fn ftruncate(&self, fd: Fd, size: u64) -> Outcome<()> {
        self.with(fd, |file| file.set_len(size))
    }

    fn allocate(&self, fd: Fd, size: u64, keep_size: bool) -> Outcome<()> {
        let mode = if keep_size { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
        self.with(fd, |file| sys::allocate(file, mode, size))
    }

    fn truncate(&self, name: &str, size: u64) -> Outcome<()> {
        sys::truncate(&self.path(name), size).map_err(|error| errno(&error))
    }

    fn fsync(&self, fd: Fd) -> Outcome<()> {
        self.with(fd, |file| file.sync_all())
    }

    fn close(&self, fd: Fd) -> Outcome<()> {
        let file = self.files.lock().unwrap().remove(&fd).ok_or(libc::EBADF)?;
        sys::close(file).map_err(|error| errno(&error))
    }

    fn fstat(&self, fd: Fd) -> Outcome<Stat> {
        self.with(fd, |file| file.metadata().map(|meta| stat_of(&meta)))
    }

    fn stat(&self, name: &str) -> Outcome<Stat> {
        let meta = fs::metadata(self.path(name));
        meta.map(|meta| stat_of(&meta)).map_err(|error| errno(&error))
    }

    fn chmod(&self, name: &str, mode: u32) -> Outcome<()> {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.path(name), mode).map_err(|error| errno(&error))
    }

    fn unlink(&self, name: &str) -> Outcome<()> {
        fs::remove_file(self.path(name)).map_err(|error| errno(&error))
    }

    fn rename(&self, from: &str, to: &str, no_replace: bool) -> Outcome<()> {
        let flags = if no_replace { libc::RENAME_NOREPLACE } else { 0 };
        let (from, to) = (self.path(from), self.path(to));
        sys::rename_with(&from, &to, flags).map_err(|error| errno(&error))
    }

    fn list(&self) -> Outcome<Vec<String>> {
        let entries = fs::read_dir(&self.dir).map_err(|error| errno(&error))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().unwrap()));
        let mut names = names.collect::<io::Result<Vec<String>>>().map_err(|error| errno(&error))?;
        names.retain(|name| name != KEPT);
        names.sort();
        Ok(names)
    }

    fn read_as_another(&self, name: &str) -> Option<Vec<u8>> {
        let out = Command::new("cat").arg(self.path(name)).output().unwrap();
        out.status.success().then_some(out.stdout)
    }

    fn save_as_another(&self, name: &str, text: &str) -> Outcome<()> {
        let saved = Command::new("sh")
            .args(["-c", "printf %s \"$1\" > \"$2\"", "sh", text])
            .arg(self.path(name))
            .status();
        if saved.unwrap().success() { Ok(()) } else { Err(libc::EIO) }
    }

    fn rejected(&self) -> Vec<Vec<u8>> {
        super::door::kept_in(&self.mount.home.path().join("state/kvfs/rejected"))
    }

    fn store(&self) -> Option<&Client> {
        self.client.as_ref()
    }
}
