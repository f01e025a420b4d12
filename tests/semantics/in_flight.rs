//! Rule 6 while a close is in flight: the database is locked by somebody else until two calls wait for it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::trouble::stored;
use crate::common::{Mount, PATIENCE, can_mount, close, wait_for};

const OLD: &str = "[1]";
const NEW: &str = "[2]";

/// What is done to `k`, and what is left of `k` and `m`.
type Case = (fn(PathBuf, PathBuf) -> std::io::Result<()>, &'static str, [Option<&'static str>; 2]);

const CASES: [Case; 3] = [
    (|k, m| fs::rename(k, m), "rename_key", [None, Some(NEW)]),
    (|k, _| fs::remove_file(k), "delete_key", [None, Some("[3]")]),
    (|k, m| fs::rename(m, k), "rename_key", [Some("[3]"), None]),
];

fn writer_of_k(mount: &Mount, truncate: bool) -> File {
    for (name, text) in [("k", OLD), ("m", "[3]")] {
        fs::write(mount.path(name), text).unwrap();
    }
    let mut writer = OpenOptions::new().write(true).truncate(truncate).open(mount.path("k")).unwrap();
    writer.write_all(&NEW.as_bytes()[..2]).unwrap();
    writer
}

/// Completes the document, which sets it where the file was truncated, and closes the file, which sets it else.
fn finish(mut writer: File) -> i32 {
    writer.write_all(&NEW.as_bytes()[2..]).unwrap();
    close(writer)
}

/// As [`Mount::calls`], but starts no program: it would inherit the writer's descriptor, and close it.
fn calls(mount: &Mount, call: &str) -> u64 {
    let status = kvfs::sys::get_xattr(&mount.dir, "user.kvfs.status").unwrap();
    serde_json::from_slice::<serde_json::Value>(&status).unwrap()["calls"][call].as_u64().unwrap()
}

/// Has `first` wait for the database, and `second` begin after that.
fn at_once<A: Send, B: Send>(
    mount: &Mount,
    call: &str,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    let other = rusqlite::Connection::open(mount.home.path().join("kv.db")).unwrap();
    let before = calls(mount, call);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(first);
        wait_for(PATIENCE, || calls(mount, call) > before);
        let second = scope.spawn(second);
        // Whether it got far enough to be in the way only makes the test stricter.
        thread::sleep(Duration::from_millis(300));
        other.execute_batch("ROLLBACK").unwrap();
        (first.join().unwrap(), second.join().unwrap())
    })
}

fn ends_as(mount: &Mount, expected: [Option<&str>; 2]) {
    for (name, text) in ["k", "m"].into_iter().zip(expected) {
        let database = mount.home.path().join("kv.db");
        assert_eq!(stored(&database, name).as_deref(), text.map(str::as_bytes), "{name}");
        assert_eq!(fs::read_to_string(mount.path(name)).ok().as_deref(), text, "{name}");
    }
}

#[test]
fn rule_6_a_rename_or_removal_during_a_close_comes_after_it() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--timeout", "1m"]);
    for (change, _, expected) in CASES {
        for truncate in [true, false] {
            let writer = writer_of_k(&mount, truncate);
            let (k, m) = (mount.path("k"), mount.path("m"));
            let (closed, changed) = at_once(&mount, "set_key_value", || finish(writer), || change(k, m));
            changed.unwrap();
            assert_eq!(closed, 0);
            ends_as(&mount, expected);
        }
    }
}

#[test]
fn rule_6_a_close_during_a_rename_or_removal_follows_the_file() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--timeout", "1m"]);
    // A file that was replaced is written anew by who truncated it.
    for (change, call, expected) in &CASES[..2] {
        for truncate in [true, false] {
            let writer = writer_of_k(&mount, truncate);
            let (k, m) = (mount.path("k"), mount.path("m"));
            let (changed, closed) = at_once(&mount, call, || change(k, m), || finish(writer));
            changed.unwrap();
            assert_eq!(closed, 0);
            ends_as(&mount, *expected);
        }
    }
}
