//! The index of the log, `kv.db-shm`: a file that all processes with the database open map as shared memory. SQLite makes the
//! file as long as the mapping, but does not allocate each block where blocks are smaller than pages, nor notices that the file
//! is truncated.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::ffi;

use crate::store::{Error, Result};
use crate::sys;

/// The index grows by so many bytes.
const REGION: u64 = 32 << 10;

/// Least space on the disk for a new index: all blocks of two regions must be allocated.
const ROOM: u64 = 3 * REGION;

/// The indexes that are kept: device, inode and size, and the file, which is never closed.
static KEPT: Mutex<Vec<([u64; 3], &File)>> = Mutex::new(Vec::new());

pub(super) fn of(database: &Path) -> PathBuf {
    // It is beside the file that a symbolic link leads to.
    let place = std::fs::canonicalize(database);
    let mut path = place.unwrap_or_else(|_| database.to_owned()).into_os_string();
    path.push("-shm");
    path.into()
}

fn identity(file: &Metadata) -> [u64; 3] {
    [file.dev(), file.ino(), file.len()]
}

/// Fails if there is no index and no space for one: blocks of the mapping would be missing on the disk. Also an empty database
/// cannot be read without one.
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

/// Keeps all blocks of the index allocated, and one region more, so that no access to the mapping raises SIGBUS; if somebody
/// truncates the file the handler repairs it. To be called once the index exists, and when it may have grown.
pub(super) fn keep(database: &Path) -> io::Result<()> {
    let path = of(database);
    let Ok(found) = std::fs::metadata(&path) else { return Ok(()) };
    if found.len() < REGION {
        // Truncated by somebody; the handler of SIGBUS repairs it at the next access.
        return Ok(());
    }
    let mut kept = KEPT.lock();
    if kept.iter().any(|(kept, _)| *kept == identity(&found)) {
        return Ok(());
    }
    // Never closed: that would drop SQLite's locks on it.
    let file: &File = Box::leak(Box::new(OpenOptions::new().read(true).write(true).open(&path)?));
    kept.push((identity(&file.metadata()?), file));
    sys::mapped::keep(file, found.len(), REGION)
}

/// How far the log is checkpointed. No two states of a log have the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Progress {
    salt: [u8; 8],
    /// How many frames are written back.
    done: [u8; 4],
    /// How many a checkpoint has set out to write back: recorded before it writes the first.
    begun: [u8; 4],
}

impl Progress {
    /// Whether no checkpoint is in progress, or was interrupted.
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

/// Reads the progress in SQLite's own format (`WalIndexHdr` and `WalCkptInfo`); `None` while the index is rebuilt.
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

/// How often a read is repeated during which an index was repaired.
const TRIES: usize = 10;

/// The result of `read`, which is repeated while an index is repaired: it may have read an old version.
pub(super) fn steady<T>(read: impl Fn() -> T) -> T {
    for _ in 1..TRIES {
        let then = sys::mapped::mended();
        let result = read();
        if sys::mapped::mended() == then {
            return result;
        }
    }
    read()
}

/// Fails if an index was repaired since `then`: reads by it may have been of an old version.
pub(super) fn unharmed_since(then: u64) -> Result<()> {
    if sys::mapped::mended() == then {
        return Ok(());
    }
    Err(Error::Other("the index of the database's log (-shm) was cut off meanwhile; try again".into()))
}
