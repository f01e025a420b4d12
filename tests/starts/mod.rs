//! Starts: what stands in their way, and what they leave alone.

mod logs;
mod messages;
mod ordinary;
mod replacement;
mod signals;
mod takeover;
mod user;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::common::{Mount, can_mount, errno, is_running, unmount, wait_for};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

fn kill(signal: &str, pid: i32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Kills the daemon of `mount`, which leaves a dead mount.
fn kill_daemon(mount: &Mount) {
    kill("-9", mount.pid);
    wait_for(PATIENCE, || !is_running(mount.pid) && errno(fs::read_dir(&mount.dir)) != 0);
}

/// How many mounts of kvfs there are at `dir`.
fn mounts_at(dir: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = format!(" {} ", dir.display());
    table.lines().filter(|line| line.contains(&place) && line.contains(" - fuse.kvfs ")).count()
}

fn start(home: &TempDir, store: &str, dir: &Path) -> Child {
    let mut command = Mount::command(home);
    command.arg(store).arg(dir).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn said(out: &Output) -> (String, i32) {
    (String::from_utf8_lossy(&out.stderr).into_owned(), out.status.code().unwrap_or(-1))
}

/// Many starts at once on the place of `mount`, whatever is there: one mount comes of it.
fn all_at_once(home: &TempDir, dir: &Path) {
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    let starts: Vec<Child> = (0..8).map(|_| start(home, &store, dir)).collect();
    let ended: Vec<_> = starts.into_iter().map(|start| said(&start.wait_with_output().unwrap())).collect();
    let (done, refused): (Vec<_>, Vec<_>) = ended.into_iter().partition(|(_, code)| *code == 0);
    assert_eq!((done.len(), mounts_at(dir)), (1, 1), "{refused:?}");
    for (text, code) in refused {
        assert!(text.contains("is mounted already") && code == 3, "{code} {text}");
    }
    fs::write(dir.join("db"), "1").unwrap();
}

#[test]
fn two_starts_at_once_make_one_mount() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let dir = home.path().join("mnt");
    all_at_once(&home, &dir);
    let pid = crate::common::status_of(&dir)["pid"].as_i64().unwrap();
    let mount = Mount { home, dir, pid: i32::try_from(pid).unwrap() };
    kill_daemon(&mount);
    all_at_once(&mount.home, &mount.dir);
    unmount(&mount.dir);
}

#[test]
fn a_store_that_cannot_be_used_leaves_a_dead_mount_where_it_is() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    kill_daemon(&mount);
    let none = mount.home.path().join("none");
    fs::write(&none, "this is not a database at all, but long enough to look like one to nobody").unwrap();
    let out = start(&mount.home, &format!("sqlite:{}", none.display()), &mount.dir).wait_with_output();
    let (text, code) = said(&out.unwrap());
    assert!(text.contains("is not a database") && code == 4, "{code} {text}");
    assert_eq!(mounts_at(&mount.dir), 1);
    assert_eq!(errno(fs::read_dir(&mount.dir)), libc::ENOTCONN);
    let made = mount.home.path().join("made");
    let out = start(&mount.home, &format!("sqlite:{}", none.display()), &made).wait_with_output();
    assert!(said(&out.unwrap()).1 == 4 && !made.exists());
}

/// The process that ends the connection of the mount at `dir` should its daemon be killed.
fn guard_of(dir: &Path) -> Option<i32> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let found = processes.filter(|process| {
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
        arguments.contains(&&b"__guard"[..]) && arguments.contains(&dir.as_os_str().as_encoded_bytes())
    });
    let ids: Vec<i32> = found.filter_map(|process| process.file_name()?.to_str()?.parse().ok()).collect();
    assert!(ids.len() < 2, "{ids:?}");
    ids.first().copied()
}

#[test]
fn a_guard_that_comes_late_ends_no_newer_mount() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    wait_for(PATIENCE, || guard_of(&mount.dir).is_some());
    let guard = guard_of(&mount.dir).unwrap();
    kill("-STOP", guard);
    kill_daemon(&mount);
    let (text, code) = said(&start(&mount.home, "memory:", &mount.dir).wait_with_output().unwrap());
    assert_eq!(code, 0, "{text}");
    kill("-CONT", guard);
    wait_for(PATIENCE, || !is_running(guard));
    fs::write(mount.dir.join("db"), "1").unwrap();
    unmount(&mount.dir);
}

#[test]
fn what_lies_below_a_mount_is_named() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let dir = home.path().join("mnt");
    fs::create_dir(&dir).unwrap();
    for (name, says) in [
        ("db", "is not empty: db lies there"),
        ("app", "is not empty: app and db lie there"),
        ("cfg", "is not empty: app, cfg and 1 more lie there"),
    ] {
        fs::write(dir.join(name), "1").unwrap();
        let (text, code) = said(&start(&home, "memory:", &dir).wait_with_output().unwrap());
        assert!(text.contains(says) && text.contains("-o nonempty") && code == 3, "{code} {text}");
    }
}

#[test]
fn what_lies_below_a_mount_is_moved_aside_or_set_where_that_is_asked_for() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let (dir, store) = (home.path().join("mnt"), format!("sqlite:{}", home.path().join("kv.db").display()));
    let mounted = |options: &str| {
        let mut command = Mount::command(&home);
        said(&command.args(["-q", "-o", options, &store]).arg(&dir).output().unwrap())
    };
    // What the last start has moved.
    let aside = || {
        let all =
            fs::read_dir(home.path().join("state/kvfs/aside")).unwrap().map(|entry| entry.unwrap().path());
        all.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap()
    };
    fs::create_dir_all(dir.join("app")).unwrap();
    for (name, text) in [("db", "1\n"), ("app/web", "2\n"), ("bad", "no JSON"), ("db~", "3\n"), ("empty", "")]
    {
        fs::write(dir.join(name), text).unwrap();
    }
    let (text, code) = mounted("separator=/,leftovers=set");
    assert_eq!(code, 0, "{text}");
    let kept = aside();
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines.remove(0),
        format!("kvfs: what lay in {} was moved to {}", dir.display(), kept.display())
    );
    lines.sort_unstable();
    assert!(lines[0].starts_with("kvfs: app/web, which lay there, is set"), "{text}");
    assert!(lines[1].starts_with("kvfs: bad, which lay there, is not set: "), "{text}");
    assert!(lines[2].starts_with("kvfs: db, which lay there, is set"), "{text}");
    assert!(lines[3].starts_with("kvfs: db~, which lay there, is not set: "), "{text}");
    assert!(lines[4].starts_with("kvfs: empty, which lay there, is not set: ") && lines.len() == 5, "{text}");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!((read(dir.join("db")), read(dir.join("app/web"))), ("1\n".into(), "2\n".into()));
    assert_eq!((read(kept.join("bad")), read(kept.join("db"))), ("no JSON".into(), "1\n".into()));
    unmount(&dir);
    // A value that the store has stays.
    for (name, text) in [("db", "4\n"), ("new", "5\n")] {
        fs::write(dir.join(name), text).unwrap();
    }
    let (text, code) = mounted("leftovers=set,ro");
    assert!(code == 0 && text.matches("is not set: the mount is read-only").count() == 2, "{code} {text}");
    unmount(&dir);
    fs::write(dir.join("db"), "6\n").unwrap();
    let (text, code) = mounted("leftovers=set");
    assert!(code == 0 && text.contains("db, which lay there, is not set: the key exists"), "{code} {text}");
    assert_eq!(read(dir.join("db")), "1\n");
    unmount(&dir);
    fs::write(dir.join("db"), "7\n").unwrap();
    let (text, code) = mounted("leftovers=aside");
    assert!(code == 0 && text.lines().count() == 1 && text.contains(" was moved to "), "{code} {text}");
    assert_eq!((read(dir.join("db")), read(aside().join("db"))), ("1\n".into(), "7\n".into()));
    unmount(&dir);
    // Nothing is left there: nothing is said.
    assert_eq!(mounted("leftovers=set"), (String::new(), 0));
    unmount(&dir);
}

#[test]
fn a_directory_that_keeps_what_is_moved_aside_is_not_moved_itself() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("mnt");
    fs::create_dir_all(dir.join("state")).unwrap();
    let mut command = Mount::command(&home);
    command.env("XDG_STATE_HOME", dir.join("state")).args(["-q", "-o", "leftovers=aside", "memory:"]);
    let (text, code) = said(&command.arg(&dir).output().unwrap());
    assert!(code == 3 && text.contains("cannot move aside what lies in"), "{code} {text}");
    assert!(text.contains(" is in there, too") && dir.join("state").exists(), "{text}");
}
