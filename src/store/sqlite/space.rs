//! Space on the disk: each committed page is allocated in the database file, so that a checkpoint can always write the whole
//! log back and restart it; and the log has a reserve to start with. So operations that need no space (a delete, a rename, a
//! shorter value) work on a full disk.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::{Connection, FileControl, MAIN_DB, Transaction};

use super::open_files::OpenFiles;
use super::{index, log_of, schema};
use crate::store::{Error, Result, Space};
use crate::sys;

/// Least size of the log on the disk: a delete or rename writes some ten pages.
const RESERVE: u64 = 128 << 10;

/// Pages that a set leaves free at least. A rename or delete needs one now and then, for the trees of keys and of the `change`
/// table.
const FREE_PAGES: i64 = 8;

/// With less space than this a write that failed has failed for lack of space.
const NEXT_TO_NOTHING: u64 = 64 << 10;

/// The space of the database's disk, if it is known.
pub(super) fn space(database: &Path) -> Option<Space> {
    sys::disk_space(database.parent()?).ok()
}

/// Reserves space for the log, if it has none because it is new or was truncated, and for its index.
pub(super) fn reserve(database: &Path) {
    if let Err(error) = index::keep(database) {
        tracing::debug!("no space reserved for the index of {}: {error}", database.display());
    }
    let log = log_of(database);
    if std::fs::metadata(&log).is_ok_and(|log| log.blocks() * 512 < RESERVE) {
        // Closing the file drops no locks: SQLite has none on the log. On a full disk there is no reserve.
        let reserved = OpenOptions::new().write(true).open(&log).and_then(|log| sys::reserve(&log, RESERVE));
        if let Err(error) = reserved {
            tracing::debug!("no space reserved for {}: {error}", log.display());
        }
    }
}

/// Allocates each page of the database in the file, which else the checkpoint would do; with `spare`, also free pages for
/// later changes that must not need space.
pub(super) fn allocate(
    db: &Transaction<'_>,
    files: Option<&OpenFiles>,
    database: &Path,
    spare: bool,
) -> Result<()> {
    let pragma = |name: &str| -> rusqlite::Result<i64> {
        db.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))
    };
    let page = pragma("page_size")?;
    if spare && pragma("freelist_count")? < FREE_PAGES {
        schema::make_free_pages(db, 2 * FREE_PAGES * page)?;
    }
    let size = pragma("page_count")?.saturating_mul(page);
    let full = |reason: String| {
        if space(database).is_some_and(|space| space.available < NEXT_TO_NOTHING) {
            Error::NoSpace(format!("the disk of {} is full", database.display()))
        } else {
            Error::Other(reason)
        }
    };
    match files.map(|files| files.allocate(size.unsigned_abs())) {
        Some(Err(error)) if error.kind() == io::ErrorKind::StorageFull => {
            Err(Error::NoSpace(error.to_string()))
        }
        Some(Err(error)) if error.kind() != io::ErrorKind::Unsupported => Err(full(error.to_string())),
        Some(Ok(())) => Ok(()),
        // Where fallocate(2) is not supported SQLite writes a byte to each block.
        Some(Err(_)) | None => hint(db, size, page).map_err(|error| match error.into() {
            Error::Other(reason) => full(reason),
            error => error,
        }),
    }
}

fn hint(db: &Transaction<'_>, mut size: i64, page: i64) -> rusqlite::Result<()> {
    let mut chunk = i32::try_from(page).unwrap_or(i32::MAX);
    // Without a chunk size the hint does nothing.
    db.file_control(Some(MAIN_DB), FileControl::ChunkSize(&mut chunk))?;
    db.file_control(Some(MAIN_DB), FileControl::SizeHint(&mut size))
}

/// Checkpoints the log, so that it is written from its start again.
pub(super) fn restart_log(db: &Connection) {
    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())) {
        tracing::debug!("the log cannot be restarted: {error}");
    }
}
