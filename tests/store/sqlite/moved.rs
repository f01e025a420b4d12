//! A database whose files are moved, replaced or cut while it is open.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kvfs::store::{Error, Expect, Key};
use tempfile::TempDir;

use super::{close, create, open, try_open};
use crate::suite::{Bench, block_on};

/// Ways to lose the database at `path`.
type Way = (&'static str, fn(&Path));

fn log(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

/// A closed database beside the one at `path`, with the one key `restored`.
fn another(path: &Path) -> PathBuf {
    let other = path.with_file_name("other.db");
    let at = open(&other);
    block_on(at.set("restored", "\"yes\""));
    close(at, &other);
    other
}

const WAYS: [Way; 10] = [
    ("was removed", |path| fs::remove_file(path).unwrap()),
    ("was removed or moved away", |path| fs::rename(path, path.with_file_name("away.db")).unwrap()),
    ("was replaced", |path| fs::rename(another(path), path).unwrap()),
    ("was cut to 0 bytes", |path| drop(File::create(path).unwrap())),
    ("was cut to 5000 bytes", |path| File::options().write(true).open(path).unwrap().set_len(5000).unwrap()),
    ("-wal was removed", |path| fs::remove_file(log(path)).unwrap()),
    ("-wal was replaced", |path| {
        fs::copy(log(path), path.with_file_name("copy")).unwrap();
        fs::rename(path.with_file_name("copy"), log(path)).unwrap();
    }),
    ("-shm was removed", |path| fs::remove_file(path.with_extension("db-shm")).unwrap()),
    ("was removed", |path| fs::remove_dir_all(path.parent().unwrap()).unwrap()),
    ("was removed", |path| {
        fs::rename(path.parent().unwrap(), path.parent().unwrap().with_extension("away")).unwrap();
    }),
];

/// A database in a directory of its own, with the keys `k` and `other`, its log not empty.
fn home() -> (TempDir, PathBuf, Bench) {
    let home = TempDir::new().unwrap();
    let path = home.path().join("data/kv.db");
    let at = open(&path);
    block_on(async {
        for number in 0..200 {
            at.set(&format!("number {number}"), number.to_string().repeat(1000)).await;
        }
        at.set("k", "1").await;
        at.set("other", "2").await;
    });
    (home, path, at)
}

#[test]
fn no_change_is_told_as_done_once_the_files_are_not_where_the_path_leads() {
    for (why, way) in WAYS {
        for change in 0..4 {
            let (_home, path, at) = home();
            way(&path);
            let (k, new) = (Key::from("k"), Key::from("new"));
            let told = block_on(async {
                match change {
                    0 => at.try_set("k", "3", Expect::Anything).await.map(drop),
                    1 => at.try_set("new", "3", Expect::Absent).await.map(drop),
                    2 => at.delete("k").await.map(drop),
                    _ => at.0.rename_key(&k, &new, Expect::Anything, Expect::Anything).await.map(drop),
                }
            });
            let Err(Error::Displaced(told)) = told else { panic!("{why}, {change}: {told:?}") };
            assert!(told.contains(why) && told.contains("kv.db"), "{why}: {told}");
            assert_eq!(told.lines().count(), 1);
        }
    }
}

#[test]
fn no_value_is_read_that_is_not_in_the_files_that_the_path_names() {
    for (why, way) in WAYS {
        let (_home, path, at) = home();
        block_on(async { assert_eq!(at.text("k").await, b"1") });
        way(&path);
        for _ in 0..3 {
            match block_on(at.get("k")) {
                Err(Error::Displaced(_)) => {}
                // The log has what the database had, or the other way round.
                Ok(entry) if why.starts_with('-') || why.contains("5000") => {
                    assert_eq!(entry.text[..], *b"1", "{why}");
                }
                Err(Error::NotFound) if why == "was replaced" => {}
                other => panic!("{why}: {other:?}"),
            }
        }
    }
}

/// Sets `k` to one number after the other, and has `way` happen meanwhile; the last one that was told as done.
fn last_told(at: &Bench, way: impl FnOnce() + Send) -> u32 {
    std::thread::scope(|scope| {
        let (signal, signalled) = std::sync::mpsc::channel();
        scope.spawn(move || {
            signalled.recv().unwrap();
            way();
        });
        block_on(async {
            let mut number = 0;
            loop {
                match at.try_set("k", (number + 1).to_string(), Expect::Anything).await {
                    Ok(_) => number += 1,
                    Err(error) => {
                        assert!(matches!(error.reason(), Error::Displaced(_)), "{error:?}");
                        return number;
                    }
                }
                if number == 20 {
                    signal.send(()).unwrap();
                }
            }
        })
    })
}

fn number(at: &Bench) -> u32 {
    String::from_utf8(block_on(at.text("k"))).unwrap().parse().unwrap()
}

#[test]
fn what_was_told_as_done_is_in_the_file_alone_wherever_it_was_moved() {
    for round in 0..10 {
        let (home, path, at) = home();
        let away = home.path().join("away.db");
        let last = last_told(&at, || fs::rename(&path, &away).unwrap());
        assert!(!log(&path).exists() && !path.exists());
        assert!((last..=last + 1).contains(&number(&open(&away))), "round {round}");
        drop(at);
    }
}

#[test]
fn what_was_told_as_done_outlives_the_loss_of_the_log() {
    for round in 0..10 {
        let (_home, path, at) = home();
        let last = last_told(&at, || fs::remove_file(log(&path)).unwrap());
        // The same process goes on.
        let mut tries = std::iter::repeat_with(|| block_on(at.try_set("other", "3", Expect::Anything)));
        assert!(tries.find(Result::is_ok).is_some());
        assert!((last..=last + 1).contains(&number(&at)), "round {round}");
        close(at, &path);
        assert!((last..=last + 1).contains(&number(&open(&path))), "round {round}");
    }
}

#[test]
fn a_database_that_is_put_back_is_used_again() {
    let (_home, path, at) = home();
    let away = path.with_file_name("away.db");
    fs::rename(&path, &away).unwrap();
    for _ in 0..3 {
        assert!(matches!(block_on(at.get("k")), Err(Error::Displaced(_))));
        assert!(!path.exists());
    }
    fs::rename(&away, &path).unwrap();
    block_on(async {
        assert_eq!(at.text("k").await, b"1");
        at.set("k", "2").await;
    });
    close(at, &path);
    block_on(async { assert_eq!(open(&path).text("k").await, b"2") });
}

#[test]
fn a_database_that_replaces_another_is_used_and_told_of_and_gets_nothing_of_it() {
    let (_home, path, at) = home();
    let mut feed = at.0.changes().unwrap();
    let other = another(&path);
    fs::rename(&other, &path).unwrap();
    block_on(async {
        while feed.recv().await.unwrap() != kvfs::store::Change::Everything {}
        assert_eq!(at.text("restored").await, b"\"yes\"");
        assert_eq!(at.list().await.len(), 1);
        at.set("k", "4").await;
    });
    close(at, &path);
    block_on(async {
        let at = open(&path);
        assert_eq!(at.text("k").await, b"4");
        assert_eq!(at.list().await.len(), 2);
    });
}

#[test]
fn two_that_have_a_database_open_both_go_on_with_the_one_that_replaces_it() {
    let (_home, path, at) = home();
    let at = [at, open(&path), open(&path)];
    let feeds: Vec<_> = at.iter().map(|at| at.0.changes().unwrap()).collect();
    block_on(async { assert_eq!(at[1].text("k").await, b"1") });
    fs::rename(another(&path), &path).unwrap();
    block_on(async {
        for (at, mut feed) in at.iter().zip(feeds) {
            while feed.recv().await.unwrap() != kvfs::store::Change::Everything {}
            at.set("k", "5").await;
        }
        for (number, at) in at.iter().enumerate() {
            at.set(&format!("by {number}"), "1").await;
        }
        for at in &at {
            assert_eq!(at.list().await.len(), 5);
        }
    });
    let [one, two, three] = at;
    drop((one, two));
    close(three, &path);
    block_on(async { assert_eq!(open(&path).list().await.len(), 5) });
}

#[test]
fn a_symbolic_link_that_leads_elsewhere_is_noticed() {
    let (home, path, at) = home();
    drop(at);
    let link = home.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let at = open(&link);
    block_on(async {
        assert_eq!(at.text("k").await, b"1");
        at.set("k", "2").await;
    });
    let other = another(&path);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let told = block_on(at.try_set("k", "3", Expect::Anything));
    assert!(matches!(told, Err(Error::Displaced(_))), "{told:?}");
    block_on(async { assert_eq!(open(&path).text("k").await, b"2") });
}

#[test]
fn a_database_with_two_names_is_refused() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    create(&path, b"1");
    fs::hard_link(&path, home.path().join("twin.db")).unwrap();
    let why = try_open(&path).err().unwrap();
    assert!(why.contains("2 names") && why.contains(path.to_str().unwrap()), "{why}");
    fs::remove_file(home.path().join("twin.db")).unwrap();
    block_on(async { assert_eq!(open(&path).text("k").await, b"1") });
}

#[test]
fn files_are_for_their_owner_only_and_one_that_is_there_keeps_its_mode() {
    let home = TempDir::new().unwrap();
    let modes = |path: &Path| {
        ["db", "db-wal", "db-shm"].map(|extension| {
            fs::metadata(path.with_extension(extension)).unwrap().permissions().mode() & 0o7777
        })
    };
    let path = home.path().join("kv.db");
    let at = open(&path);
    block_on(at.set("k", "1"));
    assert_eq!(modes(&path), [0o600; 3]);
    close(at, &path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let at = open(&path);
    block_on(at.set("k", "2"));
    assert_eq!(modes(&path), [0o640; 3]);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    let empty = home.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o664)).unwrap();
    let at = open(&empty);
    block_on(at.set("k", "1"));
    assert_eq!(modes(&empty), [0o664; 3]);
}

/// Runs sqlite3(1) on a database; false if there is none.
fn sqlite3(path: &Path, command: &str) -> bool {
    let Ok(out) = std::process::Command::new("sqlite3").arg(path).arg(command).output() else { return false };
    assert!(
        out.status.success() && out.stderr.is_empty(),
        "{command}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    true
}

#[test]
fn a_database_that_is_restored_in_place_is_told_of_whatever_its_revisions_are() {
    for changes_after in [0, 1, 2, 3, 4, 10] {
        let (_home, path, at) = home();
        let elsewhere = open(&path);
        let backup = path.with_file_name("backup.db");
        if !sqlite3(&path, &format!(".backup {}", backup.display())) {
            return;
        }
        let mut feed = elsewhere.0.changes().unwrap();
        block_on(async {
            for number in 0..4 {
                at.set("k", format!("\"new {number}\"")).await;
            }
            for _ in 0..4 {
                feed.recv().await.unwrap();
            }
        });
        assert!(sqlite3(&path, &format!(".restore {}", backup.display())));
        block_on(async {
            for number in 0..changes_after {
                at.set("other", format!("\"restored {number}\"")).await;
            }
            while feed.recv().await.unwrap() != kvfs::store::Change::Everything {}
            assert_eq!(elsewhere.text("k").await, b"1", "{changes_after}");
            // From now on as ever.
            at.set("last", "1").await;
            loop {
                match feed.recv().await.unwrap() {
                    kvfs::store::Change::Set(key, _) if key == Key::from("last") => break,
                    _ => {}
                }
            }
        });
    }
}

#[test]
fn a_backup_made_while_it_is_in_use_is_complete() {
    let (_home, path, at) = home();
    let [copy, vacuum] = ["copy.db", "vacuum.db"].map(|name| path.with_file_name(name));
    if !sqlite3(&path, &format!(".backup {}", copy.display())) {
        return;
    }
    assert!(sqlite3(&path, &format!("VACUUM INTO '{}'", vacuum.display())));
    block_on(async {
        for backup in [copy, vacuum] {
            assert_eq!(open(&backup).list().await, at.list().await);
        }
    });
}
