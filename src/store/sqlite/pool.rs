//! Connections to one database file.

mod own;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, FileControl, MAIN_DB, OpenFlags, TransactionBehavior};

use self::own::Own;
use super::open_files::{CurrentFiles, Link, OpenFiles};
use super::{access, index, log_of, open_files, schema, uri};
use crate::store::{Error, Result};
use crate::sys;

/// How often the log is checkpointed again at the end, if it is still there.
const CLOSES: u32 = 5;
/// Longest pause in between.
const CLOSE_WAIT: Duration = Duration::from_millis(20);

/// Idle read connections, and the way to make more.
pub(super) struct Pool {
    /// The path as given.
    given: PathBuf,
    /// The file that it leads to by symbolic links: log and index are beside it.
    path: PathBuf,
    /// Why it can only be read, if so.
    read_only: Option<String>,
    /// Changes of others cannot be read from the log, for its index cannot be made.
    alone: bool,
    closing: AtomicBool,
    busy: Duration,
    own: Mutex<Own>,
    current: CurrentFiles,
    idle: Mutex<Vec<Link>>,
    /// The connection that commits.
    pub(super) writing: tokio::sync::Mutex<Option<Link>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    /// Creates missing files.
    Create,
    ReadWrite,
    /// Other processes may still change the file.
    ReadOnly,
    /// SQLite reads no log and makes no index, which it could not on read-only media.
    Immutable,
}

impl Pool {
    /// Opens or creates the database; checks that it is one of kvfs. Statements wait up to `busy` for other processes.
    pub(super) fn open(path: &Path, busy: Duration) -> std::result::Result<Self, String> {
        let shown = path.display();
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sys::create_private_dir_all(parent).map_err(|error| {
                let parent = parent.display();
                format!("cannot create {parent}: {error}; name a database elsewhere, as in sqlite:/srv/kv.db")
            })?;
        }
        // The watcher and messages need a path that stays right when the daemon leaves its directory.
        let path = std::path::absolute(path).map_err(|error| format!("{shown}: {error}"))?;
        open_files::refuse_two_names(&path)?;
        // SQLite gives log and index the mode of the database. If the file cannot be made the error of SQLite says why.
        _ = sys::create_private(&path);
        let attempt = || {
            let mut db = connect(&path, Access::Create, busy)?;
            prepare(&mut db)?;
            Ok(db)
        };
        let began = Instant::now();
        let mut prepared = attempt();
        // SQLite does not wait for a process that turns the log on at the same moment.
        while matches!(&prepared, Err(Failure::Locked(_))) && began.elapsed() < busy {
            std::thread::sleep(Duration::from_millis(5));
            prepared = attempt();
        }
        let mut anchor = None;
        let read_only = match prepared {
            Ok(db) => {
                anchor = Some((files_of(&path, &db).map_err(|why| format!("{shown} {why}"))?, db));
                access::not_writable(&path)
            }
            Err(Failure::Final(why) | Failure::Locked(why)) => return Err(format!("{shown} {why}")),
            Err(Failure::Access(error)) => {
                let read_only = access::not_writable(&path);
                let db = connect_to_read(&path, busy)
                    .map_err(|other| unusable(&path, read_only.as_deref(), &error, &other))?;
                recognise(&db).map_err(|why| format!("{shown} {why}"))?;
                // Not because the disk is full: that passes.
                read_only
            }
        };
        Ok(Self {
            path: std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone()),
            given: path,
            alone: read_only.is_some() && anchor.is_none(),
            read_only,
            closing: AtomicBool::new(false),
            busy,
            own: Mutex::default(),
            current: CurrentFiles::new(anchor),
            idle: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        })
    }

    /// Whether no feed is possible.
    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Why the database can only be read, if so.
    pub(super) fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A connection to write with.
    pub(super) fn connect_to_write(&self) -> Result<Link> {
        match &self.read_only {
            Some(why) => Err(Error::ReadOnly(why.clone())),
            None => self.connect(),
        }
    }

    /// A connection that reads the changes of others.
    pub(super) fn connect(&self) -> Result<Link> {
        let files = self.current.files(|again| self.anchor(again)).inspect_err(|_| self.close_idle())?;
        let db = connect(&self.given, Access::ReadWrite, self.busy)?;
        Ok(Link::new(db, Some(files)))
    }

    /// A connection to the file that the path names now; `again` if the files that it named before were lost.
    fn anchor(&self, again: bool) -> Result<(OpenFiles, Connection)> {
        match std::fs::metadata(&self.given) {
            // SQLite would remove the log of an empty file, and make a database of it.
            Ok(file) if again && file.len() == 0 => return Err(Error::Other("it is empty now".into())),
            Err(_) if again => return Err(Error::NotFound),
            Ok(_) | Err(_) => {}
        }
        let db = connect(&self.given, Access::ReadWrite, self.busy)?;
        recognise(&db).map_err(|why| Error::Other(format!("it {why}")))?;
        db.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
        let files = files_of(&self.given, &db).map_err(|why| Error::Other(format!("it {why}")))?;
        if again {
            let state: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if state != "ok" {
                return Err(Error::Other(format!("it is corrupt ({state}); restore it from a backup")));
            }
            files.check_untouched()?;
        }
        Ok((files, db))
    }

    /// Fails if the path no longer leads to the files of `link`: called before a commit, and before it is acknowledged.
    pub(super) fn check(&self, link: &Link) -> Result<()> {
        self.current.check(link).inspect_err(|_| self.close_idle())
    }

    /// Refuses new connections from now on. Returns whether it did so before.
    pub(super) fn begin_close(&self) -> bool {
        self.closing.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Closes all idle connections. If two processes close theirs at once, SQLite may take neither for the last, and the log
    /// stays: then it is opened and closed again.
    pub(super) fn close(&self) {
        self.close_idle();
        if !self.current.close() || self.read_only.is_some() {
            return;
        }
        let log = log_of(&self.path);
        for _ in 0..CLOSES {
            if !log.exists() {
                return;
            }
            if let Ok(db) = connect(&self.given, Access::ReadWrite, CLOSE_WAIT) {
                _ = tables(&db);
            }
            std::thread::sleep(CLOSE_WAIT.mul_f64(fastrand::f64()));
        }
    }

    /// Closes the idle connections.
    fn close_idle(&self) {
        self.idle.lock().clear();
        if let Ok(mut writing) = self.writing.try_lock() {
            *writing = None;
        }
    }

    /// A connection to read with, and whether to keep it: the way to read a database that cannot be written depends on whether
    /// another process writes to it.
    fn connect_to_read(&self) -> Result<(Link, bool)> {
        if !self.alone {
            match self.connect() {
                Ok(db) if tables(&db).is_ok() => return Ok((db, true)),
                Err(error @ Error::Displaced(_)) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        connect_to_read(&self.given, self.busy).map(|db| (Link::new(db, None), false))
    }

    /// Runs `query` on an idle connection, or a new one.
    pub(super) fn with<T>(&self, query: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let idle = self.idle.lock().pop();
        let (db, keep) = match idle {
            Some(db) => (db, true),
            None => self.connect_to_read()?,
        };
        let result = index::steady(|| query(&db));
        // Discards what was read if the files were replaced meanwhile.
        self.check(&db)?;
        let result = result?;
        if keep && self.current.is_current(&db) {
            self.idle.lock().push(db);
        }
        Ok(result)
    }
}

/// Opens a database that cannot be written.
fn connect_to_read(path: &Path, busy: Duration) -> Result<Connection> {
    let readable = connect(path, Access::ReadOnly, busy).and_then(|db| match tables(&db) {
        Ok(_) => Ok(db),
        Err(error) => Err(classify(error)),
    });
    let error = match readable {
        Ok(db) => return Ok(db),
        Err(Failure::Locked(why)) => return Err(Error::Busy(why)),
        Err(Failure::Final(why)) => return Err(Error::Other(why)),
        Err(Failure::Access(error)) => error,
    };
    if std::fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0) {
        // The log alone has the newest values.
        let why = "its log cannot be read where nothing can be written; open it once where it can";
        return Err(Error::Other(format!("{why} ({error})")));
    }
    match connect(path, Access::Immutable, busy) {
        Ok(db) => Ok(db),
        Err(Failure::Locked(why)) => Err(Error::Busy(why)),
        Err(Failure::Final(why)) => Err(Error::Other(why)),
        Err(Failure::Access(error)) => Err(error.into()),
    }
}

/// Why the database at `path` can be neither written nor read.
fn unusable(path: &Path, read_only: Option<&str>, error: &rusqlite::Error, other: &Error) -> String {
    let shown = path.display();
    match (access::not_readable(path), read_only) {
        (Some(why), _) => format!("cannot open {shown}: {why}"),
        (None, Some(why)) if !path.exists() => format!("cannot create {shown}: {why}"),
        (None, Some(why)) => format!("cannot open {shown}: {why}; {other}"),
        (None, None) => format!("cannot open {shown}: {error}; {other}"),
    }
}

/// The files of `db`, which has just been opened.
fn files_of(path: &Path, db: &Connection) -> std::result::Result<OpenFiles, String> {
    let why = |error: &dyn std::fmt::Display| format!("cannot be read: {error}");
    let mut moved = 0;
    // A connection opens the log at its first read.
    tables(db).map_err(|error| why(&error))?;
    // After an interrupted checkpoint, of a process that was killed, the next write to the database could be anybody's.
    if index::keep(path).is_ok()
        && index::kept(path).and_then(index::progress).is_some_and(|now| !now.is_whole())
    {
        _ = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }
    let files = OpenFiles::of(path).map_err(|error| why(&error))?;
    db.file_control(Some(MAIN_DB), FileControl::HasMoved(&mut moved)).map_err(|error| why(&error))?;
    if moved == 0 { Ok(files) } else { Err("was replaced while it was opened; try again".into()) }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Access(error) => error.into(),
            Failure::Locked(why) => Self::Busy(why),
            Failure::Final(why) => Self::Other(why),
        }
    }
}

enum Failure {
    /// Another way of opening may still work.
    Access(rusqlite::Error),
    /// Another process has the database locked.
    Locked(String),
    /// No way of opening will work.
    Final(String),
}

fn connect(path: &Path, access: Access, busy: Duration) -> std::result::Result<Connection, Failure> {
    let flags = match access {
        Access::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Access::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::ReadOnly | Access::Immutable => OpenFlags::SQLITE_OPEN_READ_ONLY,
    } | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    if access != Access::Immutable {
        index::check_room(path).map_err(classify)?;
    }
    let uri = if access == Access::Immutable { uri::immutable(path) } else { uri::of(path) };
    let db = Connection::open_with_flags(uri, flags).map_err(classify)?;
    db.busy_timeout(busy).map_err(classify)?;
    // synchronous=FULL: a commit is on the disk before close(2) returns 0. cache_size: KiB of pages, which the system has cached,
    // too; there may be a connection for each read in flight.
    db.execute_batch("PRAGMA synchronous=FULL; PRAGMA cache_size=-512;").map_err(classify)?;
    if let Err(error) = index::keep(path) {
        tracing::debug!("no space reserved for the index of {}: {error}", path.display());
    }
    Ok(db)
}

/// Creates the tables in an empty database and turns the write-ahead log on.
fn prepare(db: &mut Connection) -> std::result::Result<(), Failure> {
    if tables(db).map_err(classify)? == 0 {
        // A database without tables may still belong to another program.
        let mark = |name| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(classify);
        if mark("application_id")? != 0 || mark("user_version")? != 0 {
            recognise(db).map_err(Failure::Final)?;
        }
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(classify)?;
        // Another process may have created them while this one waited for the lock.
        if tables(&transaction).map_err(classify)? == 0 {
            transaction.execute_batch(schema::CREATE).map_err(classify)?;
            transaction.execute_batch(schema::ADD_ATTRIBUTES).map_err(classify)?;
            transaction.pragma_update(None, "application_id", schema::APPLICATION_ID).map_err(classify)?;
            transaction.pragma_update(None, "user_version", schema::VERSION).map_err(classify)?;
        }
        transaction.commit().map_err(classify)?;
    }
    // Only now: the file of another program is left exactly as it was.
    recognise(db).map_err(Failure::Final)?;
    db.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).map_err(classify)
}

fn tables(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
}

fn recognise(db: &Connection) -> std::result::Result<(), String> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let found = pragma("application_id").and_then(|id| Ok((id, pragma("user_version")?)));
    match found {
        Ok((schema::APPLICATION_ID, version)) if version <= schema::VERSION => Ok(()),
        Ok((schema::APPLICATION_ID, version)) => {
            Err(format!("was written by a newer kvfs (format {version}, this one reads {})", schema::VERSION))
        }
        Ok(_) => Err("is a database of another program; name another file".into()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn classify(error: rusqlite::Error) -> Failure {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::NotADatabase) => Failure::Final("is not a database; name another file".into()),
        Some(Code::DatabaseCorrupt) => {
            Failure::Final(format!("is corrupt ({error}); restore it from a copy"))
        }
        Some(Code::DiskFull) => Failure::Final(format!("cannot be set up: {error}; make room on its disk")),
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            Failure::Locked(format!("is locked by another process ({error}); try again"))
        }
        _ => Failure::Access(error),
    }
}
