//! Room on the disk: what was committed has its place in the database file, so that the log can always be emptied into
//! it and begin anew; and the log has some to begin with. So what takes no room (a delete, a rename, a shorter value)
//! works on a full disk.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::{Connection, FileControl, MAIN_DB, Transaction};

use super::floor::Floor;
use super::{index, log_of, schema};
use crate::store::{Error, Result, Space};
use crate::sys;

/// What the log has at least: a delete or rename writes some ten pages.
const RESERVE: u64 = 128 << 10;

/// Pages of the database that a set leaves free at least. A rename or delete takes one now and then: keys come to be in
/// other places, and what changed is noted.
const FREE_PAGES: i64 = 8;

/// With less than this on the disk a write that failed has failed for that.
const NEXT_TO_NOTHING: u64 = 64 << 10;

/// The space of the database's disk, if it can be told.
pub(super) fn space(database: &Path) -> Option<Space> {
    sys::disk_space(database.parent()?).ok()
}

/// Gives the log its reserve, if it has none: it is new, or somebody has cut it. Its index is kept, too.
pub(super) fn reserve(database: &Path) {
    if let Err(error) = index::keep(database) {
        tracing::debug!("no room in reserve for the index of {}: {error}", database.display());
    }
    let log = log_of(database);
    if std::fs::metadata(&log).is_ok_and(|log| log.blocks() * 512 < RESERVE) {
        // SQLite keeps no locks on the log that closing the file would end. Without room there is no reserve.
        let reserved = OpenOptions::new().write(true).open(&log).and_then(|log| sys::reserve(&log, RESERVE));
        if let Err(error) = reserved {
            tracing::debug!("no room in reserve for {}: {error}", log.display());
        }
    }
}

/// Gives each page of the database its place in the file, which else it gets when the log is emptied; with some to `spare`
/// for later changes that must not need any.
pub(super) fn allocate(
    db: &Transaction<'_>,
    floor: Option<&Floor>,
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
    match floor.map(|floor| floor.allocate(size.unsigned_abs())) {
        Some(Err(error)) if error.kind() == io::ErrorKind::StorageFull => {
            Err(Error::NoSpace(error.to_string()))
        }
        Some(Err(error)) if error.kind() != io::ErrorKind::Unsupported => Err(full(error.to_string())),
        Some(Ok(())) => Ok(()),
        // SQLite writes a byte to each block instead.
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

/// Empties the log into the database, so that it is written from its start again.
pub(super) fn begin_log_anew(db: &Connection) {
    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())) {
        tracing::debug!("the log cannot begin anew: {error}");
    }
}
