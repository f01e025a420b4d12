//! Notices what other processes wrote: inotify says that the log file moved, `PRAGMA data_version` whether a
//! commit was behind it, and the `change` table what it was.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use rusqlite::Connection;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::pool::Pool;
use super::schema;
use crate::store::{Change, Error, Result};

/// File systems without inotify for other machines' or containers' writes are looked at this often.
const FALLBACK: Duration = Duration::from_millis(500);

/// How long writes to the log are let settle before they are looked at.
const SETTLE: Duration = Duration::from_millis(1);

/// Starts the feed: all changes from now on.
pub(super) fn start(pool: &Arc<Pool>) -> Result<UnboundedReceiver<Change>> {
    let db = pool.connect()?;
    let seen = schema::revision(&db)?;
    let files =
        watch(pool.path()).map_err(|error| tracing::warn!("no inotify on the database: {error}")).ok();
    let (sender, receiver) = unbounded_channel();
    let pool = Arc::downgrade(pool);
    std::thread::Builder::new()
        .name("kvfs-watcher".into())
        .spawn(move || run(&pool, db, seen, files, &sender))
        .map_err(|error| Error::Other(format!("cannot start the watcher: {error}")))?;
    Ok(receiver)
}

fn watch(path: &Path) -> std::io::Result<Inotify> {
    let inotify = Inotify::init()?;
    let directory = path.parent().unwrap_or(path);
    inotify.watches().add(directory, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
    Ok(inotify)
}

fn run(
    pool: &Weak<Pool>,
    mut db: Connection,
    mut seen: i64,
    mut files: Option<Inotify>,
    feed: &UnboundedSender<Change>,
) {
    let mut version = None;
    let mut patience = FALLBACK;
    while !feed.is_closed() {
        let written = wait(files.as_mut(), patience);
        let Some(pool) = pool.upgrade() else { return };
        let before = version;
        match news(&pool, &db, &mut version, &mut seen) {
            Ok(changes) => {
                for change in changes {
                    _ = feed.send(change);
                }
                // The log is written before the disk is waited for, and the commit is seen after that.
                let nothing_yet = version == before;
                patience = match (nothing_yet, written) {
                    (true, true) => SETTLE,
                    (true, false) => FALLBACK.min(patience * 2),
                    (false, _) => FALLBACK,
                };
            }
            Err(error) => {
                tracing::warn!("cannot read what changed in {}: {error}", pool.path().display());
                std::thread::sleep(FALLBACK);
                // Versions of different connections cannot be compared.
                version = None;
                if let Ok(new) = pool.connect() {
                    db = new;
                }
                _ = feed.send(Change::Everything);
            }
        }
    }
}

/// Waits until the log is written to (true) or `patience` ends.
fn wait(files: Option<&mut Inotify>, patience: Duration) -> bool {
    let Some(files) = files else {
        std::thread::sleep(FALLBACK);
        return false;
    };
    let written = crate::sys::wait_readable(files.as_fd(), patience);
    if written {
        // Every commit writes to the log several times, and most are this process's own.
        std::thread::sleep(SETTLE);
        let mut buffer = [0; 4096];
        // Only that something happened counts; what it was, the database tells.
        while files.read_events(&mut buffer).is_ok_and(|mut events| events.next().is_some()) {}
    }
    written
}

fn news(pool: &Pool, db: &Connection, version: &mut Option<i64>, seen: &mut i64) -> Result<Vec<Change>> {
    let now: i64 = db.pragma_query_value(None, "data_version", |row| row.get(0))?;
    if let Some(missed) = pool.take_missed() {
        (*version, *seen) = (None, (*seen).min(missed - 1));
    }
    if version.replace(now) == Some(now) {
        return Ok(Vec::new());
    }
    let (changes, last) = schema::changes_since(db, *seen, |revision| pool.is_own(revision))?;
    *seen = last;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Expect;

    #[test]
    fn a_change_whose_caller_has_given_up_is_told_although_it_was_passed_over_before() {
        let home = tempfile::tempdir().unwrap();
        let pool = Pool::open(&home.path().join("kv.db"), FALLBACK).unwrap();
        let (mut writer, db) = (pool.connect().unwrap(), pool.connect().unwrap());
        let (mut version, mut seen) = (None, 0);
        let mut told = || news(&pool, &db, &mut version, &mut seen).unwrap().len();
        for revision in 1..=3 {
            let transaction = writer.transaction().unwrap();
            schema::set(&transaction, &"k".into(), &(*b"1").into(), Expect::Anything).unwrap();
            pool.note_own(revision..=revision);
            transaction.commit().unwrap();
            assert_eq!(told(), 0);
        }
        pool.disown(&(2..=2));
        assert_eq!(told(), 1);
        assert_eq!(told(), 0);
    }
}
