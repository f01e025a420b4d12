//! Several stores, in one process and in several, on one file.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Barrier;

use kvfs::store::{Change, Expect, Feed};
use tempfile::TempDir;

use super::{close, open, raw};
use crate::store::process;
use crate::suite::block_on;
use crate::suite::concurrency::increment;

/// Waits until `change` is told.
async fn told(feed: &mut Feed, change: Change) {
    while feed.recv().await.unwrap() != change {}
}

#[test]
fn a_change_made_by_one_is_seen_by_the_other_at_once() {
    let home = TempDir::new().unwrap();
    let (one, other) = (open(&home.path().join("kv.db")), open(&home.path().join("kv.db")));
    block_on(async {
        for number in 0..20 {
            let (at, elsewhere) = if number % 2 == 0 { (&one, &other) } else { (&other, &one) };
            let meta = at.set("k", number.to_string()).await;
            assert_eq!(elsewhere.get("k").await.unwrap().meta, meta);
            assert_eq!(elsewhere.text("k").await, number.to_string().as_bytes());
            at.rename("k", "moved").await.unwrap();
            assert_eq!(elsewhere.keys().await, ["moved"]);
            at.delete("moved").await.unwrap();
            assert!(elsewhere.is_missing("moved").await);
        }
    });
}

#[test]
fn a_change_made_by_one_is_told_to_the_followers_of_the_other() {
    let home = TempDir::new().unwrap();
    let (one, other) = (open(&home.path().join("kv.db")), open(&home.path().join("kv.db")));
    let mut feed = other.0.changes().unwrap();
    block_on(async {
        for number in 0..3 {
            let meta = one.set("k", number.to_string()).await;
            told(&mut feed, Change::Set("k".into(), meta)).await;
        }
        let meta = one.rename("k", "moved").await.unwrap();
        told(&mut feed, Change::Set("moved".into(), meta)).await;
        let revision = one.delete("moved").await.unwrap();
        told(&mut feed, Change::Deleted("moved".into(), revision)).await;
    });
}

#[test]
fn revisions_and_expectations_hold_between_stores() {
    let home = TempDir::new().unwrap();
    let (one, other) = (open(&home.path().join("kv.db")), open(&home.path().join("kv.db")));
    block_on(async {
        let first = one.set("k", "1").await;
        let second = other.try_set("k", "2", Expect::At(first.revision)).await.unwrap();
        assert!(second.revision > first.revision && second.modified > first.modified);
        one.try_set("k", "3", Expect::At(first.revision)).await.unwrap_err();
        one.try_set("k", "3", Expect::Absent).await.unwrap_err();
        assert_eq!(one.text("k").await, b"2");
    });
}

#[test]
fn many_that_open_a_new_file_at_once_share_it() {
    for _ in 0..10 {
        let home = TempDir::new().unwrap();
        let path = home.path().join("new/kv.db");
        let start = Barrier::new(8);
        let stores: Vec<_> = std::thread::scope(|scope| {
            let opening = |_| {
                scope.spawn(|| {
                    start.wait();
                    super::try_open(&path).map_err(|error| assert_eq!(error, ""))
                })
            };
            let threads: Vec<_> = (0..8).map(opening).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
        });
        drop(stores);
        let at = open(&path);
        block_on(async { assert_eq!(at.keys().await, [""; 0]) });
    }
}

#[test]
fn another_process_writes_the_same_file() {
    const TEST: &str = "sqlite::shared::another_process_writes_the_same_file";
    if let Some(directory) = process::given() {
        let at = open(&directory.join("kv.db"));
        return block_on(async {
            for number in 0..20 {
                let meta = at.set(&format!("theirs-{number}"), number.to_string()).await;
                writeln!(std::io::stdout(), "\nset {number} {}", meta.revision.0).unwrap();
                increment(&at, "counter").await;
            }
        });
    }
    let home = TempDir::new().unwrap();
    let at = open(&home.path().join("kv.db"));
    let mut feed = at.0.changes().unwrap();
    block_on(async { at.set("counter", "0").await });
    let mut child = process::again(TEST, home.path()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut last = 0;
    for line in lines.filter(|line| line.starts_with("set ")) {
        let words: Vec<u64> = line.split(' ').skip(1).map(|word| word.parse().unwrap()).collect();
        block_on(async {
            let entry = at.get(&format!("theirs-{}", words[0])).await.unwrap();
            assert_eq!(entry.meta.revision.0, words[1]);
            assert_eq!(&entry.text[..], words[0].to_string().as_bytes());
            increment(&at, "counter").await;
        });
        last = words[0];
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(last, 19);
    block_on(async {
        assert_eq!(at.text("counter").await, b"40");
        let meta = at.get("theirs-19").await.unwrap().meta;
        told(&mut feed, Change::Set("theirs-19".into(), meta)).await;
    });
}

#[test]
fn a_follower_far_behind_is_told_to_look_at_everything() {
    let home = TempDir::new().unwrap();
    let at = open(&home.path().join("kv.db"));
    block_on(async {
        let first = at.set("k", "1").await;
        let mut feed = at.0.changes().unwrap();
        // All at once, so that no follower can keep up.
        raw(&home.path().join("kv.db"))
            .execute_batch(
                "BEGIN IMMEDIATE;
                 DELETE FROM change;
                 INSERT INTO change (revision, key) VALUES (500, 'k'), (501, 'k');
                 COMMIT;",
            )
            .unwrap();
        assert_eq!(feed.recv().await, Some(Change::Everything));
        let meta = open(&home.path().join("kv.db")).set("k", "2").await;
        assert_eq!(meta.revision.0, 502);
        assert_eq!(meta.id, first.id);
        assert_eq!(feed.recv().await, Some(Change::Set("k".into(), meta)));
    });
}

#[test]
fn the_memory_of_changes_is_bounded_and_revisions_go_on() {
    let home = TempDir::new().unwrap();
    let at = open(&home.path().join("kv.db"));
    let db = raw(&home.path().join("kv.db"));
    db.execute_batch(
        "WITH RECURSIVE number(n) AS (SELECT 750_000 UNION ALL SELECT n + 1 FROM number WHERE n < 999_995)
         INSERT INTO change SELECT n, 'k' FROM number;",
    )
    .unwrap();
    block_on(async {
        let mut revisions = Vec::new();
        for _ in 0..10 {
            revisions.push(at.set("k", "1").await.revision.0);
        }
        assert_eq!(revisions, (999_996..=1_000_005).collect::<Vec<_>>());
    });
    let (rows, newest): (i64, i64) = db
        .query_row("SELECT count(*), max(revision) FROM change", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert!((10..150_000).contains(&rows), "{rows} changes are remembered");
    assert_eq!(newest, 1_000_005);
}

#[test]
fn a_feed_does_not_keep_the_database_open() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    drop(at.0.changes().unwrap());
    let feed = at.0.changes().unwrap();
    block_on(at.set("k", "2"));
    assert!(path.with_extension("db-wal").exists());
    close(at, &path);
    drop(feed);
}
