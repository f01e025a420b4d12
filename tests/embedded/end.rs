//! After the last one that has it open has ended, the database is one complete file.

use std::fs::{self, File};
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::common::{KVFS, Mount, can_mount, is_running, wait_for};

const PATIENCE: Duration = Duration::from_mins(2);

/// The number of keys in a copy of the database file alone, beside which nothing is left.
#[track_caller]
fn keys(path: &Path) -> i64 {
    let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.filter(|name| name.to_str().unwrap().starts_with("kv.db")).collect();
    assert_eq!(names, ["kv.db"]);
    let copy = TempDir::new().unwrap();
    let alone = copy.path().join("alone.db");
    fs::copy(path, &alone).unwrap();
    let db = Connection::open(&alone).unwrap();
    db.query_row("SELECT count(*) FROM kv", [], |row| row.get(0)).unwrap()
}

fn fill(mount: &Mount, names: std::ops::Range<u32>) {
    for name in names {
        fs::write(mount.path(name.to_string()), "1\n").unwrap();
    }
}

#[allow(unsafe_code)]
fn terminate(pid: i32) {
    // SAFETY: kill has no preconditions.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
}

#[test]
fn after_the_last_unmount_the_database_alone_has_every_value() {
    if !can_mount() {
        return;
    }
    let mut home = TempDir::new().unwrap();
    for round in 0..3 {
        let store = format!("sqlite:{}", home.path().join("kv.db").display());
        let mount = Mount::start_in(home, &store, &[]);
        fill(&mount, round * 20..(round + 1) * 20);
        home = match round {
            0 | 1 => mount.unmount(),
            _ => {
                terminate(mount.pid);
                wait_for(PATIENCE, || !is_running(mount.pid));
                mount.unmount()
            }
        };
        assert_eq!(keys(&home.path().join("kv.db")), i64::from(round + 1) * 20);
        let log = fs::read_to_string(home.path().join("state/kvfs/kvfs.log")).unwrap_or_default();
        assert!(!log.contains("no longer pushes"), "{log}");
    }
}

#[test]
fn a_mount_that_ends_beside_an_open_file_leaves_one_complete_file() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fill(&mount, 0..20);
    let open = File::open(mount.path("1")).unwrap();
    terminate(mount.pid);
    wait_for(PATIENCE, || !is_running(mount.pid));
    drop(open);
    assert_eq!(keys(&mount.unmount().path().join("kv.db")), 20);
}

#[test]
fn of_mounts_that_end_at_once_the_last_leaves_one_complete_file() {
    if !can_mount() {
        return;
    }
    for _ in 0..5 {
        let one = Mount::sqlite(&[]);
        let path = one.home.path().join("kv.db");
        let store = format!("sqlite:{}", path.display());
        let others: Vec<_> = (0..3).map(|_| Mount::start_in(TempDir::new().unwrap(), &store, &[])).collect();
        fill(&one, 0..20);
        let mounts: Vec<_> = others.iter().chain([&one]).collect();
        for mount in &mounts {
            terminate(mount.pid);
        }
        wait_for(PATIENCE, || mounts.iter().all(|mount| !is_running(mount.pid)));
        assert_eq!(keys(&path), 20);
    }
}

#[test]
fn a_copy_and_a_server_leave_one_complete_file() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fill(&mount, 0..20);
    let home = mount.unmount();
    let to = TempDir::new().unwrap();
    let store = |home: &TempDir| format!("sqlite:{}", home.path().join("kv.db").display());
    let copy = Command::new(KVFS).args(["copy", &store(&home), &store(&to)]).stdout(Stdio::null()).status();
    assert!(copy.unwrap().success());
    for home in [&home, &to] {
        assert_eq!(keys(&home.path().join("kv.db")), 20);
    }
    let mut server = Mount::command(&to);
    server.args(["serve", "--no-auth", "--listen", "127.0.0.1:0", &store(&to)]).stderr(Stdio::piped());
    let mut server = server.spawn().unwrap();
    let mut lines = std::io::BufReader::new(server.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("http://")));
    terminate(i32::try_from(server.id()).unwrap());
    server.wait().unwrap();
    assert_eq!(keys(&to.path().join("kv.db")), 20);
}
