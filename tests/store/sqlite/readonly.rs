//! Database files that cannot be written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use kvfs::store::{Change, Error, Expect};
use tempfile::TempDir;

use super::{create, files, open, try_open};
use crate::store::process;
use crate::suite::{Bench, block_on};

/// Shows the directory `$D/rw` at `$D/ro` for reading only.
const TWO_VIEWS: &str = "mount --bind \"$D/rw\" \"$D/ro\"; mount -o remount,bind,ro \"$D/ro\"";

/// A home with an empty directory `ro` and a directory `rw` that holds a closed database with the key `k`.
fn home() -> TempDir {
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join("ro")).unwrap();
    create(&home.path().join("rw/kv.db"), b"1");
    home
}

async fn refuses_changes(at: &Bench) {
    let read_only = |error: &Error| matches!(error, Error::ReadOnly(_));
    assert!(read_only(&at.try_set("k", "2", Expect::Anything).await.unwrap_err()));
    assert!(read_only(&at.try_set("new", "2", Expect::Absent).await.unwrap_err()));
    assert!(read_only(&at.delete("k").await.unwrap_err()));
    assert!(read_only(&at.rename("k", "new").await.unwrap_err()));
}

#[test]
fn a_database_on_a_read_only_mount_is_read_and_refuses_changes_as_such() {
    const TEST: &str =
        "sqlite::readonly::a_database_on_a_read_only_mount_is_read_and_refuses_changes_as_such";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(TWO_VIEWS, TEST, home().path());
    };
    assert!(fs::write(directory.join("ro/x"), "").is_err());
    let before = files(&directory.join("rw"));
    let at = open(&directory.join("ro/kv.db"));
    block_on(async {
        assert_eq!(at.text("k").await, b"1");
        assert_eq!(at.keys().await, ["k"]);
        assert!(at.is_missing("new").await);
        refuses_changes(&at).await;
        assert_eq!(at.text("k").await, b"1");
    });
    drop(at);
    assert_eq!(files(&directory.join("rw")), before);
}

#[test]
fn a_read_only_file_in_a_writable_directory_is_read_and_refuses_changes_as_such() {
    const TEST: &str =
        "sqlite::readonly::a_read_only_file_in_a_writable_directory_is_read_and_refuses_changes_as_such";
    let Some(directory) = process::given() else {
        let home = home();
        fs::set_permissions(home.path().join("rw/kv.db"), fs::Permissions::from_mode(0o444)).unwrap();
        // The permissions of files hold for root, too, without this one.
        let way = ["setpriv", "--bounding-set", "-dac_override"];
        let works = Command::new(way[0]).args(&way[1..]).arg("true").status().is_ok_and(|end| end.success());
        let wrapper = if works { &way[..] } else { &[] };
        return process::passed(&process::wrapped(wrapper, TEST, home.path()).output().unwrap());
    };
    let path = directory.join("rw/kv.db");
    assert!(fs::OpenOptions::new().write(true).open(&path).is_err());
    let at = open(&path);
    block_on(async {
        assert_eq!(at.text("k").await, b"1");
        assert_eq!(at.keys().await, ["k"]);
        refuses_changes(&at).await;
    });
}

#[test]
fn nothing_is_created_on_a_read_only_mount_and_the_reason_is_told() {
    const TEST: &str = "sqlite::readonly::nothing_is_created_on_a_read_only_mount_and_the_reason_is_told";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(TWO_VIEWS, TEST, home().path());
    };
    for path in ["ro/other.db", "ro/new/kv.db"] {
        let error = try_open(&directory.join(path)).err().unwrap();
        assert!(error.starts_with("cannot ") && error.contains(directory.to_str().unwrap()), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

/// Reads the key `k` at `path` as `expected`, or not at all.
#[track_caller]
fn reads_nothing_old(path: &Path, expected: &[u8]) {
    let Ok(store) = try_open(path) else { return };
    let at = Bench(std::sync::Arc::new(store));
    block_on(async {
        match at.get("k").await {
            Ok(entry) => assert_eq!(&entry.text[..], expected),
            Err(error) => assert_ne!(error, Error::NotFound),
        }
    });
}

#[test]
fn a_log_left_by_a_crash_is_not_overlooked_on_a_read_only_mount() {
    const TEST: &str = "sqlite::readonly::a_log_left_by_a_crash_is_not_overlooked_on_a_read_only_mount";
    if let Some(directory) = process::given() {
        return reads_nothing_old(&directory.join("ro/crashed.db"), b"2");
    }
    let home = home();
    let path = home.path().join("rw/kv.db");
    let at = open(&path);
    block_on(async { at.set("k", "2").await });
    for end in ["", "-wal"] {
        fs::copy(home.path().join(format!("rw/kv.db{end}")), home.path().join(format!("rw/crashed.db{end}")))
            .unwrap();
    }
    process::in_private_mounts(TWO_VIEWS, TEST, home.path());
}

#[test]
fn a_read_only_view_follows_a_writer_that_is_there_first() {
    const TEST: &str = "sqlite::readonly::a_read_only_view_follows_a_writer_that_is_there_first";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(TWO_VIEWS, TEST, home().path());
    };
    let writer = open(&directory.join("rw/kv.db"));
    block_on(async {
        writer.set("k", "2").await;
        let reader = open(&directory.join("ro/kv.db"));
        let mut feed = reader.0.changes().unwrap();
        assert_eq!(reader.text("k").await, b"2");
        let meta = writer.set("k", "3").await;
        assert_eq!(reader.text("k").await, b"3");
        assert_eq!(feed.recv().await, Some(Change::Set("k".into(), meta)));
        refuses_changes(&reader).await;
    });
}

#[test]
fn a_read_only_view_follows_a_writer_that_comes_later() {
    const TEST: &str = "sqlite::readonly::a_read_only_view_follows_a_writer_that_comes_later";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(TWO_VIEWS, TEST, home().path());
    };
    let reader = open(&directory.join("ro/kv.db"));
    block_on(async {
        assert_eq!(reader.text("k").await, b"1");
        let writer = open(&directory.join("rw/kv.db"));
        for number in 2..20 {
            writer.set("k", number.to_string()).await;
            assert_eq!(reader.text("k").await, number.to_string().as_bytes());
        }
    });
}
