//! Detects that another program than SQLite has written to the database (`cp backup.db kv.db`): the log beside it belongs to the
//! old contents, and together with the new ones would make a corrupt database.
//!
//! inotify reports each write to the file. SQLite writes at a checkpoint, which the index of the log records before the first
//! write; kvfs writes to allocate pages, which makes the file longer and leaves its contents as they are. Any other write is
//! another program's.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use inotify::{Inotify, WatchMask};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};

use super::index::{self, Progress};
use super::uri;

/// How often the baseline is read again if the file is written meanwhile.
const TRIES: usize = 3;

/// Watches the writes to one database.
pub(super) struct WriteMonitor {
    path: PathBuf,
    index: &'static File,
    seen: Mutex<Seen>,
}

struct Seen {
    writes: Inotify,
    /// The state at the last check, if no write came in between.
    known: Option<Known>,
    /// Whether a checkpoint had written to the file by the last check.
    explained: bool,
    overwritten: Option<Overwritten>,
}

#[derive(Clone, Copy)]
struct Known {
    progress: Progress,
    size: u64,
    content: Option<[i64; 3]>,
}

/// Another program has written to the database.
#[derive(Clone)]
pub(super) struct Overwritten {
    index: &'static File,
    /// How far the log was checkpointed before.
    progress: Progress,
    /// A checkpoint may have written to it since.
    mixed: bool,
}

impl Overwritten {
    /// Whether no checkpoint had written to the database when this was detected.
    pub(super) fn was_unmixed(&self) -> bool {
        !self.mixed
    }

    /// Whether none has until now.
    pub(super) fn is_unmixed(&self) -> bool {
        self.was_unmixed() && index::progress(self.index) == Some(self.progress)
    }
}

impl WriteMonitor {
    /// Starts to watch the database at `path`, which is open and has been read.
    pub(super) fn start(path: &Path) -> io::Result<Self> {
        // The index is kept also where the disk has no space for all of it.
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

    /// Fails if another program than SQLite has written to the database.
    pub(super) fn look(&self) -> Result<(), Overwritten> {
        let seen = &mut *self.seen.lock();
        if let Some(overwritten) = &seen.overwritten {
            return Err(overwritten.clone());
        }
        // Read before the events: a checkpoint that ends, or a file that grows, after this is noticed below.
        let (before, size_before) = (index::progress(self.index), size(&self.path));
        if !seen.was_written() {
            match (&mut seen.known, before) {
                (Some(known), Some(progress)) => known.progress = progress,
                _ => seen.begin_anew(&self.path, self.index),
            }
            // A file without readable contents may still be written to.
            seen.explained &= seen.known.is_none_or(|known| known.content.is_none());
            return Ok(());
        }
        let (Some(known), Some(size_before)) = (seen.known, size_before) else {
            seen.by_checkpoint(&self.path, self.index);
            return Ok(());
        };
        let has_grown = size(&self.path).is_none_or(|now| now > known.size)
            // Contents that cannot be read now count as unchanged.
            && content(&self.path).map_or(true, |content| content == known.content);
        // A checkpoint records its start before it writes; an interrupted one may be repeated.
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
    /// Whether the file was written since the last call.
    fn was_written(&mut self) -> bool {
        let mut written = false;
        let mut buffer = [0; 1024];
        // Ends with EAGAIN.
        while let Ok(events) = self.writes.read_events(&mut buffer) {
            written |= events.count() > 0;
        }
        written
    }

    /// Records that a checkpoint has written to the file.
    fn by_checkpoint(&mut self, path: &Path, index: &File) {
        self.begin_anew(path, index);
        self.explained = true;
    }

    /// Takes the current state as the baseline, once no write comes in between.
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

/// The contents of the file without its log: the last revision, the number of pages and of free pages. `None` if the file is
/// between two states and inconsistent. Fails if it could not be read.
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
