//! The index of the log, `kv.db-shm`: memory that all who have the database open share by mapping the file. SQLite sees to
//! it that the file has each page of memory, but not each block of it where blocks are smaller, nor that it stays so long.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::ffi;

use crate::store::{Error, Result};
use crate::sys;

/// What the index grows by.
const REGION: u64 = 32 << 10;

/// With less on its disk no index is made: there must be room for each block of two regions.
const ROOM: u64 = 3 * REGION;

/// What is kept: device, inode and size, and the file, which is never closed.
static KEPT: Mutex<Vec<([u64; 3], &File)>> = Mutex::new(Vec::new());

pub(super) fn of(database: &Path) -> PathBuf {
    // It is beside what a link leads to.
    let place = std::fs::canonicalize(database);
    let mut path = place.unwrap_or_else(|_| database.to_owned()).into_os_string();
    path.push("-shm");
    path.into()
}

fn identity(file: &Metadata) -> [u64; 3] {
    [file.dev(), file.ino(), file.len()]
}

/// Fails if there is no index and none can be made: it would have less on the disk than it is mapped to. A database that is
/// still empty cannot be read without one either.
pub(super) fn check_room(database: &Path) -> rusqlite::Result<()> {
    if std::fs::metadata(of(database)).is_ok_and(|file| file.len() >= REGION)
        || database
            .parent()
            .and_then(|directory| sys::disk_space(directory).ok())
            .is_none_or(|space| space.available >= ROOM)
    {
        return Ok(());
    }
    let empty = std::fs::metadata(database).is_ok_and(|file| file.len() == 0);
    let code = if empty { ffi::SQLITE_FULL } else { ffi::SQLITE_IOERR_SHMSIZE };
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("the disk is full".into())))
}

/// Keeps all blocks of the index on the disk, and one region more, so that the thread that touches them is not ended; if
/// somebody cuts the file it is mended. To be called once the index is there, and when it may have grown.
pub(super) fn keep(database: &Path) -> io::Result<()> {
    let path = of(database);
    let Ok(found) = std::fs::metadata(&path) else { return Ok(()) };
    if found.len() < REGION {
        // Cut by somebody; the first to touch it mends it.
        return Ok(());
    }
    let mut kept = KEPT.lock();
    if kept.iter().any(|(kept, _)| *kept == identity(&found)) {
        return Ok(());
    }
    // Never closed: SQLite has locks on it.
    let file: &File = Box::leak(Box::new(OpenOptions::new().read(true).write(true).open(&path)?));
    kept.push((identity(&file.metadata()?), file));
    sys::mapped::keep(file, found.len(), REGION)
}

/// How far the log is emptied into the database. No two states of a log have the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Progress {
    salt: [u8; 8],
    /// The frames of the log that the database has.
    done: [u8; 4],
    /// Those that it is to have: told before the first of them is written to it.
    begun: [u8; 4],
}

impl Progress {
    /// Whether nobody is about to write to the database, or has failed to.
    pub(super) fn is_whole(&self) -> bool {
        self.done == self.begun
    }
}

/// The kept index of the log of `database`.
pub(super) fn kept(database: &Path) -> Option<&'static File> {
    let found = std::fs::metadata(of(database)).ok()?;
    let kept = KEPT.lock();
    let same = |(kept, _): &&([u64; 3], &File)| kept[..2] == identity(&found)[..2];
    kept.iter().rfind(same).map(|(_, file)| *file)
}

/// What an index says, in SQLite's own format (`WalIndexHdr` and `WalCkptInfo`): nothing while it is made anew.
pub(super) fn progress(index: &File) -> Option<Progress> {
    const INITIALISED: usize = 12;
    const SALT: usize = 32;
    const BACKFILLED: usize = 96;
    const ATTEMPTED: usize = 128;
    let mut bytes = [0; ATTEMPTED + 4];
    index.read_exact_at(&mut bytes, 0).ok().filter(|()| bytes[INITIALISED] == 1)?;
    Some(Progress {
        salt: bytes[SALT..SALT + 8].try_into().ok()?,
        done: bytes[BACKFILLED..BACKFILLED + 4].try_into().ok()?,
        begun: bytes[ATTEMPTED..].try_into().ok()?,
    })
}

/// How often something is read again that was read while an index was mended.
const TRIES: usize = 10;

/// What `read` reads. While an index is mended it may have been something old.
pub(super) fn steady<T>(read: impl Fn() -> T) -> T {
    for _ in 1..TRIES {
        let then = sys::mapped::mended();
        let told = read();
        if sys::mapped::mended() == then {
            return told;
        }
    }
    read()
}

/// Fails if an index was mended since `then`: what was read by it may be older than it should be.
pub(super) fn unharmed_since(then: u64) -> Result<()> {
    if sys::mapped::mended() == then {
        return Ok(());
    }
    Err(Error::Other("the index of the database's log (-shm) was cut off meanwhile; try again".into()))
}
