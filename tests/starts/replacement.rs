//! Replacements of mounts that live.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;

use kvfs::fuse::{ANSWER, HAND_OVER};
use kvfs::sys::moving::{can_go_beneath, read_ioctl};

use super::{PATIENCE, kill, mounts_at, said};
use crate::common::{
    Elsewhere, KVFS, Mount, Raise, can_mount, errno, is_running, status_of, unmount, wait_for,
};

/// How often a mount is replaced under load; `KVFS_REPLACEMENTS` says otherwise.
const REPLACEMENTS: usize = 5;

fn can_replace() -> bool {
    can_mount() && can_go_beneath()
}

/// Replaces the mount at `dir` by one of `store`; what the start says, and its exit code.
fn replace(mount: &Mount, store: &str, args: &[&str]) -> (String, i32) {
    let mut command = Mount::command(&mount.home);
    command.arg("--replace").args(args).arg(store).arg(&mount.dir);
    said(&command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap())
}

fn store_of(mount: &Mount) -> String {
    format!("sqlite:{}", mount.home.path().join("kv.db").display())
}

/// As [`replace`], which succeeds. The daemon before.
fn replaced(mount: &mut Mount, args: &[&str]) -> i32 {
    let (text, code) = replace(mount, &store_of(mount), args);
    assert_eq!((code, mounts_at(&mount.dir)), (0, 1), "{text}");
    let now = i32::try_from(status_of(&mount.dir)["pid"].as_i64().unwrap()).unwrap();
    let before = std::mem::replace(&mut mount.pid, now);
    assert_ne!(before, now);
    before
}

/// Sets the key `name` to one number after the other until it is `over`, by way of another name if `renames`. The last one.
fn write(dir: &Path, name: &str, renames: bool, over: &AtomicBool) -> Result<u64, String> {
    let (path, temporary) = (dir.join(name), dir.join(format!("{name}.tmp")));
    for number in 1.. {
        let text = format!("{number}\n");
        let set = if renames {
            let made = OpenOptions::new().write(true).create_new(true).open(&temporary);
            let written = made.and_then(|mut file| file.write_all(text.as_bytes()));
            written.and_then(|()| fs::rename(&temporary, &path))
        } else {
            File::create(&path).and_then(|mut file| file.write_all(text.as_bytes()))
        };
        set.map_err(|error| format!("{name} {number}: {error}"))?;
        if over.load(Ordering::SeqCst) {
            return Ok(number);
        }
    }
    unreachable!()
}

/// Reads what the writers set until it is `over`. How often.
fn read(dir: &Path, names: &[&str], over: &AtomicBool) -> Result<u64, String> {
    let mut count = 0;
    while !over.load(Ordering::SeqCst) {
        for name in names {
            let text = fs::read_to_string(dir.join(name)).map_err(|error| format!("read {name}: {error}"))?;
            text.trim().parse::<u64>().map_err(|error| format!("read {name}: {text:?}: {error}"))?;
            count += 1;
        }
    }
    Ok(count)
}

/// Locks a file anew until it is `over`.
fn lock(dir: &Path, name: &str, over: &AtomicBool) -> Result<(), String> {
    while !over.load(Ordering::SeqCst) {
        let locked =
            OpenOptions::new().read(true).write(true).open(dir.join(name)).and_then(|file| file.lock());
        locked.map_err(|error| format!("lock {name}: {error}"))?;
    }
    Ok(())
}

#[test]
fn writers_and_readers_notice_nothing_of_replacements() {
    if !can_replace() {
        return;
    }
    let mut mount = Mount::sqlite(&[]);
    let (dir, over, names) = (mount.dir.clone(), AtomicBool::new(false), ["a", "b", "c", "d"]);
    for name in [&names[..], &["locked"]].concat() {
        fs::write(dir.join(name), "0\n").unwrap();
    }
    let told = std::env::var("KVFS_REPLACEMENTS").ok();
    let replacements = told.map_or(REPLACEMENTS, |count| count.parse().unwrap());
    let (written, read, old) = thread::scope(|scope| {
        let (dir, over, names) = (&dir, &over, &names);
        let writers = [0, 1, 2, 3].map(|at| scope.spawn(move || write(dir, names[at], at % 2 == 1, over)));
        let readers = [(); 4].map(|()| scope.spawn(move || read(dir, names, over)));
        let locker = scope.spawn(move || lock(dir, "locked", over));
        let raise = Raise(over);
        let old: Vec<i32> = (0..replacements).map(|_| replaced(&mut mount, &[])).collect();
        drop(raise);
        assert_eq!(locker.join().unwrap(), Ok(()));
        (writers.map(|writer| writer.join().unwrap()), readers.map(|reader| reader.join().unwrap()), old)
    });
    eprintln!("{replacements} replacements, written {written:?}, read {read:?}");
    assert!(read.iter().all(Result::is_ok), "{read:?}");
    for (name, number) in names.iter().zip(written) {
        let found: u64 = mount.text(name).unwrap().trim().parse().unwrap();
        assert_eq!(Ok(found), number, "{name}");
    }
    wait_for(PATIENCE, || !old.iter().any(|pid| is_running(*pid)));
    unmount(&dir);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn open_files_are_served_by_the_mount_that_they_were_opened_on() {
    if !can_replace() {
        return;
    }
    let mut mount = Mount::sqlite(&[]);
    fs::write(mount.path("a"), "1\n").unwrap();
    // The store keeps it.
    fs::set_permissions(mount.path("a"), fs::Permissions::from_mode(0o640)).unwrap();
    let mut reader = File::open(mount.path("a")).unwrap();
    let mut writer = OpenOptions::new().write(true).truncate(true).open(mount.path("a")).unwrap();
    let old = replaced(&mut mount, &[]);
    assert_eq!(mount.text("a").unwrap(), "1\n");
    assert_eq!(fs::metadata(mount.path("a")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(mount.status()["still_serve"], serde_json::json!([old]));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    writer.write_all(b"22\n").unwrap();
    // The mode is that of the open file; others lock the file elsewhere.
    writer.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(errno(reader.try_lock().map_err(std::io::Error::from)), libc::ENOLCK);
    drop((reader, writer));
    assert_eq!(text, "1\n");
    wait_for(PATIENCE, || mount.text("a").unwrap() == "22\n" && !is_running(old));
}

#[test]
fn what_a_mount_has_alone_keeps_it_from_being_replaced() {
    if !can_replace() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/"]);
    fs::write(mount.path("a"), "1").unwrap();
    let lock = File::open(mount.path("a")).unwrap();
    let refused = |says: &str| {
        let (text, code) = replace(&mount, &store_of(&mount), &["--timeout", "500ms"]);
        assert!(text.contains(says) && text.contains("is not replaced") && code == 3, "{code} {text}");
        fs::write(mount.path("b"), "2").unwrap();
        assert_eq!((mount.text("b").unwrap().as_str(), mounts_at(&mount.dir)), ("2", 1));
    };
    fs::write(mount.path(".x.swp"), "anything").unwrap();
    refused("\".x.swp\" is a temporary or scratch file");
    fs::remove_file(mount.path(".x.swp")).unwrap();
    File::create(mount.path("empty")).unwrap();
    refused("\"empty\" has no content yet");
    fs::remove_file(mount.path("empty")).unwrap();
    fs::create_dir(mount.path("dir")).unwrap();
    refused("the directory \"dir\" has no keys");
    fs::remove_dir(mount.path("dir")).unwrap();
    lock.lock().unwrap();
    refused("\"a\" is locked");
    lock.unlock().unwrap();
    fs::set_permissions(&mount.dir, fs::Permissions::from_mode(0o700)).unwrap();
    File::open(&mount.dir).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    refused("\".\" has a mode, an owner or times of its own");
    let memory = Mount::memory(&[]);
    let (text, code) = replace(&memory, "memory:", &[]);
    assert!(text.contains("its values are in its memory alone") && code == 3, "{code} {text}");
    fs::write(memory.path("b"), "2").unwrap();
}

#[test]
fn a_mount_goes_on_whose_successor_dies_before_it_takes_its_place() {
    if !can_replace() {
        return;
    }
    let mut mount = Mount::sqlite(&[]);
    let successor = File::open(&mount.dir).unwrap();
    wait_for(PATIENCE, || read_ioctl(&successor, HAND_OVER, ANSWER).unwrap().is_empty());
    let (text, code) = replace(&mount, &store_of(&mount), &["--timeout", "500ms"]);
    assert!(text.contains("it is being replaced already") && code == 3, "{code} {text}");
    thread::scope(|scope| {
        let created = mount.messages("CREATE");
        let path = mount.path("a");
        let writer = scope.spawn(move || fs::write(path, "1"));
        wait_for(PATIENCE, || mount.messages("CREATE") > created);
        assert!(!writer.is_finished());
        drop(successor);
        writer.join().unwrap().unwrap();
    });
    assert_eq!(mount.text("a").unwrap(), "1");
    replaced(&mut mount, &[]);
    assert_eq!(mount.text("a").unwrap(), "1");
}

#[test]
fn who_is_in_a_mount_that_is_replaced_works_on_there() {
    if !can_replace() {
        return;
    }
    let mut mount = Mount::sqlite(&[]);
    fs::write(mount.path("a"), "1\n").unwrap();
    let script = "read go; set -e; cat a; echo 2 > a; cat a; echo 3 > new; mv new b; cat b; chmod 600 b; touch -d @1 b; \
                  truncate -s 1 b; cat ./a > .x.swp; rm .x.swp";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(&mount.dir).stdin(Stdio::piped());
    let mut shell = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let old = replaced(&mut mount, &[]);
    shell.stdin.take().unwrap().write_all(b"\n").unwrap();
    let out = shell.wait_with_output().unwrap();
    let said = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!((&*said.0, &*said.1, out.status.code()), ("1\n2\n3\n", "", Some(0)));
    wait_for(PATIENCE, || mount.text("a").unwrap() == "2\n" && mount.text("b").unwrap() == "3");
    wait_for(PATIENCE, || !is_running(old));
}

#[test]
fn a_key_that_is_bound_keeps_the_daemon_which_says_that_it_was_replaced() {
    if !can_replace() {
        return;
    }
    let mut mount = Mount::sqlite(&[]);
    fs::write(mount.path("app"), "1\n").unwrap();
    let bound = mount.home.path().join("bound");
    File::create(&bound).unwrap();
    assert!(
        Command::new("mount").arg("--bind").arg(mount.path("app")).arg(&bound).status().unwrap().success()
    );
    let old = replaced(&mut mount, &[]);
    let status = status_of(&bound);
    assert!(status["pid"] == old && status["replaced"]["open_files"] == 0, "{status}");
    assert!(mount.status()["replaced"].is_null());
    let out = Command::new(KVFS).arg("status").arg(&bound).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("replaced by another mount; serves 0 open files until they are closed"), "{text}");
    fs::write(&bound, "22\n").unwrap();
    wait_for(PATIENCE, || mount.text("app").unwrap() == "22\n");
    fs::write(mount.path("app"), "333\n").unwrap();
    wait_for(PATIENCE, || fs::read_to_string(&bound).unwrap() == "333\n");
    // The end of the old daemon is none of the new mount.
    kill("-TERM", old);
    wait_for(PATIENCE, || !is_running(old));
    unmount(&bound);
    assert_eq!((mount.text("app").unwrap().as_str(), mounts_at(&mount.dir)), ("333\n", 1));
}

#[test]
fn a_replacement_brings_new_options_and_without_a_mount_there_it_is_a_start() {
    if !can_replace() {
        return;
    }
    let mut mount = Mount::sqlite(&["--replace"]);
    fs::write(mount.path("app"), "1").unwrap();
    replaced(&mut mount, &["--extension", ".json"]);
    assert_eq!(mount.names(), ["app.json"]);
    replaced(&mut mount, &["--read-only"]);
    assert_eq!(errno(fs::write(mount.path("app"), "2")), libc::EROFS);
    assert_eq!(Elsewhere::of(&mount).get("app").unwrap(), "1");
    kill("-9", mount.pid);
    wait_for(PATIENCE, || !is_running(mount.pid) && errno(fs::read_dir(&mount.dir)) != 0);
    let (text, code) = replace(&mount, &store_of(&mount), &[]);
    assert_eq!(code, 0, "{text}");
    mount.pid = i32::try_from(status_of(&mount.dir)["pid"].as_i64().unwrap()).unwrap();
    fs::write(mount.path("app"), "2").unwrap();
}
