//! Whether somebody else than SQLite has written to the database (`cp backup.db kv.db`): the log beside it belongs to what it
//! was before, and over anything else makes a database that never was.
//!
//! inotify tells that the file was written. SQLite does so for a checkpoint, of which the index of the log tells before the
//! first write, and kvfs to give pages their place, by which the file grows and what it says stays. Whatever else it was, it
//! was none of us.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use inotify::{Inotify, WatchMask};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

use super::index::{self, Progress};
use super::uri;

/// How often what is written meanwhile is looked at again.
const TRIES: usize = 3;

/// Who looks at the writes to a database.
pub(super) struct Witness {
    path: PathBuf,
    index: &'static File,
    seen: Mutex<Seen>,
}

struct Seen {
    writes: Inotify,
    /// As of the last look, if there was a moment without writes in it.
    known: Option<Known>,
    /// By the last look SQLite had written to the file.
    explained: bool,
    overwritten: Option<Overwritten>,
}

#[derive(Clone, Copy)]
struct Known {
    progress: Progress,
    size: u64,
    content: Option<[i64; 3]>,
}

/// Somebody else has written to the database.
#[derive(Clone)]
pub(super) struct Overwritten {
    index: &'static File,
    /// How far the log was emptied into it before.
    progress: Progress,
    /// Something of before may have been written to it since.
    mixed: bool,
}

impl Overwritten {
    /// Whether no checkpoint had written to the database when this was seen.
    pub(super) fn was_unmixed(&self) -> bool {
        !self.mixed
    }

    /// Whether none has until now.
    pub(super) fn is_unmixed(&self) -> bool {
        self.was_unmixed() && index::progress(self.index) == Some(self.progress)
    }
}

impl Witness {
    /// Looks at the writes to the database at `path`, which is open, and has been read.
    pub(super) fn start(path: &Path) -> io::Result<Self> {
        // It is kept, too, where there is no room for all of it.
        let kept = index::keep(path);
        let index = index::kept(path).ok_or_else(|| {
            kept.err().unwrap_or_else(|| io::Error::other("the index of its log is not there"))
        })?;
        let writes = Inotify::init()?;
        writes.watches().add(path, WatchMask::MODIFY)?;
        let mut seen = Seen { writes, known: None, explained: true, overwritten: None };
        seen.begin_anew(path, index);
        Ok(Self { path: path.to_owned(), index, seen: Mutex::new(seen) })
    }

    /// Whether nobody but SQLite has written to the database so far.
    pub(super) fn look(&self) -> Result<(), Overwritten> {
        let seen = &mut *self.seen.lock();
        if let Some(overwritten) = &seen.overwritten {
            return Err(overwritten.clone());
        }
        // In this order: what a checkpoint has written before it is told as done is seen below, and what made the file grow.
        let (before, size_before) = (index::progress(self.index), size(&self.path));
        if !seen.was_written() {
            match (&mut seen.known, before) {
                (Some(known), Some(progress)) => known.progress = progress,
                _ => seen.begin_anew(&self.path, self.index),
            }
            // A file that says nothing by itself may be one that is still written to.
            seen.explained &= seen.known.is_none_or(|known| known.content.is_none());
            return Ok(());
        }
        let (Some(known), Some(size_before)) = (seen.known, size_before) else {
            seen.by_checkpoint(&self.path, self.index);
            return Ok(());
        };
        let has_grown = size(&self.path).is_none_or(|now| now > known.size)
            // What cannot be read now tells nothing.
            && content(&self.path).map_or(true, |content| content == known.content);
        // A checkpoint that wrote had been told of before, and one that did not come to its end may be tried again.
        if !known.progress.is_whole() || index::progress(self.index) != Some(known.progress) {
            seen.by_checkpoint(&self.path, self.index);
            return Ok(());
        }
        if has_grown {
            seen.known = Some(Known { size: size_before.max(known.size), ..known });
            return Ok(());
        }
        let overwritten = Overwritten { index: self.index, progress: known.progress, mixed: seen.explained };
        seen.overwritten = Some(overwritten.clone());
        Err(overwritten)
    }
}

impl Seen {
    /// Whether the file was written since this was last asked.
    fn was_written(&mut self) -> bool {
        let mut written = false;
        let mut buffer = [0; 1024];
        // Ends with an error: that nothing is there yet.
        while let Ok(events) = self.writes.read_events(&mut buffer) {
            written |= events.count() > 0;
        }
        written
    }

    /// Takes in that SQLite has written to the file.
    fn by_checkpoint(&mut self, path: &Path, index: &File) {
        self.begin_anew(path, index);
        self.explained = true;
    }

    /// Takes the database for what it should be now, once nobody writes to it.
    fn begin_anew(&mut self, path: &Path, index: &File) {
        self.known = None;
        for _ in 0..TRIES {
            let (Some(progress), Some(size)) = (index::progress(index), size(path)) else { return };
            let Ok(content) = content(path) else { return };
            let known = Known { progress, size, content };
            if !self.was_written() {
                self.known = Some(known);
                return;
            }
        }
    }
}

fn size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).map(|file| file.len()).ok()
}

/// What the file says by itself, without its log: its last revision, its pages and those of them that are free. Nothing
/// if it is between two states of the database, and makes no sense. Fails if it could not be read.
fn content(path: &Path) -> rusqlite::Result<Option<[i64; 3]>> {
    use rusqlite::ErrorCode as Code;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(uri::immutable(path), flags)?;
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get(0));
    let read = || {
        Ok::<_, rusqlite::Error>([
            super::schema::revision(&db)?,
            pragma("page_count")?,
            pragma("freelist_count")?,
        ])
    };
    match read() {
        Ok(content) => Ok(Some(content)),
        Err(error) => match error.sqlite_error_code() {
            // SQLITE_ERROR: a table is missing.
            Some(Code::DatabaseCorrupt | Code::NotADatabase | Code::Unknown) => Ok(None),
            _ => Err(error),
        },
    }
}
