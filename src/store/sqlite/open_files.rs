//! The files behind the connections. The path may come to name other files while these are open, or none: commits to the old
//! ones are lost then, and the log of one database corrupts another that it comes to lie beside.
//!
//! One connection, the anchor, is open for as long as any other: SQLite removes neither log nor index before that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::files::{Id, beside, id, id_of};
use super::recovery::Recovery;
use super::write_monitor::{Overwritten, WriteMonitor};
use crate::store::{Error, Result};
use crate::sys;

/// How long the checkpoint of a log that is about to be lost may take.
const RESCUE: Duration = Duration::from_millis(500);

/// Refuses a database that is a mount point of its own, or has several names: by another way to it a process would find
/// another log beside it, and both would write to one file.
pub(super) fn refuse_two_names(path: &Path) -> std::result::Result<(), String> {
    let Ok(place) = fs::canonicalize(path) else { return Ok(()) };
    let (shown, directory) = (path.display(), place.parent().unwrap_or(&place));
    // Without /proc this is unknown.
    let mounts = [&*place, directory].map(sys::mount_id);
    if matches!(mounts, [Ok(file), Ok(directory)] if file != directory) {
        return Err(format!(
            "{shown} is mounted as a file of its own, without the log beside it, and would be destroyed where \
             others use it, too; mount the directory that it is in, and name the database there"
        ));
    }
    let links = fs::metadata(&place).map_or(1, |file| if file.is_file() { file.nlink() } else { 1 });
    if links > 1 {
        return Err(format!(
            "{shown} has {links} names (hard links), and would be destroyed if it were opened by two of them; \
             copy it and name the copy"
        ));
    }
    Ok(())
}

/// A connection, and the files that it was made to.
pub(super) struct Link {
    db: Connection,
    /// `None` where each read opens a connection of its own.
    files: Option<Arc<OpenFiles>>,
}

impl Link {
    pub(super) fn new(db: Connection, files: Option<Arc<OpenFiles>>) -> Self {
        Self { db, files }
    }

    pub(super) fn files(&self) -> Option<Arc<OpenFiles>> {
        self.files.clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.files.as_ref().is_some_and(|files| files.log_is_foreign.load(Ordering::Relaxed)) {
            keep_log(&self.db);
        }
    }
}

/// Keeps SQLite from checkpointing the log at the last close, into a database that it does not belong to.
fn keep_log(db: &Connection) {
    if let Err(error) = db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::debug!("the log is checkpointed at close: {error}");
    }
}

impl Deref for Link {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.db
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.db
    }
}

/// The files as they were when the anchor was opened.
pub(super) struct OpenFiles {
    /// The path of the database, which may be a symbolic link.
    path: PathBuf,
    database: Id,
    /// The largest size of the database so far.
    size: AtomicU64,
    /// The log does not belong to the contents of the database.
    log_is_foreign: AtomicBool,
    /// Log and index, if they exist.
    others: Vec<(PathBuf, Id)>,
    /// `None` for a database that cannot be written, and where inotify does not work.
    monitor: Option<WriteMonitor>,
    /// The database, unless it cannot be written. Closed after all connections to it, for closing it drops their locks.
    file: Option<File>,
}

/// Why the files can no longer be used.
struct Loss {
    why: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// The path names another file, or none.
    Moved,
    /// The file is shorter than it was.
    Cut,
    /// Another program than SQLite has written to it.
    Overwritten(Overwritten),
    /// The log or its index is another file, or none.
    LogLost,
}

impl OpenFiles {
    /// The files of a connection that was just made to `path` and has read.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let place = fs::canonicalize(path)?;
        let database = fs::metadata(&place)?;
        let others = ["-wal", "-shm"].map(|suffix| beside(&place, suffix));
        let others = others.into_iter().filter_map(|path| id_of(&path).map(|id| (path, id))).collect();
        let size = AtomicU64::new(database.len());
        let file = OpenOptions::new().read(true).write(true).open(&place).ok();
        let monitor = |_: &File| {
            let unseen = |error| {
                tracing::warn!("whether {} is written over cannot be told: {error}", place.display());
            };
            WriteMonitor::start(&place).map_err(unseen).ok()
        };
        // A database that cannot be written gets no checkpoint, and its index cannot be kept.
        let monitor = file.as_ref().and_then(monitor);
        let (path, database, log_is_foreign) = (path.to_owned(), id(&database), AtomicBool::new(false));
        Ok(Self { path, database, size, log_is_foreign, others, monitor, file })
    }

    /// Fails if the path no longer leads to these files, or the database was overwritten or truncated, as `db` knows it.
    fn look(&self, db: &Connection) -> std::result::Result<(), Loss> {
        let lost = |kind, path: &Path, what: &str| {
            let why = format!("{} {what} while it was in use", path.display());
            Err(Loss { why, kind })
        };
        let now = match fs::metadata(&self.path) {
            Ok(now) => now,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return lost(Kind::Moved, &self.path, "was removed or moved away");
            }
            Err(error) => return lost(Kind::Moved, &self.path, &format!("was lost sight of ({error})")),
        };
        if id(&now) != self.database {
            return lost(Kind::Moved, &self.path, "was replaced by another file");
        }
        if let Err(overwritten) = self.untouched() {
            let what = match now.len() {
                size if size < self.size.load(Ordering::Relaxed) => format!("was cut to {size} bytes"),
                _ => "was written over by another program".into(),
            };
            return lost(Kind::Overwritten(overwritten), &self.path, &what);
        }
        for (path, id) in &self.others {
            match id_of(path) {
                Some(now) if now == *id => {}
                Some(_) => return lost(Kind::LogLost, path, "was replaced by another file"),
                None => return lost(Kind::LogLost, path, "was removed or moved away"),
            }
        }
        // Without a monitor the size is all there is to go by. VACUUM shortens a file, too.
        if self.monitor.is_none()
            && now.len() < self.size.fetch_max(now.len(), Ordering::Relaxed)
            && !self.gave_room_back(db)
        {
            return lost(Kind::Cut, &self.path, &format!("was cut to {} bytes", now.len()));
        }
        Ok(())
    }

    /// Fails if another program than SQLite has written to the database.
    fn untouched(&self) -> std::result::Result<(), Overwritten> {
        let Some(monitor) = &self.monitor else { return Ok(()) };
        let [ours, theirs] = [
            |(path, id): &(PathBuf, Id)| id_of(path) == Some(*id),
            |(path, id): &(PathBuf, Id)| id_of(path).is_some_and(|now| now != *id),
        ];
        // Others may have checkpointed the same log by another index, which this one does not show.
        if matches!(&self.others[..], [log, index] if ours(log) && theirs(index)) {
            return Ok(());
        }
        monitor.look()
    }

    /// The check before a commit: of writes by others only.
    pub(super) fn check_untouched(&self) -> Result<()> {
        let why =
            || format!("{} was written over by another program while it was in use", self.path.display());
        self.untouched().map_err(|_| Error::Displaced(why()))
    }

    /// Makes the database `size` bytes long, if it is shorter. Harmless if another program has begun to overwrite it.
    pub(super) fn allocate(&self, size: u64) -> io::Result<()> {
        self.file.as_ref().map_or(Err(io::ErrorKind::Unsupported.into()), |file| sys::allocate(file, size))
    }

    /// Whether the file is shorter because the space for a change that was not committed was given back.
    fn gave_room_back(&self, db: &Connection) -> bool {
        let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
        let wanted =
            pragma("page_count").and_then(|pages| Ok(u64::from(pages) * u64::from(pragma("page_size")?)));
        // Read after the page count: the database may have grown meanwhile.
        let Ok(now) = fs::metadata(&self.path) else { return false };
        let whole = wanted.is_ok_and(|wanted| wanted > 0 && wanted <= now.len());
        if whole {
            self.size.store(now.len(), Ordering::Relaxed);
        }
        whole
    }

    /// Checkpoints the log into the database that it belongs to, whatever its name is now, and removes the log from beside
    /// another database.
    fn abandon(&self, anchor: &Connection, kind: &Kind) {
        let theirs = |(path, id): &(PathBuf, Id)| id_of(path).is_some_and(|now| now != *id);
        if matches!(kind, Kind::Cut | Kind::Overwritten(_)) {
            self.log_is_foreign.store(true, Ordering::Relaxed);
            return keep_log(anchor);
        }
        if self.others.iter().any(theirs) {
            return;
        }
        let emptied = anchor.busy_timeout(RESCUE).and_then(|()| {
            anchor.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        });
        if emptied != Ok(0) {
            tracing::error!("the log of {} could not be checkpointed: {emptied:?}", self.path.display());
        }
        if matches!(kind, Kind::Moved) {
            for (path, _) in self.others.iter().filter(|(path, id)| id_of(path) == Some(*id)) {
                _ = fs::remove_file(path);
            }
        }
    }
}

/// The files that the connections of a pool use.
pub(super) struct CurrentFiles(Mutex<State>);

enum State {
    /// In use; the connection is the anchor.
    InUse(Connection, Arc<OpenFiles>),
    /// Lost, and why; connections to the old files may still be open.
    Lost(Weak<OpenFiles>, String, Option<Recovery>),
    /// Not opened yet.
    Unopened,
    /// Closed for good.
    Closed,
}

impl CurrentFiles {
    pub(super) fn new(anchor: Option<(OpenFiles, Connection)>) -> Self {
        let state = anchor.map_or(State::Unopened, |(files, db)| State::InUse(db, Arc::new(files)));
        Self(Mutex::new(state))
    }

    /// The files that the path names, if they are those that this process has open. If none are open `make` opens an anchor; its
    /// argument is whether there was one before. Not while connections to the old files are open: as long as a file is open
    /// SQLite uses the same index for it.
    pub(super) fn files(
        &self,
        make: impl FnOnce(bool) -> Result<(OpenFiles, Connection)>,
    ) -> Result<Arc<OpenFiles>> {
        let state = &mut *self.0.lock();
        let again = match state {
            State::InUse(anchor, files) => match files.look(anchor) {
                Ok(()) => return Ok(files.clone()),
                Err(loss) => return Err(lose(state, &loss)),
            },
            State::Closed => return Err(Error::Other("the store is closed".into())),
            State::Unopened => false,
            State::Lost(old, why, _) if old.strong_count() > 0 => {
                return Err(Error::Displaced(why.clone()));
            }
            State::Lost(_, why, recovery) => {
                recovery
                    .as_ref()
                    .map_or(Ok(()), Recovery::check)
                    .map_err(|not_yet| Error::Displaced(format!("{why}; {not_yet}")))?;
                true
            }
        };
        let (files, db) = make(again).map_err(|error| match state {
            State::Lost(_, why, _) if error == Error::NotFound => Error::Displaced(why.clone()),
            State::Lost(_, why, _) => Error::Displaced(format!("{why}, and {error}")),
            _ => error,
        })?;
        if again {
            tracing::warn!("{} is in use again, as it is now", files.path.display());
        }
        let files = Arc::new(files);
        *state = State::InUse(db, files.clone());
        Ok(files)
    }

    /// Fails if the path no longer leads to the files of `link`: then its owner is to close it.
    pub(super) fn check(&self, link: &Link) -> Result<()> {
        let Some(files) = &link.files else { return Ok(()) };
        if !self.is_current(link) {
            return Err(Error::Displaced(match &*self.0.lock() {
                State::Lost(_, why, _) => why.clone(),
                _ => format!("{} was replaced while it was in use", files.path.display()),
            }));
        }
        let Err(loss) = files.look(link) else { return Ok(()) };
        let state = &mut *self.0.lock();
        Err(match state {
            State::InUse(_, now) if Arc::ptr_eq(now, files) => lose(state, &loss),
            _ => Error::Displaced(loss.why),
        })
    }

    /// Whether `link` was made to the files that are in use.
    pub(super) fn is_current(&self, link: &Link) -> bool {
        let Some(files) = &link.files else { return false };
        matches!(&*self.0.lock(), State::InUse(_, now) if Arc::ptr_eq(now, files))
    }

    /// Closes the anchor for good. Returns whether the path still leads to its files.
    pub(super) fn close(&self) -> bool {
        match std::mem::replace(&mut *self.0.lock(), State::Closed) {
            State::InUse(db, files) => match files.look(&db) {
                Ok(()) => true,
                Err(loss) => {
                    lose(&mut State::InUse(db, files), &loss);
                    false
                }
            },
            State::Lost(..) | State::Unopened | State::Closed => false,
        }
    }
}

fn lose(state: &mut State, loss: &Loss) -> Error {
    let advice = match loss.kind {
        Kind::Moved => "put it back, or a backup of it",
        Kind::LogLost => "try again",
        Kind::Cut => "if it is not whole, restore it from a backup",
        Kind::Overwritten(_) => "its log is kept as -wal.old",
    };
    let why = format!("{}; {advice}", loss.why);
    if let State::InUse(anchor, files) = state {
        tracing::error!("{why}");
        files.abandon(anchor, &loss.kind);
        let recovery = match &loss.kind {
            Kind::Overwritten(overwritten) => {
                Some(Recovery::new(&files.path, files.others.first().cloned(), overwritten.clone()))
            }
            Kind::Moved | Kind::Cut | Kind::LogLost => None,
        };
        *state = State::Lost(Arc::downgrade(files), why.clone(), recovery);
    }
    Error::Displaced(why)
}
