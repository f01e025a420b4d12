//! The embedded store: the suite, and what only it promises.

mod commit;
mod damaged;
mod foreign;
mod full;
mod index;
mod moved;
mod overwritten;
mod readonly;
mod room;
mod rows;
mod shared;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kvfs::store::SqliteStore;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::suite::{Bench, Fresh, PATIENCE, block_on};

fn fresh() -> Fresh {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    Fresh { store: open(&path).0, elsewhere: open(&path).0, home: Some(Box::new(home)) }
}

conformance!(fresh, attributes);

fn try_open(path: &Path) -> Result<SqliteStore, String> {
    SqliteStore::open(path, PATIENCE)
}

#[track_caller]
fn open(path: &Path) -> Bench {
    Bench(Arc::new(try_open(path).unwrap()))
}

/// Ends a store; its threads close the file a little later, and the last one takes the log with it.
#[track_caller]
fn close(at: Bench, path: &Path) {
    drop(at);
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let start = Instant::now();
    while Path::new(&log).exists() {
        assert!(start.elapsed() < PATIENCE, "{} is still open", path.display());
        std::thread::yield_now();
    }
}

/// A database with the one key `k`, closed.
#[track_caller]
fn create(path: &Path, text: &[u8]) {
    let at = open(path);
    block_on(at.set("k", text));
    close(at, path);
}

/// The database as another program sees it.
#[track_caller]
fn raw(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db
}

/// Files beside one another in a directory, with their content.
fn files(directory: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn it_keeps_ten_thousand_bytes_and_tells_of_changes() {
    let fresh = fresh();
    assert_eq!(fresh.store.limits().value, 10_000);
    assert!(fresh.store.changes().is_some());
    assert!(fresh.store.name().starts_with("sqlite:/"));
}
