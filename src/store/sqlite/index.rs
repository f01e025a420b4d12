//! The index of the log, `kv.db-shm`: memory that all who have the database open share by mapping the file. SQLite sees to
//! it that the file has each page of memory, but not each block of it where blocks are smaller, nor that it stays so long.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::ffi;

use super::room;
use crate::store::{Error, Result};
use crate::sys;

/// What the index grows by.
const REGION: u64 = 32 << 10;

/// With less on its disk no index is made: there must be room for each block of two regions.
const ROOM: u64 = 3 * REGION;

/// Device, inode and size of what is kept.
static KEPT: Mutex<Vec<[u64; 3]>> = Mutex::new(Vec::new());

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
        || room::space(database).is_none_or(|space| space.available >= ROOM)
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
    if kept.contains(&identity(&found)) {
        return Ok(());
    }
    // Never closed: SQLite has locks on it.
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    kept.push(identity(&file.metadata()?));
    sys::mapped::keep(file, found.len(), REGION)
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
