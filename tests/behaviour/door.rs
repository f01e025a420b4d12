//! Two ways into the same directory: in process, and through the kernel.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use kvfs::store::{Expect, Key, Store};
use tokio::runtime::Runtime;

/// An errno, or what the call gave.
pub(crate) type Outcome<T> = Result<T, i32>;

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fd(pub(crate) i32);

/// What stat(2) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) size: u64,
    pub(crate) links: u64,
    pub(crate) mode: u32,
    pub(crate) modified: SystemTime,
}

/// A directory of keys, as a program sees it. Flags are those of open(2).
pub(crate) trait Door {
    fn open(&self, name: &str, flags: i32) -> Outcome<Fd>;
    fn pread(&self, fd: Fd, at: u64, limit: usize) -> Outcome<Vec<u8>>;
    fn read(&self, fd: Fd, limit: usize) -> Outcome<Vec<u8>>;
    fn pwrite(&self, fd: Fd, at: u64, data: &[u8]) -> Outcome<usize>;
    fn write(&self, fd: Fd, data: &[u8]) -> Outcome<usize>;
    fn seek(&self, fd: Fd, at: u64) -> Outcome<()>;
    fn ftruncate(&self, fd: Fd, size: u64) -> Outcome<()>;
    /// fallocate(2) of the first `size` bytes.
    fn allocate(&self, fd: Fd, size: u64, keep_size: bool) -> Outcome<()>;
    fn truncate(&self, name: &str, size: u64) -> Outcome<()>;
    fn fsync(&self, fd: Fd) -> Outcome<()>;
    fn close(&self, fd: Fd) -> Outcome<()>;
    fn fstat(&self, fd: Fd) -> Outcome<Stat>;
    fn stat(&self, name: &str) -> Outcome<Stat>;
    fn chmod(&self, name: &str, mode: u32) -> Outcome<()>;
    fn unlink(&self, name: &str) -> Outcome<()>;
    fn rename(&self, from: &str, to: &str, no_replace: bool) -> Outcome<()>;
    /// Names in order; a name that is listed twice is there twice.
    fn list(&self) -> Outcome<Vec<String>>;
    /// What another process reads, if it finds the file.
    fn read_as_another(&self, name: &str) -> Option<Vec<u8>>;
    /// Sets it by another process, as `echo` does.
    fn save_as_another(&self, name: &str, text: &str) -> Outcome<()>;
    /// Texts kept because they could not be published (rule 9).
    fn rejected(&self) -> Vec<Vec<u8>>;
    /// The store, as another client of it sees it; `memory:` behind a mount cannot be reached.
    fn store(&self) -> Option<&Client>;
}

impl dyn Door + '_ {
    /// open, write all, close; the first errno.
    pub(crate) fn save_with(&self, name: &str, flags: i32, text: impl AsRef<[u8]>) -> Outcome<()> {
        let fd = self.open(name, libc::O_WRONLY | flags)?;
        let written = self.write_all(fd, text.as_ref());
        let closed = self.close(fd);
        written.and(closed)
    }

    /// As `echo TEXT > NAME` does.
    pub(crate) fn save(&self, name: &str, text: impl AsRef<[u8]>) -> Outcome<()> {
        self.save_with(name, libc::O_CREAT | libc::O_TRUNC, text)
    }

    pub(crate) fn write_all(&self, fd: Fd, mut data: &[u8]) -> Outcome<()> {
        while !data.is_empty() {
            let count = self.write(fd, data)?;
            data = &data[count..];
        }
        Ok(())
    }

    /// All that an open file shows, whatever its position is.
    pub(crate) fn contents(&self, fd: Fd) -> Outcome<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            let more = self.pread(fd, text.len() as u64, 1 << 16)?;
            if more.is_empty() {
                return Ok(text);
            }
            text.extend(more);
        }
    }

    /// The whole file of this name.
    pub(crate) fn load(&self, name: &str) -> Outcome<Vec<u8>> {
        let fd = self.open(name, libc::O_RDONLY)?;
        let text = self.contents(fd);
        self.close(fd).and(text)
    }

    /// The whole file of this name as text; panics where there is none.
    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.load(name).unwrap()).unwrap()
    }

    /// The current version of a key as a reader that holds it open.
    #[track_caller]
    pub(crate) fn reader(&self, name: &str) -> Fd {
        self.open(name, libc::O_RDONLY).unwrap()
    }
}

/// Another client of the store.
pub(crate) struct Client {
    store: Arc<dyn Store>,
    runtime: Runtime,
    /// Whether the store keeps the bytes, or the JSON that they stand for.
    pub(crate) keeps_bytes: bool,
    /// What its keys begin with, and the client does not say.
    pub(crate) prefix: String,
}

impl Client {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { store, runtime: runtime.unwrap(), keeps_bytes: true, prefix: String::new() }
    }

    fn key(&self, key: &str) -> Key {
        Key::from(format!("{}{key}", self.prefix))
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let entry = self.runtime.block_on(self.store.get_key_value(&self.key(key)));
        entry.ok().map(|entry| entry.text.to_vec())
    }

    /// What the files show of a text that was set elsewhere.
    pub(crate) fn shown(&self, text: &str) -> String {
        if self.keeps_bytes {
            return text.to_owned();
        }
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        format!("{value:#}\n")
    }

    pub(crate) fn set(&self, key: &str, text: &str) {
        let text = text.as_bytes().into();
        self.runtime.block_on(self.store.set_key_value(&self.key(key), text, Expect::Anything)).unwrap();
    }

    pub(crate) fn delete(&self, key: &str) {
        self.runtime.block_on(self.store.delete_key(&self.key(key), Expect::Anything)).unwrap();
    }

    /// Every key and its value.
    pub(crate) fn all(&self) -> BTreeMap<String, Vec<u8>> {
        let listing = self.runtime.block_on(self.store.list_keys()).unwrap();
        let keys = listing
            .into_iter()
            .filter_map(|(key, _)| Some(key.as_str().strip_prefix(&self.prefix)?.to_owned()));
        keys.map(|key| (self.get(&key).unwrap(), key)).map(|(text, key)| (key, text)).collect()
    }
}

/// The errno of a failed call.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// The rejected texts below `directory`, without their reasons and without deleted values.
pub(crate) fn kept_in(directory: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let texts =
        paths.filter(|path| !matches!(path.extension().and_then(OsStr::to_str), Some("reason" | "deleted")));
    texts.map(|path| std::fs::read(path).unwrap()).collect()
}
