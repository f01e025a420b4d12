//! The files beneath the connections. A path may come to name other files while these are open, or none: what is
//! committed to the old ones is lost then, and the log of one database destroys another that it comes to lie beside.
//!
//! One connection, the anchor, is open for as long as any other: so log and index stay the same files until somebody
//! else changes that.

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
use super::ruin::Ruin;
use super::witness::{Overwritten, Witness};
use crate::store::{Error, Result};
use crate::sys;

/// How long a log that is about to be lost may take to be emptied into its database.
const RESCUE: Duration = Duration::from_millis(500);

/// Refuses a database that is a mount point of its own, or has several names: by another way to it a process would find
/// another log beside it, and both would write to one file.
pub(super) fn refuse_two_names(path: &Path) -> std::result::Result<(), String> {
    let Ok(place) = fs::canonicalize(path) else { return Ok(()) };
    let (shown, directory) = (path.display(), place.parent().unwrap_or(&place));
    // Without /proc it cannot be told.
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
    /// Nothing where a connection is made for each read.
    floor: Option<Arc<Floor>>,
}

impl Link {
    pub(super) fn new(db: Connection, floor: Option<Arc<Floor>>) -> Self {
        Self { db, floor }
    }

    pub(super) fn floor(&self) -> Option<Arc<Floor>> {
        self.floor.clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.floor.as_ref().is_some_and(|floor| floor.spoilt.load(Ordering::Relaxed)) {
            keep_log(&self.db);
        }
    }
}

/// Keeps the last one that closes a database from emptying the log into what is left of it.
fn keep_log(db: &Connection) {
    if let Err(error) = db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::debug!("the log is emptied at the close: {error}");
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
pub(super) struct Floor {
    /// Where the database is looked for: it may be a link to where it is.
    path: PathBuf,
    database: Id,
    /// The size that the database has had, which never shrinks.
    size: AtomicU64,
    /// What is in the log is not of what is in the database.
    spoilt: AtomicBool,
    /// Log and index, where the filesystem allows for them.
    others: Vec<(PathBuf, Id)>,
    /// Where inotify works, of a database that can be written.
    witness: Option<Witness>,
    /// The database, unless it cannot be written. Closed after all connections to it, for that ends their locks.
    file: Option<File>,
}

/// What has become of the files.
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
    /// Somebody else than SQLite has written to it.
    Overwritten(Overwritten),
    /// The log or its index is another file, or none.
    Bare,
}

impl Floor {
    /// What is beneath a connection that was just made to `path` and has read.
    pub(super) fn beneath(path: &Path) -> io::Result<Self> {
        let place = fs::canonicalize(path)?;
        let database = fs::metadata(&place)?;
        let others = ["-wal", "-shm"].map(|suffix| beside(&place, suffix));
        let others = others.into_iter().filter_map(|path| id_of(&path).map(|id| (path, id))).collect();
        let size = AtomicU64::new(database.len());
        let file = OpenOptions::new().read(true).write(true).open(&place).ok();
        let witness = |_: &File| {
            let unseen = |error| {
                tracing::warn!("whether {} is written over cannot be told: {error}", place.display());
            };
            Witness::start(&place).map_err(unseen).ok()
        };
        // What nothing is written to is mixed with nothing, and its index cannot be kept.
        let witness = file.as_ref().and_then(witness);
        let (path, database, spoilt) = (path.to_owned(), id(&database), AtomicBool::new(false));
        Ok(Self { path, database, size, spoilt, others, witness, file })
    }

    /// Whether the path still leads to these files, and all of the database is there, as `db` knows it.
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
                Some(_) => return lost(Kind::Bare, path, "was replaced by another file"),
                None => return lost(Kind::Bare, path, "was removed or moved away"),
            }
        }
        // VACUUM shortens a file, too; what is there then is looked at before it is used again. A witness knows better.
        if self.witness.is_none()
            && now.len() < self.size.fetch_max(now.len(), Ordering::Relaxed)
            && !self.gave_room_back(db)
        {
            return lost(Kind::Cut, &self.path, &format!("was cut to {} bytes", now.len()));
        }
        Ok(())
    }

    /// Whether nobody else than SQLite has written to the database.
    fn untouched(&self) -> std::result::Result<(), Overwritten> {
        let Some(witness) = &self.witness else { return Ok(()) };
        let [ours, theirs] = [
            |(path, id): &(PathBuf, Id)| id_of(path) == Some(*id),
            |(path, id): &(PathBuf, Id)| id_of(path).is_some_and(|now| now != *id),
        ];
        // By another index of the same log others may have emptied it, of which this one does not tell.
        if matches!(&self.others[..], [log, index] if ours(log) && theirs(index)) {
            return Ok(());
        }
        witness.look()
    }

    /// As a check, for one that is about to write: of writes only.
    pub(super) fn check_untouched(&self) -> Result<()> {
        let why =
            || format!("{} was written over by another program while it was in use", self.path.display());
        self.untouched().map_err(|_| Error::Displaced(why()))
    }

    /// Makes the database `size` bytes long, if it is shorter. Of one that somebody else has begun to write nothing is lost.
    pub(super) fn allocate(&self, size: u64) -> io::Result<()> {
        self.file.as_ref().map_or(Err(io::ErrorKind::Unsupported.into()), |file| sys::allocate(file, size))
    }

    /// Whether the file is shorter for what it never had: room for a change that was not committed.
    fn gave_room_back(&self, db: &Connection) -> bool {
        let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
        let wanted =
            pragma("page_count").and_then(|pages| Ok(u64::from(pages) * u64::from(pragma("page_size")?)));
        // After the question: the database may have grown meanwhile.
        let Ok(now) = fs::metadata(&self.path) else { return false };
        let whole = wanted.is_ok_and(|wanted| wanted > 0 && wanted <= now.len());
        if whole {
            self.size.store(now.len(), Ordering::Relaxed);
        }
        whole
    }

    /// Brings what is in the log into the database that it belongs to, whatever that is called now, and takes the log
    /// away from beside another one.
    fn leave(&self, anchor: &Connection, kind: &Kind) {
        let theirs = |(path, id): &(PathBuf, Id)| id_of(path).is_some_and(|now| now != *id);
        if matches!(kind, Kind::Cut | Kind::Overwritten(_)) {
            self.spoilt.store(true, Ordering::Relaxed);
            return keep_log(anchor);
        }
        if self.others.iter().any(theirs) {
            return;
        }
        let emptied = anchor.busy_timeout(RESCUE).and_then(|()| {
            anchor.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        });
        if emptied != Ok(0) {
            tracing::error!("the log of {} could not be emptied: {emptied:?}", self.path.display());
        }
        if matches!(kind, Kind::Moved) {
            for (path, _) in self.others.iter().filter(|(path, id)| id_of(path) == Some(*id)) {
                _ = fs::remove_file(path);
            }
        }
    }
}

/// Where the connections of a pool stand.
pub(super) struct Ground(Mutex<Standing>);

enum Standing {
    /// With the anchor that keeps log and index there.
    On(Connection, Arc<Floor>),
    /// Nowhere, and why; what was made to the old files may still be open.
    Lost(Weak<Floor>, String, Option<Ruin>),
    /// Nowhere yet.
    New,
    /// Nowhere any more.
    Closed,
}

impl Ground {
    pub(super) fn new(anchor: Option<(Floor, Connection)>) -> Self {
        let standing = anchor.map_or(Standing::New, |(floor, db)| Standing::On(db, Arc::new(floor)));
        Self(Mutex::new(standing))
    }

    /// The files that the path names, as long as they are those that this process has open. Where there are none `make`
    /// makes an anchor, told whether there was one before: once nothing is open to the old files, for as long as a file
    /// is open the process has but one index of its log.
    pub(super) fn floor(&self, make: impl FnOnce(bool) -> Result<(Floor, Connection)>) -> Result<Arc<Floor>> {
        let standing = &mut *self.0.lock();
        let again = match standing {
            Standing::On(anchor, floor) => match floor.look(anchor) {
                Ok(()) => return Ok(floor.clone()),
                Err(loss) => return Err(lose(standing, &loss)),
            },
            Standing::Closed => return Err(Error::Other("the store is closed".into())),
            Standing::New => false,
            Standing::Lost(old, why, _) if old.strong_count() > 0 => {
                return Err(Error::Displaced(why.clone()));
            }
            Standing::Lost(_, why, ruin) => {
                ruin.as_ref()
                    .map_or(Ok(()), Ruin::is_over)
                    .map_err(|not_yet| Error::Displaced(format!("{why}; {not_yet}")))?;
                true
            }
        };
        let (floor, db) = make(again).map_err(|error| match standing {
            // Nothing is there.
            Standing::Lost(_, why, _) if error == Error::NotFound => Error::Displaced(why.clone()),
            Standing::Lost(_, why, _) => Error::Displaced(format!("{why}, and {error}")),
            _ => error,
        })?;
        if again {
            tracing::warn!("{} is in use again, as it is now", floor.path.display());
        }
        let floor = Arc::new(floor);
        *standing = Standing::On(db, floor.clone());
        Ok(floor)
    }

    /// Whether the path still leads to the files of `link`. If not, who has a connection to them shall let go of it.
    pub(super) fn check(&self, link: &Link) -> Result<()> {
        let Some(floor) = &link.floor else { return Ok(()) };
        if !self.is_current(link) {
            return Err(Error::Displaced(match &*self.0.lock() {
                Standing::Lost(_, why, _) => why.clone(),
                _ => format!("{} was replaced while it was in use", floor.path.display()),
            }));
        }
        let Err(loss) = floor.look(link) else { return Ok(()) };
        let standing = &mut *self.0.lock();
        Err(match standing {
            Standing::On(_, now) if Arc::ptr_eq(now, floor) => lose(standing, &loss),
            _ => Error::Displaced(loss.why),
        })
    }

    /// Whether `link` was made to the files that are in use.
    pub(super) fn is_current(&self, link: &Link) -> bool {
        let Some(floor) = &link.floor else { return false };
        matches!(&*self.0.lock(), Standing::On(_, now) if Arc::ptr_eq(now, floor))
    }

    /// Lets go of the anchor, for ever. Whether the files are those that the path names.
    pub(super) fn close(&self) -> bool {
        match std::mem::replace(&mut *self.0.lock(), Standing::Closed) {
            Standing::On(db, floor) => match floor.look(&db) {
                Ok(()) => true,
                Err(loss) => {
                    lose(&mut Standing::On(db, floor), &loss);
                    false
                }
            },
            Standing::Lost(..) | Standing::New | Standing::Closed => false,
        }
    }
}

fn lose(standing: &mut Standing, loss: &Loss) -> Error {
    let advice = match loss.kind {
        Kind::Moved => "put it back, or a backup of it",
        Kind::Bare => "try again",
        Kind::Cut => "if it is not whole, restore it from a backup",
        Kind::Overwritten(_) => "its log is kept as -wal.old",
    };
    let why = format!("{}; {advice}", loss.why);
    if let Standing::On(anchor, floor) = standing {
        tracing::error!("{why}");
        floor.leave(anchor, &loss.kind);
        let ruin = match &loss.kind {
            Kind::Overwritten(overwritten) => {
                Some(Ruin::new(&floor.path, floor.others.first().cloned(), overwritten.clone()))
            }
            Kind::Moved | Kind::Cut | Kind::Bare => None,
        };
        *standing = Standing::Lost(Arc::downgrade(floor), why.clone(), ruin);
    }
    Error::Displaced(why)
}
