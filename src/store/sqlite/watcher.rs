//! The feed of changes by other processes: each writer touches the log after its commit, which raises an inotify event here;
//! `PRAGMA data_version` says whether there was a commit, and the `change` table which keys it changed.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use inotify::{Inotify, WatchMask};

use super::open_files::Link;
use super::pool::Pool;
use super::{log_of, schema};
use crate::store::feed::{self, Feed, FeedSender};
use crate::store::{Change, Error, Result};

/// How often the database is polled without an event: inotify reports no writer on another machine or behind some
/// filesystems.
const TICK: Duration = Duration::from_millis(500);

/// Pause after each poll, so that many small commits are read together.
const SETTLE: Duration = Duration::from_millis(1);

/// Both ends of a feed, and the thread behind it.
type Started = (Feed, FeedSender, JoinHandle<()>);

/// Starts the feed: all changes from now on.
pub(super) fn start(pool: &Arc<Pool>) -> Result<Started> {
    start_with(pool, TICK)
}

fn start_with(pool: &Arc<Pool>, tick: Duration) -> Result<Started> {
    let (db, seen) = begin_anew(pool)?;
    let files =
        watch(pool.path()).map_err(|error| tracing::warn!("no inotify on the database: {error}")).ok();
    let (sender, receiver) = feed::channel();
    let kept = sender.clone();
    let pool = Arc::downgrade(pool);
    let thread = std::thread::Builder::new()
        .name("kvfs-watcher".into())
        .spawn(move || run(&pool, db, seen, files, tick, &sender))
        .map_err(|error| Error::Other(format!("cannot start the watcher: {error}")))?;
    Ok((receiver, kept, thread))
}

/// Wakes the watchers of other processes after a commit. The write to the log itself does not: a commit is visible only after
/// its fsync, and nothing is written after that.
pub(super) fn announce(database: &Path) {
    if let Err(error) = crate::sys::touch_path(&log_of(database)) {
        tracing::warn!("the change is told late to other mounts of {}: {error}", database.display());
    }
}

/// `ATTRIB` is [`announce`], `CLOSE_WRITE` the end of a writer that was killed before it.
fn watch(path: &Path) -> std::io::Result<Inotify> {
    let inotify = Inotify::init()?;
    let directory = path.parent().unwrap_or(path);
    let mask =
        WatchMask::ATTRIB | WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::MOVE | WatchMask::DELETE;
    inotify.watches().add(directory, mask)?;
    Ok(inotify)
}

fn run(
    pool: &Weak<Pool>,
    db: Link,
    mut seen: Seen,
    mut files: Option<Inotify>,
    tick: Duration,
    feed: &FeedSender,
) {
    let mut db = Some(db);
    while !feed.is_closed() {
        wait(files.as_mut(), tick);
        let Some(pool) = pool.upgrade().filter(|pool| !pool.is_closing()) else { return };
        let polled = match &db {
            Some(db) => poll(&pool, db, &mut seen),
            None => begin_anew(&pool).map(|(new, as_it_is)| {
                (db, seen) = (Some(new), as_it_is);
                vec![Change::Everything]
            }),
        };
        match polled {
            Ok(changes) => {
                for change in changes {
                    feed.send(change);
                }
                drop(pool);
                std::thread::sleep(SETTLE);
            }
            Err(error) => {
                if db.take().is_some() {
                    tracing::warn!("cannot read what changed in {}: {error}", pool.path().display());
                    feed.send(Change::Paused);
                }
                drop(pool);
                std::thread::sleep(TICK);
            }
        }
    }
}

/// How far the watcher has read.
struct Seen {
    /// `PRAGMA data_version`, which each connection counts for itself.
    version: Option<i64>,
    generation: i64,
    revision: i64,
}

/// A connection to the database as it is now.
fn begin_anew(pool: &Pool) -> Result<(Link, Seen)> {
    let db = pool.connect()?;
    let seen = Seen { version: None, generation: schema::generation(&db)?, revision: schema::revision(&db)? };
    Ok((db, seen))
}

/// Waits until something happened to the files, or for `tick`.
fn wait(files: Option<&mut Inotify>, tick: Duration) {
    let Some(files) = files else { return std::thread::sleep(tick) };
    if crate::sys::wait_readable(files.as_fd(), tick) {
        let mut buffer = [0; 4096];
        // The events carry nothing that the database does not say. Later ones wake the next call.
        while files.read_events(&mut buffer).is_ok_and(|mut events| events.next().is_some()) {}
    }
}

fn poll(pool: &Pool, db: &Link, seen: &mut Seen) -> Result<Vec<Change>> {
    pool.check(db)?;
    let now: i64 = db.pragma_query_value(None, "data_version", |row| row.get(0))?;
    if let Some(missed) = pool.take_missed() {
        (seen.version, seen.revision) = (None, seen.revision.min(missed - 1));
    }
    if seen.version.replace(now) == Some(now) {
        return Ok(Vec::new());
    }
    let generation = std::mem::replace(&mut seen.generation, schema::generation(db)?);
    let (changes, last) = if generation == seen.generation {
        schema::changes_since(db, seen.revision, |revision| pool.is_own(revision))?
    } else {
        (vec![Change::Everything], schema::revision(db)?)
    };
    if changes == [Change::Everything] {
        // Another database has other changes under the same revisions.
        pool.forget_own();
    }
    seen.revision = last;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;
    use crate::store::{Expect, Store, Text};

    const PATIENCE: Duration = Duration::from_mins(1);

    #[test]
    fn a_change_whose_caller_has_given_up_is_fed_although_it_was_skipped_before() {
        let home = tempfile::tempdir().unwrap();
        let pool = Pool::open(&home.path().join("kv.db"), TICK).unwrap();
        let (mut writer, db) = (pool.connect().unwrap(), pool.connect().unwrap());
        let generation = schema::generation(&db).unwrap();
        let mut seen = Seen { version: None, generation, revision: 0 };
        let mut polled = || poll(&pool, &db, &mut seen).unwrap().len();
        for revision in 1..=3 {
            let transaction = writer.transaction().unwrap();
            schema::set(&transaction, &"k".into(), &(*b"1").into(), Expect::Anything, (None, None)).unwrap();
            pool.note_own(revision..=revision);
            transaction.commit().unwrap();
            assert_eq!(polled(), 0);
        }
        pool.disown(&(2..=2));
        assert_eq!(polled(), 1);
        assert_eq!(polled(), 0);
    }

    /// The feed's answers to pairs of commits as close to one another as two processes can make them.
    #[test]
    fn each_of_two_thousand_changes_is_fed_without_the_tick() {
        const PAIRS: usize = 1000;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kv.db");
        let pool = Arc::new(Pool::open(&path, PATIENCE).unwrap());
        let (mut feed, _, _) = start_with(&pool, Duration::MAX).unwrap();
        let (sender, changes) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            while runtime.block_on(feed.recv()).is_some_and(|change| sender.send(change).is_ok()) {}
        });
        std::thread::scope(|scope| {
            let starts = ["a", "b"].map(|key| {
                let (start, started) = std::sync::mpsc::channel();
                let path = &path;
                scope.spawn(move || {
                    let store = SqliteStore::open(path, PATIENCE).unwrap();
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    let key = key.into();
                    for number in started {
                        let text = Text::from(format!("{number}").into_bytes());
                        let set = store.set_key_value(&key, text, Expect::Anything);
                        runtime.block_on(set).unwrap();
                    }
                });
                start
            });
            for pair in 0..PAIRS {
                for start in &starts {
                    start.send(pair).unwrap();
                }
                for _ in 0..2 {
                    assert!(changes.recv_timeout(PATIENCE).is_ok(), "a change of pair {pair} is missing");
                }
            }
        });
    }
}
