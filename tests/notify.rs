//! `--notify`: inotify tells of what others change, through a real kernel.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]

mod load;
mod missed;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common;
use crate::common::etcd;
use crate::common::pipe;
use crate::common::serve as server;
use common::{Elsewhere, Mount, Raise, can_mount, errno, is_running, unmount, wait_for};
use serde_json::json;
use server::{KEY, Server};

const PATIENCE: Duration = crate::common::PATIENCE;

/// `inotifywait -m` on a file or directory.
struct Watch {
    child: Child,
    events: Arc<Mutex<Vec<String>>>,
}

impl Watch {
    fn new(path: &Path, args: &[&str]) -> Self {
        let mut child = Command::new("inotifywait")
            .args(["-m", "--format", "%e %f"])
            .args(args)
            .arg(path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().starts_with("Watches established")));
        let events: Arc<Mutex<Vec<String>>> = Arc::default();
        let (out, kept) = (BufReader::new(child.stdout.take().unwrap()), events.clone());
        std::thread::spawn(move || {
            for line in out.lines() {
                kept.lock().unwrap().push(line.unwrap().trim().to_owned());
            }
        });
        Self { child, events }
    }

    /// Waits until `last` is among the events.
    #[track_caller]
    fn wait(&self, last: &str) {
        let start = Instant::now();
        while self.count(last) == 0 {
            let events = self.events.lock().unwrap().clone();
            assert!(start.elapsed() < PATIENCE, "no {last}: {events:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The events since this was last asked, once `last` is among them, without those of reading.
    #[track_caller]
    fn until(&self, last: &str) -> Vec<String> {
        self.wait(last);
        std::thread::sleep(Duration::from_millis(50));
        self.take()
    }

    /// The events since this was last asked, without those of reading.
    fn take(&self) -> Vec<String> {
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        let of_reading = ["OPEN", "ACCESS", "CLOSE_NOWRITE"];
        events.into_iter().filter(|event| !of_reading.iter().any(|kind| event.starts_with(kind))).collect()
    }

    fn count(&self, event: &str) -> usize {
        self.events.lock().unwrap().iter().filter(|other| *other == event).count()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// The relay of a mount.
fn relay(mount: &Mount) -> Option<i32> {
    let children =
        Command::new("pgrep").args(["-P", &mount.pid.to_string(), "-f", "__relay"]).output().unwrap();
    String::from_utf8(children.stdout).unwrap().trim().parse().ok()
}

fn mounted() -> (Mount, Elsewhere) {
    // A deadline that does not depend on how busy the disk is.
    let mount = Mount::sqlite(&["--notify", "--timeout", "60s"]);
    let elsewhere = Elsewhere::of(&mount);
    wait_for(PATIENCE, || relay(&mount).is_some());
    (mount, elsewhere)
}

/// There is a key `k`, and all events of that are over.
fn told_of_k(mount: &Mount, elsewhere: &Elsewhere) {
    let watch = Watch::new(&mount.dir, &[]);
    elsewhere.set("k", "1");
    watch.until("CLOSE_WRITE,CLOSE k");
    assert_eq!(text(mount.path("k")), "1");
}

#[test]
fn set_create_and_delete_elsewhere_are_told_as_if_made_here() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    told_of_k(&mount, &elsewhere);
    let (directory, file) = (Watch::new(&mount.dir, &[]), Watch::new(&mount.path("k"), &[]));
    for value in ["22", "3"] {
        elsewhere.set("k", value);
        assert_eq!(directory.until("CLOSE_WRITE,CLOSE k"), ["MODIFY k", "CLOSE_WRITE,CLOSE k"]);
        assert_eq!(file.until("CLOSE_WRITE,CLOSE"), ["MODIFY", "CLOSE_WRITE,CLOSE"]);
        let size = fs::metadata(mount.path("k")).unwrap().len();
        assert_eq!((text(mount.path("k")), size), (value.to_owned(), value.len() as u64));
    }
    assert!(!mount.path("new").exists());
    for value in ["1", "2"] {
        elsewhere.set("new", value);
        let created = ["CREATE new", "MODIFY new", "CLOSE_WRITE,CLOSE new"];
        assert_eq!(directory.until("CLOSE_WRITE,CLOSE new"), created);
        assert_eq!(text(mount.path("new")), value);
        assert_eq!(fs::metadata(mount.path("new")).unwrap().len(), 1);
        elsewhere.delete("new");
        assert_eq!(directory.until("DELETE new"), ["DELETE new"]);
        assert_eq!(errno(fs::metadata(mount.path("new"))), libc::ENOENT);
    }
    elsewhere.delete("k");
    assert_eq!(directory.until("DELETE k"), ["DELETE k"]);
    assert!(file.until("DELETE_SELF").contains(&"DELETE_SELF".to_owned()));
    for call in ["set_key_value", "delete_key", "rename_key"] {
        assert_eq!(mount.calls(call), 0, "{call}");
    }
    let listed: Vec<PathBuf> = fs::read_dir(&mount.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(listed.is_empty(), "{listed:?}");
}

/// The masks of systemd's path units, src/core/path.c.
#[test]
fn what_systemd_watches_is_told() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    told_of_k(&mount, &elsewhere);
    let mask = |events: &str| ["-e".to_owned(), events.to_owned()];
    let changed = mask("delete_self,move_self,attrib,close_write,create,delete,moved_from,moved_to");
    let parent = mask("move_self,delete_self,attrib,create,moved_to");
    let watch = |path: &Path, mask: &[String; 2]| Watch::new(path, &[&mask[0], &mask[1]]);
    let (changed, parent) = (watch(&mount.path("k"), &changed), watch(&mount.dir, &parent));
    elsewhere.set("k", "2");
    assert_eq!(changed.until("CLOSE_WRITE,CLOSE"), ["CLOSE_WRITE,CLOSE"]);
    assert!(!mount.path("other").exists());
    elsewhere.set("other", "1");
    assert_eq!(parent.until("CREATE other"), ["CREATE other"]);
    elsewhere.delete("k");
    changed.until("DELETE_SELF");
}

#[test]
fn changes_made_here_are_told_once() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    let watch = Watch::new(&mount.dir, &["-e", "create,close_write,delete,moved_to"]);
    for round in 0..20 {
        fs::write(mount.path("k"), round.to_string()).unwrap();
        fs::rename(mount.path("k"), mount.path("l")).unwrap();
        fs::remove_file(mount.path("l")).unwrap();
    }
    elsewhere.set("end", "1");
    let told = watch.until("CLOSE_WRITE,CLOSE end");
    let count = |event: &str| told.iter().filter(|told| *told == event).count();
    for event in ["CREATE k", "CLOSE_WRITE,CLOSE k", "MOVED_TO l", "DELETE l"] {
        assert_eq!(count(event), 20, "{event}");
    }
    assert_eq!(told.iter().filter(|event| !event.ends_with("end")).count(), 80, "{told:?}");
}

#[test]
fn who_watches_a_file_that_readers_hold_is_told_and_they_keep_their_version() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    told_of_k(&mount, &elsewhere);
    let (directory, file) = (Watch::new(&mount.dir, &[]), Watch::new(&mount.path("k"), &[]));
    let mut reader = fs::File::open(mount.path("k")).unwrap();
    elsewhere.set("k", "22");
    directory.until("CLOSE_WRITE,CLOSE k");
    assert_eq!(file.until("CLOSE_WRITE,CLOSE"), ["MODIFY", "CLOSE_WRITE,CLOSE"]);
    let mut held = String::new();
    reader.read_to_string(&mut held).unwrap();
    assert_eq!((held, text(mount.path("k"))), ("1".into(), "22".into()));
    drop(reader);
    assert_eq!(errno(fs::metadata(mount.path(".kvfs-relay"))), libc::ENOENT);
    elsewhere.set("k", "3");
    directory.until("CLOSE_WRITE,CLOSE k");
    file.until("CLOSE_WRITE,CLOSE");
    assert_eq!(text(mount.path("k")), "3");
}

#[test]
fn who_watches_a_file_whose_attributes_were_changed_is_told_that_it_is_another() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    told_of_k(&mount, &elsewhere);
    let file = Watch::new(&mount.path("k"), &[]);
    let mode = || fs::set_permissions(mount.path("k"), fs::Permissions::from_mode(0o600)).unwrap();
    mode();
    // What is written here is of the same file, and so is what others set then.
    fs::write(mount.path("k"), "22").unwrap();
    file.until("CLOSE_WRITE,CLOSE");
    elsewhere.set("k", "333");
    let told = file.until("CLOSE_WRITE,CLOSE");
    assert!(!told.iter().any(|event| event == "DELETE_SELF"), "{told:?}");
    assert_eq!(text(mount.path("k")), "333");
    mode();
    elsewhere.set("k", "4444");
    file.until("DELETE_SELF");
    assert_eq!(text(mount.path("k")), "4444");
    mode();
    let file = Watch::new(&mount.path("k"), &[]);
    elsewhere.set("k", "55555");
    file.until("DELETE_SELF");
}

#[test]
fn a_read_only_mount_tells_and_stays_read_only() {
    if !can_mount() {
        return;
    }
    let home = Mount::sqlite(&[]).unmount();
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    let mount = Mount::start_in(home, &store, &["--notify", "--read-only"]);
    let elsewhere = Elsewhere::of(&mount);
    let watch = Watch::new(&mount.dir, &[]);
    elsewhere.set("k", "1");
    watch.until("CLOSE_WRITE,CLOSE k");
    assert_eq!(errno(fs::write(mount.path("k"), "2")), libc::EROFS);
    assert_eq!(errno(fs::write(mount.path("new"), "2")), libc::EROFS);
    assert_eq!(errno(fs::remove_file(mount.path("k"))), libc::EROFS);
    assert_eq!(errno(fs::rename(mount.path("k"), mount.path("l"))), libc::EROFS);
    assert_eq!(text(mount.path("k")), "1");
}

#[test]
fn a_store_that_does_not_tell_of_changes_is_looked_at() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    let mount = Mount::prefect_cloud(&server.address, KEY, &["--notify", "--max-age", "200ms"]);
    let watch = Watch::new(&mount.dir, &[]);
    // The first look is under way when the mount answers.
    let mut number = 0;
    wait_for(PATIENCE, || {
        number += 1;
        server.set("first", json!(number));
        watch.count("CLOSE_WRITE,CLOSE first") > 0
    });
    let of_k = || {
        let mut events = watch.until("CLOSE_WRITE,CLOSE k");
        events.retain(|event| event.ends_with('k'));
        events
    };
    server.set("k", json!(1));
    assert_eq!(of_k(), ["CREATE k", "MODIFY k", "CLOSE_WRITE,CLOSE k"]);
    assert_eq!(text(mount.path("k")), "1\n");
    server.set("k", json!(2));
    assert_eq!(of_k(), ["MODIFY k", "CLOSE_WRITE,CLOSE k"]);
    assert_eq!(text(mount.path("k")), "2\n");
}

#[test]
fn the_last_deletion_in_a_directory_is_told_and_that_the_directory_is_gone() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--notify", "--separator", "/", "--timeout", "60s"]);
    let elsewhere = Elsewhere::of(&mount);
    for key in ["a/b/k", "c/k", "d"] {
        elsewhere.set(key, "1");
    }
    wait_for(PATIENCE, || ["a/b/k", "c/k", "d"].iter().all(|key| mount.path(key).exists()));
    let watch = Watch::new(&mount.dir, &["-r"]);
    elsewhere.delete("a/b/k");
    let told = |last: &str| {
        let events = watch.until(last).into_iter();
        events
            .filter(|event| event.starts_with("DELETE ") || event.starts_with("DELETE,"))
            .collect::<Vec<_>>()
    };
    assert_eq!(told("DELETE,ISDIR a"), ["DELETE k", "DELETE,ISDIR b", "DELETE,ISDIR a"]);
    elsewhere.delete("c/k");
    // Who looks meanwhile has the kernel remember that it is gone.
    wait_for(PATIENCE, || errno(fs::metadata(mount.path("c"))) == libc::ENOENT);
    assert_eq!(told("DELETE,ISDIR c"), ["DELETE k", "DELETE,ISDIR c"]);
}

#[test]
fn without_the_flag_there_is_no_relay() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    let watch = Watch::new(&mount.dir, &[]);
    elsewhere.set("k", "1");
    wait_for(PATIENCE, || mount.path("k").exists());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((watch.count("CREATE k"), relay(&mount)), (0, None));
}

#[test]
fn a_relay_that_is_killed_is_replaced_and_none_outlives_the_mount() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    let watch = Watch::new(&mount.dir, &[]);
    let first = relay(&mount).unwrap();
    assert!(Command::new("kill").args(["-9", &first.to_string()]).status().unwrap().success());
    let told = |name: &str| {
        wait_for(PATIENCE, || {
            elsewhere.set(name, "1");
            watch.count(&format!("CLOSE_WRITE,CLOSE {name}")) > 0
        });
    };
    told("a");
    let second = relay(&mount).unwrap();
    assert_ne!(first, second);
    // Orders wait while the mount ends.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = Raise(&over);
        scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                elsewhere.set(&format!("k{}", number % 50), &number.to_string());
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        unmount(&mount.dir);
        wait_for(PATIENCE, || !is_running(mount.pid) && !is_running(second));
    });
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 0, "what is below the mount point is left alone");
    let (mount, elsewhere) = mounted();
    let last = relay(&mount).unwrap();
    elsewhere.set("k", "1");
    assert!(Command::new("kill").args(["-9", &mount.pid.to_string()]).status().unwrap().success());
    wait_for(PATIENCE, || !is_running(last));
}
