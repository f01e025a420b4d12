//! The durability of acknowledged sets, and their cost.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use kvfs::store::{Deadline, Error, Location};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{close, fresh, open, raw};
use crate::common::PATIENCE;
use crate::store::process;
use crate::suite::{Bench, block_on};

/// Commits in the write-ahead log of the database at `path`: its frames that name the size of the database.
fn commits(path: &Path) -> usize {
    let log = std::fs::read(path.with_extension("db-wal")).unwrap();
    let page = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
    let salt = &log[16..24];
    log[32..].chunks(24 + page).filter(|frame| &frame[8..16] == salt && frame[4..8] != [0; 4]).count()
}

/// A connection that keeps everybody else from writing.
fn lock(path: &Path) -> Connection {
    let db = raw(path);
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}

#[test]
fn sets_that_wait_at_once_share_a_transaction() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    block_on(async {
        at.set("first", "1").await;
        let before = commits(&path);
        let lock = lock(&path);
        let mut sets: Vec<_> = (0..16)
            .map(|number| {
                Box::pin({
                    let at = at.clone();
                    async move { at.set(&number.to_string(), "1").await }
                })
            })
            .collect();
        for set in &mut sets {
            assert!(is_pending(set.as_mut()));
        }
        drop(lock);
        for set in sets {
            set.await;
        }
        // The writer had taken what was queued when it came to the lock; all others are one more transaction.
        let transactions = commits(&path) - before;
        assert!((1..=2).contains(&transactions), "{transactions} transactions for 16 sets");
        assert_eq!(at.list().await.len(), 17);
    });
}

pub(super) fn is_pending<F: Future>(future: Pin<&mut F>) -> bool {
    matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

#[test]
fn a_refused_set_does_not_spoil_the_others_of_its_transaction() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    block_on(async {
        at.set("there", "1").await;
        let lock = lock(&path);
        let mut good = Box::pin(at.set("good", "1"));
        let mut refused = Box::pin(at.try_set("there", "2", kvfs::store::Expect::Absent));
        let mut missing = Box::pin(at.delete("missing"));
        let mut last = Box::pin(at.set("last", "1"));
        assert!(is_pending(good.as_mut()) && is_pending(refused.as_mut()));
        assert!(is_pending(missing.as_mut()) && is_pending(last.as_mut()));
        drop(lock);
        good.await;
        assert_eq!(refused.await, Err(Error::Exists));
        assert_eq!(missing.await, Err(Error::NotFound));
        last.await;
        assert_eq!(at.keys().await, ["good", "last", "there"]);
        assert_eq!(at.text("there").await, b"1");
    });
}

#[test]
fn a_set_whose_caller_gave_up_before_its_turn_is_not_carried_out() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    block_on(async {
        at.set("kept", "1").await;
        let lock = lock(&path);
        let mut set = Box::pin(at.set("given up", "1"));
        let mut delete = Box::pin(at.delete("kept"));
        let mut rename = Box::pin(at.rename("kept", "moved"));
        assert!(is_pending(set.as_mut()) && is_pending(delete.as_mut()) && is_pending(rename.as_mut()));
        drop((set, delete, rename));
        drop(lock);
        at.set("after", "1").await;
        assert_eq!(at.keys().await, ["after", "kept"]);
    });
}

#[test]
fn readers_do_not_wait_for_a_writer() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    block_on(async {
        at.set("k", "1").await;
        let lock = lock(&path);
        lock.execute("DELETE FROM entry", []).unwrap();
        assert_eq!(at.text("k").await, b"1");
        assert_eq!(at.keys().await, ["k"]);
        drop(lock);
    });
}

#[test]
fn each_set_that_waits_for_a_lock_is_busy_within_its_own_deadline() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let deadline = Duration::from_secs(6);
    let at = Bench(kvfs::store::open(&Location::Sqlite(path.clone()), deadline).unwrap().0);
    let anything = kvfs::store::Expect::Anything;
    block_on(async {
        let lock = lock(&path);
        let mut sets = JoinSet::new();
        for number in 0..4 {
            let at = at.clone();
            sets.spawn(async move {
                let start = Instant::now();
                (at.try_set(&number.to_string(), "1", anything).await, start.elapsed())
            });
            // All but the first queue while the first waits for the lock.
            tokio::time::sleep(deadline / 10).await;
        }
        for (result, took) in sets.join_all().await {
            assert!(matches!(result, Err(Error::Busy(_))), "{result:?} after {took:?}");
            assert!(took >= deadline / 2, "{took:?}");
        }
        drop(lock);
        // Once a second one is let through to try again.
        while at.try_set("k", "1", anything).await.is_err() {
            tokio::time::sleep(deadline / 100).await;
        }
        assert_eq!(at.keys().await, ["k"]);
    });
}

#[test]
fn a_change_that_does_not_get_its_turn_in_time_is_taken_back() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let store = std::sync::Arc::new(kvfs::store::SqliteStore::open(&path, PATIENCE).unwrap());
    let at = Bench(store);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let anything = kvfs::store::Expect::Anything;
    let lock = lock(&path);
    let set = |key: &'static str| {
        let at = at.clone();
        async move { at.try_set(key, "1", anything).await }
    };
    let patient = runtime.spawn(set("patient"));
    let hasty = runtime.spawn(Deadline::after(Duration::from_millis(100)).scope(set("hasty")));
    // The first one has the connection, and waits for the lock.
    assert!(matches!(runtime.block_on(hasty).unwrap(), Err(Error::Busy(_))));
    drop(lock);
    runtime.block_on(patient).unwrap().unwrap();
    assert_eq!(runtime.block_on(at.keys()), ["patient"]);
}

#[test]
fn a_lock_held_for_too_long_is_busy_and_nothing_changes() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let store = kvfs::store::SqliteStore::open(&path, std::time::Duration::from_millis(40)).unwrap();
    let at = Bench(std::sync::Arc::new(store));
    block_on(async {
        at.set("k", "1").await;
        let before = at.everything().await;
        let lock = lock(&path);
        let anything = kvfs::store::Expect::Anything;
        assert!(matches!(at.try_set("k", "2", anything).await, Err(Error::Busy(_))));
        assert!(matches!(at.delete("k").await, Err(Error::Busy(_))));
        assert!(matches!(at.rename("k", "moved").await, Err(Error::Busy(_))));
        drop(lock);
        assert_eq!(at.everything().await, before);
        at.set("k", "2").await;
        assert_eq!(at.text("k").await, b"2");
    });
}

#[test]
fn the_journal_is_a_write_ahead_log() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    block_on(async { at.set("k", "1").await });
    let mode: String = raw(&path).query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

/// With `synchronous=NORMAL` the log would be synced at checkpoints only, which 50 small sets do not reach.
#[test]
fn each_set_is_synced_before_it_is_answered() {
    const TEST: &str = "sqlite::commit::each_set_is_synced_before_it_is_answered";
    if let Some(directory) = process::given() {
        let at = open(&directory.join("kv.db"));
        return block_on(async {
            for number in 0..50 {
                at.set("k", number.to_string()).await;
            }
        });
    }
    let home = TempDir::new().unwrap();
    let trace = home.path().join("trace");
    let strace = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", trace.to_str().unwrap()];
    if !std::process::Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
        .is_ok_and(|out| out.status.success())
    {
        eprintln!("skipped: strace cannot run here");
        return;
    }
    process::passed(&process::wrapped(&strace, TEST, home.path()).output().unwrap());
    let trace = std::fs::read_to_string(&trace).unwrap();
    let syncs = trace.lines().filter(|line| line.contains("kv.db-wal>")).count();
    assert!(syncs >= 50, "{syncs} syncs for 50 sets:\n{trace}");
}

#[test]
fn a_store_opened_again_has_everything() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    let before = block_on(async {
        for number in 0..30 {
            at.set(&format!("key {number}"), format!("[{number}]")).await;
        }
        at.delete("key 3").await.unwrap();
        at.rename("key 4", "key 5").await.unwrap();
        at.set("\0\n", b"\xff\0").await;
        at.everything().await
    });
    close(at, &path);
    let at = open(&path);
    block_on(async {
        assert_eq!(at.everything().await, before);
        let newest = before.iter().map(|(_, entry)| entry.meta.revision).max();
        assert!(Some(at.set("k", "1").await.revision) > newest);
    });
}

#[test]
fn a_revision_is_not_given_out_twice_after_its_key_is_gone() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let deleted = block_on(async {
        let at = open(&path);
        at.set("k", "1").await;
        at.delete("k").await.unwrap()
    });
    assert!(block_on(async { open(&path).set("k", "1").await }).revision > deleted);
}

#[test]
fn modified_grows_even_when_the_clock_was_set_back() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    block_on(async {
        let first = at.set("k", "1").await;
        raw(&path).execute("UPDATE entry SET modified = modified + 1000 * 3600 * 1000000000", []).unwrap();
        let mut last = at.get("k").await.unwrap().meta;
        assert!(last.modified > first.modified);
        for _ in 0..3 {
            let meta = at.set("k", "2").await;
            assert!(meta.modified > last.modified);
            assert_eq!(meta.created, first.created);
            assert_eq!(at.get("k").await.unwrap().meta, meta);
            last = meta;
        }
        assert!(at.rename("k", "moved").await.unwrap().modified > last.modified);
    });
}

#[test]
fn a_listing_reads_no_values() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    block_on(async {
        let meta = at.set("k", "[1, 2]").await;
        raw(&path).execute_batch("DROP TABLE value").unwrap();
        assert_eq!(at.list().await, [("k".to_owned(), meta)]);
        assert!(at.get("k").await.is_err());
    });
}

#[test]
fn people_can_read_keys_and_values_with_a_shell() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    block_on(async { open(&path).set("db", r#"{"host":"db1"}"#).await });
    let row = raw(&path)
        .query_row("SELECT CAST(value AS TEXT), created FROM kv WHERE key = 'db'", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
        .unwrap();
    assert_eq!(row.0, r#"{"host":"db1"}"#);
    assert!(row.1.starts_with("20"), "{}", row.1);
}

#[test]
fn a_thousand_readers_at_once_are_all_answered() {
    const TEST: &str = "sqlite::commit::a_thousand_readers_at_once_are_all_answered";
    if process::given().is_none() {
        let home = TempDir::new().unwrap();
        // The number of open files that systems allow unless told otherwise.
        let limited = ["sh", "-c", "ulimit -n 1024 && exec \"$@\"", "sh"];
        return process::passed(&process::wrapped(&limited, TEST, home.path()).output().unwrap());
    }
    crate::suite::run(fresh(), |at: Bench| async move {
        at.set("k", "1").await;
        let mut readers = JoinSet::new();
        for _ in 0..1_000 {
            let at = at.clone();
            readers.spawn(async move { at.get("k").await.map(|entry| entry.text.to_vec()) });
        }
        for answer in readers.join_all().await {
            assert_eq!(answer, Ok(b"1".to_vec()));
        }
    });
}
