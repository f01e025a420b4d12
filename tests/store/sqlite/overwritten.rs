//! A database that a program writes over while it is open: `cp backup.db kv.db`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kvfs::store::{Change, Error, Expect};
use tempfile::TempDir;

use super::{close, open, raw};
use crate::suite::{Bench, PATIENCE, block_on};

/// Ways to write `$1` over `$2`.
const WAYS: [&str; 5] = [
    "cp $1 $2",
    "cp --preserve=all $1 $2",
    "cat $1 > $2",
    "dd if=$1 of=$2 conv=notrunc bs=4k status=none",
    "rsync --inplace --ignore-times $1 $2",
];

fn run(way: &str, from: &Path, to: &Path) {
    let out = Command::new("sh").args(["-c", way, "sh"]).args([from, to]).output().unwrap();
    assert!(out.status.success(), "{way}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The value in a backup, and the way to make it of the database at the path while that is in use.
type Backup = (&'static str, fn(&Path, &Path));

const BACKUPS: [Backup; 3] = [
    ("of the same database", |path, backup| {
        raw(path).execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).map(drop).unwrap();
    }),
    ("of the same file", |path, backup| {
        let (busy, _, _): (i64, i64, i64) = raw(path)
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!(busy, 0);
        run("cp --preserve=all $1 $2", path, backup);
    }),
    ("of another database", |_, backup| {
        let at = open(backup);
        block_on(async {
            for number in 0..400 {
                at.set(&format!("other {number}"), number.to_string().repeat(1500)).await;
            }
            at.set("k", "\"old\"").await;
        });
        close(at, backup);
    }),
];

/// A database in a directory of its own, and a backup of it that is older by twenty sets of `k`, which are in the log.
fn home(make: fn(&Path, &Path)) -> (TempDir, PathBuf, PathBuf, Bench) {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let backup = home.path().join("backup.db");
    let at = open(&path);
    block_on(async {
        for number in 0..100 {
            at.set(&format!("number {number}"), number.to_string().repeat(1000)).await;
        }
        at.set("k", "\"old\"").await;
    });
    make(&path, &backup);
    block_on(async {
        for number in 0..20 {
            at.set("k", format!("\"new {number}\"")).await;
        }
        at.set("number 3", "3").await;
        at.set("later", "1").await;
    });
    (home, path, backup, at)
}

/// All keys and values.
fn content(at: &Bench) -> Vec<(String, Vec<u8>)> {
    block_on(async {
        let mut all = Vec::new();
        for (key, _) in at.list().await {
            all.push((key.as_str().to_owned(), at.text(key.as_str()).await));
        }
        all
    })
}

/// The values of a database that nobody has open.
fn content_of(path: &Path) -> Vec<(String, Vec<u8>)> {
    let scratch = TempDir::new().unwrap();
    let copy = scratch.path().join("kv.db");
    fs::copy(path, &copy).unwrap();
    content(&open(&copy))
}

/// Sets `key` until that is told as done.
#[track_caller]
fn set_at_last(at: &Bench, key: &str) {
    let start = Instant::now();
    loop {
        match block_on(at.try_set(key, "\"at last\"", Expect::Anything)) {
            Ok(_) => return,
            Err(error) => assert!(matches!(error.reason(), Error::Displaced(_)), "{error:?}"),
        }
        assert!(start.elapsed() < PATIENCE, "it is never used again");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn with_at_last(mut content: Vec<(String, Vec<u8>)>, keys: &[&str]) -> Vec<(String, Vec<u8>)> {
    content.retain(|(key, _)| !keys.contains(&key.as_str()));
    content.extend(keys.iter().map(|key| ((*key).to_owned(), b"\"at last\"".to_vec())));
    content.sort();
    content
}

#[test]
fn a_backup_that_is_written_over_a_database_in_use_is_what_is_shown_and_nothing_else() {
    for way in WAYS {
        for (backup_is, make) in BACKUPS {
            let (_home, path, backup, at) = home(make);
            let restored = content_of(&backup);
            let told = block_on(at.get("k")).unwrap();
            assert_eq!(told.text[..], *b"\"new 19\"");
            run(way, &backup, &path);
            match block_on(at.try_set("k", "\"while\"", Expect::Anything)) {
                Err(Error::Displaced(why)) => {
                    assert!(why.contains("kv.db was written over") || why.contains("kv.db was cut"), "{why}");
                    assert!(why.contains("-wal.old"), "{why}");
                    assert_eq!(why.lines().count(), 1, "{why}");
                }
                other => panic!("{way}, {backup_is}: {other:?}"),
            }
            set_at_last(&at, "k");
            let expected = with_at_last(restored, &["k"]);
            assert!(content(&at) == expected, "{way}, {backup_is}: mixed");
            close(at, &path);
            assert!(content(&open(&path)) == expected, "{way}, {backup_is}: mixed at the end");
        }
    }
}

#[test]
fn nothing_is_read_of_what_was_written_over_and_the_feed_tells_of_all() {
    for way in WAYS {
        let (_home, path, backup, at) = home(BACKUPS[2].1);
        let mut feed = at.0.changes().unwrap();
        run(way, &backup, &path);
        block_on(async {
            match at.get("number 7").await {
                Err(Error::Displaced(_) | Error::NotFound) => {}
                other => panic!("{way}: {other:?}"),
            }
            while feed.recv().await.unwrap() != Change::Everything {}
            assert_eq!(at.text("k").await, b"\"old\"", "{way}");
            assert_eq!(at.list().await.len(), 401, "{way}");
        });
    }
}

#[test]
fn the_log_of_a_database_that_was_written_over_is_not_emptied_into_it_at_the_end() {
    for way in WAYS {
        for (backup_is, make) in BACKUPS {
            let (_home, path, backup, at) = home(make);
            let restored = content_of(&backup);
            run(way, &backup, &path);
            close(at, &path);
            assert!(content(&open(&path)) == restored, "{way}, {backup_is}");
        }
    }
}

#[test]
fn what_was_told_as_done_is_there_if_it_was_set_after_the_backup_was_written() {
    for round in 0..20 {
        let (_home, path, backup, at) = home(BACKUPS[round % 3].1);
        let restored = content_of(&backup);
        // Sets are going on all the time.
        let (told, still_refused) = std::thread::scope(|scope| {
            let copied = scope.spawn(|| run("cp $1 $2", &backup, &path));
            let mut told = Vec::new();
            let start = Instant::now();
            let mut number = 0;
            let mut refused = false;
            while start.elapsed() < PATIENCE {
                let key = format!("key {number}");
                let over = copied.is_finished();
                match block_on(at.try_set(&key, "\"at last\"", Expect::Anything)) {
                    Ok(_) => told.push((key, refused)),
                    Err(error) => {
                        assert!(matches!(error.reason(), Error::Displaced(_)), "{error:?}");
                        refused = true;
                        if error.reason().to_string().contains("copy it again") {
                            return (told, true);
                        }
                    }
                }
                number += 1;
                if over && refused && told.last().is_some_and(|(_, refused)| *refused) {
                    break;
                }
            }
            copied.join().unwrap();
            (told, false)
        });
        if still_refused {
            continue;
        }
        // Each that was told before was before the backup was written.
        let after: Vec<&str> =
            told.iter().filter(|(_, refused)| *refused).map(|(key, _)| key.as_str()).collect();
        assert!(content(&at) == with_at_last(restored, &after), "round {round}");
    }
}

#[test]
fn two_that_have_a_database_open_both_show_what_it_is_written_over_with() {
    let (_home, path, backup, at) = home(BACKUPS[0].1);
    let restored = content_of(&backup);
    let at = [at, open(&path)];
    let feeds: Vec<_> = at.iter().map(|at| at.0.changes().unwrap()).collect();
    assert_eq!(block_on(at[1].text("k")), b"\"new 19\"");
    run(WAYS[0], &backup, &path);
    for mut feed in feeds {
        block_on(async { while feed.recv().await.unwrap() != Change::Everything {} });
    }
    for (at, key) in at.iter().zip(["k", "l"]) {
        set_at_last(at, key);
    }
    for at in &at {
        assert!(content(at) == with_at_last(restored.clone(), &["k", "l"]));
    }
}

/// Operations of others on a database in use that do not overwrite it.
#[test]
fn nothing_that_sqlite_does_to_a_database_is_taken_for_an_overwriting() {
    const SETS: usize = 300;
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let stores: Vec<_> = (0..3).map(|_| open(&path)).collect();
    let over = std::sync::atomic::AtomicBool::new(false);
    let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
    let statements = [
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA wal_checkpoint(RESTART)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "VACUUM",
        "DELETE FROM value WHERE id > 100000",
        "CREATE TABLE IF NOT EXISTS theirs (x); INSERT INTO theirs VALUES (zeroblob(100000)); DELETE FROM theirs",
    ];
    std::thread::scope(|scope| {
        let mut sets = Vec::new();
        for (number, at) in stores.iter().enumerate() {
            sets.push(scope.spawn(move || {
                block_on(async {
                    for set in 0..SETS {
                        let key = format!("{number} {}", set % 150);
                        at.set(&key, "x".repeat(set * 30)).await;
                        at.text(&key).await;
                        if set % 10 == 0 {
                            at.delete(&key).await.unwrap();
                        }
                    }
                });
            }));
        }
        // Other processes, which open and close it all the time.
        for part in statements.chunks(3) {
            let (path, is_over) = (&path, &is_over);
            scope.spawn(move || {
                while !is_over() {
                    for statement in part {
                        let sqlite3 = Command::new("sqlite3").arg(path).arg(statement).output();
                        if sqlite3.is_err() {
                            return;
                        }
                    }
                }
            });
        }
        scope.spawn(|| {
            while !is_over() {
                run("touch $1; chmod 640 $1; chmod 600 $1; setfattr -n user.x -v 1 $1 || true", &path, &path);
            }
        });
        let sets: Vec<_> = sets.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(sets.into_iter().all(|set| set.is_ok()));
    });
    let all = content(&stores[0]);
    assert_eq!(all.len(), content(&stores[2]).len());
    assert!(!path.with_extension("db-wal.old").exists());
    let state: String = raw(&path).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(state, "ok");
}
