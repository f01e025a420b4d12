//! Paths and files that are not, or not yet, a database of ours.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::{create, files, open, raw, try_open};
use crate::suite::block_on;

/// Opening `path` fails with one line that names it and holds `why`; its directory stays as it was.
#[track_caller]
fn is_left_alone(path: &Path, why: &str) {
    let directory = path.parent().unwrap();
    let before = files(directory);
    let error = try_open(path).err().expect("this is no database of ours");
    assert!(error.contains(path.to_str().unwrap()) && error.contains(why), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let names = |files: &[(std::ffi::OsString, Vec<u8>)]| {
        format!("{:?}", files.iter().map(|file| &file.0).collect::<Vec<_>>())
    };
    let after = files(directory);
    assert_eq!(names(&after), names(&before));
    assert!(after == before, "{} was changed", path.display());
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("values.json");
    for text in [b"{\"host\":\"db1\"}\n".repeat(1_000), b"{}\n".to_vec(), vec![0; 4096], vec![b'x'; 100]] {
        fs::write(&path, text).unwrap();
        is_left_alone(&path, "is not a database");
    }
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    for mode in ["DELETE", "WAL"] {
        let home = TempDir::new().unwrap();
        let path = home.path().join("bookmarks.db");
        let db = raw(&path);
        let _: String = db.query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0)).unwrap();
        db.execute_batch("CREATE TABLE entry (key, value); INSERT INTO entry VALUES (1, 2);").unwrap();
        drop(db);
        is_left_alone(&path, "another program");
    }
}

#[test]
fn the_database_of_another_program_that_is_running_keeps_its_log() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("bookmarks.db");
    let db = raw(&path);
    db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE a (b); INSERT INTO a VALUES (1);").unwrap();
    let content = |name: &str| fs::read(home.path().join(name)).unwrap();
    let before = (content("bookmarks.db"), content("bookmarks.db-wal"));
    assert!(try_open(&path).err().unwrap().contains("another program"));
    assert!((content("bookmarks.db"), content("bookmarks.db-wal")) == before);
    db.execute_batch("INSERT INTO a VALUES (2);").unwrap();
}

#[test]
fn the_database_of_another_program_that_crashed_loses_nothing() {
    let home = TempDir::new().unwrap();
    let db = raw(&home.path().join("bookmarks.db"));
    db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE a (b); INSERT INTO a VALUES (1);").unwrap();
    for end in ["", "-wal"] {
        let name = format!("bookmarks.db{end}");
        fs::copy(home.path().join(&name), home.path().join(format!("crashed-{name}"))).unwrap();
    }
    let crashed = home.path().join("crashed-bookmarks.db");
    assert!(try_open(&crashed).err().unwrap().contains("another program"));
    assert_eq!(raw(&crashed).query_row("SELECT b FROM a", [], |row| row.get::<_, i64>(0)), Ok(1));
}

#[test]
fn the_database_of_another_program_without_tables_is_left_alone() {
    for pragma in ["application_id = 1", "user_version = 1"] {
        let home = TempDir::new().unwrap();
        let path = home.path().join("other.db");
        raw(&path).execute_batch(&format!("PRAGMA {pragma}")).unwrap();
        is_left_alone(&path, "another program");
    }
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    create(&path, b"1");
    let version = |db: &rusqlite::Connection| {
        db.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0)).unwrap()
    };
    let ours = version(&raw(&path));
    raw(&path).execute_batch(&format!("PRAGMA user_version = {}", ours + 1)).unwrap();
    is_left_alone(&path, "newer kvfs");
    raw(&path).execute_batch(&format!("PRAGMA user_version = {ours}")).unwrap();
    block_on(async { assert_eq!(open(&path).text("k").await, b"1") });
}

#[test]
fn a_directory_is_no_database() {
    let home = TempDir::new().unwrap();
    let error = try_open(home.path()).err().unwrap();
    assert!(error.contains(home.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_file_where_a_directory_should_be_is_told() {
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("file"), "").unwrap();
    let error = try_open(&home.path().join("file/kv.db")).err().unwrap();
    assert!(error.contains("file"), "{error}");
    assert_eq!(fs::read(home.path().join("file")).unwrap(), b"");
}

#[test]
fn an_empty_file_becomes_a_database() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    fs::write(&path, "").unwrap();
    block_on(async {
        open(&path).set("k", "1").await;
        assert_eq!(open(&path).text("k").await, b"1");
    });
}

#[test]
fn a_missing_directory_is_created_for_its_owner_only() {
    let home = TempDir::new().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = home.path().join("data/kvfs/kv.db");
    create(&path, b"1");
    assert_eq!(mode(&home.path().join("data/kvfs")), 0o700);
    assert_eq!(mode(&home.path().join("data")), 0o700);
    assert_eq!(mode(home.path()), 0o755);
}

#[test]
fn any_path_names_its_own_file() {
    let home = TempDir::new().unwrap();
    let names: [&[u8]; 9] = [
        b"a?mode=memory",
        b"a#b",
        b"100%",
        b"%41",
        b"with space",
        b":memory:",
        b"file:x",
        "ключ 🔑".as_bytes(),
        b"\xff\xfe",
    ];
    for name in names {
        let path = home.path().join(OsStr::from_bytes(name));
        assert!(!path.exists());
        create(&path, name);
    }
    let created: Vec<_> = files(home.path()).into_iter().map(|(name, _)| name).collect();
    let mut expected: Vec<_> = names.iter().map(|name| OsStr::from_bytes(name).to_owned()).collect();
    expected.sort();
    assert_eq!(created, expected);
    for name in names {
        let at = open(&home.path().join(OsStr::from_bytes(name)));
        block_on(async { assert_eq!(at.text("k").await, name) });
    }
}
