//! The durability of acknowledged writes when the daemon is killed.
//!
//! `KVFS_CRASHES` sets the number of kills (20), `KVFS_SEED` repeats a run's choices.
#![allow(missing_docs, clippy::unwrap_used)]

mod load;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Error, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tempfile::TempDir;

use crate::common;
use common::{Mount, can_mount, is_running, wait_for};
use load::{Event, Writer, start_reader};

const WRITERS: u64 = 4;
const READERS: usize = 2;
const PATIENCE: Duration = crate::common::PATIENCE;

/// Small, seeded, good enough to choose moments.
struct Random(u64);

impl Random {
    const fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn number_from(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// The number of a document; 0 stands for no document.
type Number = u64;

/// The states that one key may have: the last acknowledged one, or the one in flight.
#[derive(Default)]
struct Expected {
    acknowledged: Number,
    tried: Option<Number>,
}

impl Expected {
    /// Takes the state that was found as acknowledged.
    fn now(key: &str, text: &[u8]) -> Self {
        Self { acknowledged: number_in(key, text).unwrap_or(0), tried: None }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Faults {
    lost: Vec<String>,
    torn: Vec<String>,
    phantom: Vec<String>,
}

impl Faults {
    fn add(&mut self, other: Self) {
        self.lost.extend(other.lost);
        self.torn.extend(other.torn);
        self.phantom.extend(other.phantom);
    }
}

/// Takes in events until `enough` acknowledgements came or every writer is gone.
fn follow(events: &Receiver<Event>, keys: &mut BTreeMap<String, Expected>, enough: u64) -> u64 {
    let mut acks = 0;
    while acks < enough {
        match events.recv_timeout(PATIENCE) {
            Ok(Event::Try(key, number)) => keys.entry(key).or_default().tried = Some(number),
            Ok(Event::Ack(key, number)) => {
                keys.insert(key, Expected { acknowledged: number, tried: None });
                acks += 1;
            }
            Ok(Event::End(errno, line)) => assert!(is_dead_mount(errno), "a writer said {line:?}"),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("the writers hang; {}", processes()),
        }
    }
    acks
}

/// The kernel's answers for a filesystem whose daemon is gone: ENOTCONN and ECONNABORTED.
const fn is_dead_mount(errno: i32) -> bool {
    matches!(errno, 107 | 103)
}

fn adler32(bytes: &[u8]) -> u64 {
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u64::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

/// The number of the document in `text`, if it is whole and belongs to `key`.
fn number_in(key: &str, text: &[u8]) -> Option<Number> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let number = value["number"].as_u64()?;
    let sum = adler32(format!("{key} {number} {}", value["pad"].as_str()?).as_bytes());
    (value["key"] == key && value["check"].as_u64() == Some(sum)).then_some(number)
}

/// Compares one view of the store with what was acknowledged.
fn compare(view: &BTreeMap<String, Vec<u8>>, keys: &BTreeMap<String, Expected>) -> Faults {
    let mut faults = Faults::default();
    for (key, expected) in keys {
        let found = view.get(key).map_or(Some(0), |text| number_in(key, text));
        let Some(found) = found else {
            faults.torn.push(format!("{key}: {}", String::from_utf8_lossy(&view[key])));
            continue;
        };
        if found == expected.acknowledged || Some(found) == expected.tried {
            continue;
        }
        let fault =
            format!("{key}: {found}, acknowledged {}, tried {:?}", expected.acknowledged, expected.tried);
        if expected.acknowledged == 0 { faults.phantom.push(fault) } else { faults.lost.push(fault) }
    }
    faults.phantom.extend(view.keys().filter(|key| !keys.contains_key(*key)).cloned());
    faults
}

fn through_the_mount(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

fn in_the_database(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let health: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(health, "ok");
    let mut query = database.prepare("SELECT key, value FROM kv").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The kernel function in which each thread of the daemons and of the writers waits.
fn processes() -> String {
    let threads = ["-L", "-o", "pid,tid,stat,wchan:30,time,comm", "-C", "kvfs,python3"];
    let out = Command::new("ps").args(threads).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn kill(mount: &mut Mount) {
    let pid = std::mem::take(&mut mount.pid);
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    let start = Instant::now();
    while is_running(pid) {
        if start.elapsed() > PATIENCE {
            let seen = processes();
            // Nothing that hangs on the mount would end with this test.
            assert!(Command::new("umount").arg("-f").arg(&mount.dir).status().is_ok());
            panic!("the killed daemon hangs; {seen}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Mounts where another mount was, dead or detached by now.
fn mount_again(mut mount: Mount) -> Mount {
    assert_eq!(mount.pid, 0, "it was not killed or detached");
    let home = std::mem::replace(&mut mount.home, TempDir::new().unwrap());
    let dir = mount.dir.clone();
    let mount = start(home);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let here = mounts.lines().filter(|line| line.split(' ').nth(1).map(Path::new) == Some(&dir)).count();
    assert_eq!(here, 1, "mounts at {}", dir.display());
    mount
}

fn start(home: TempDir) -> Mount {
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    Mount::start_in(home, &store, &[])
}

/// Removes a dead mount when a test fails between a kill and the next start.
struct Cleanup(PathBuf);

impl Drop for Cleanup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        }
    }
}

fn ready() -> bool {
    let python = Command::new("python3").arg("--version").output().is_ok();
    assert!(python || std::env::var_os("KVFS_REQUIRE_FUSE").is_none(), "python3 is not installed");
    if !python {
        eprintln!("skipped: python3 is not installed");
    }
    python && can_mount()
}

#[test]
fn a_kill_loses_no_acknowledged_write_and_tears_none() {
    if !ready() {
        return;
    }
    let kills = number_from("KVFS_CRASHES").unwrap_or(20);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number_from("KVFS_SEED").unwrap_or(now.as_secs());
    let mut random = Random(seed | 1);
    let mut mount = start(TempDir::new().unwrap());
    let dir = mount.dir.clone();
    let database = mount.home.path().join("kv.db");
    let _cleanup = Cleanup(dir.clone());
    let (mut keys, mut acks, mut faults) = (BTreeMap::new(), 0, Faults::default());
    for round in 1..=kills {
        let (sender, events) = channel();
        let writers: Vec<Writer> =
            (0..WRITERS).map(|writer| Writer::start(&dir, [writer, round, seed], sender.clone())).collect();
        drop(sender);
        let mut readers = [(); READERS].map(|()| start_reader(&dir));
        acks += follow(&events, &mut keys, 1 + random.below(400));
        std::thread::sleep(Duration::from_micros(random.below(3_000)));
        kill(&mut mount);
        acks += follow(&events, &mut keys, u64::MAX);
        drop(writers);
        for reader in &mut readers {
            assert!(reader.wait().unwrap().success());
        }
        mount = mount_again(mount);
        let view = through_the_mount(&dir);
        assert_eq!(view, in_the_database(&database), "round {round}, seed {seed}");
        faults.add(compare(&view, &keys));
        keys = view.iter().map(|(key, text)| (key.clone(), Expected::now(key, text))).collect();
    }
    let Faults { lost, torn, phantom } = &faults;
    eprintln!(
        "seed {seed}: {kills} kills, {acks} acks, {} lost, {} torn, {} phantom",
        lost.len(),
        torn.len(),
        phantom.len()
    );
    assert!(acks >= kills, "the writers did not write");
    assert_eq!(faults, Faults::default(), "seed {seed}");
}

/// An editor's backup: until the successor is written, the key is the only copy that lasts.
#[test]
fn a_kill_does_not_lose_a_key_renamed_to_a_backup_name() {
    if !can_mount() {
        return;
    }
    let mut mount = start(TempDir::new().unwrap());
    let _cleanup = Cleanup(mount.dir.clone());
    fs::write(mount.path("k"), "1\n").unwrap();
    fs::rename(mount.path("k"), mount.path("k~")).unwrap();
    kill(&mut mount);
    let mount = mount_again(mount);
    assert_eq!(through_the_mount(&mount.dir), BTreeMap::from([("k".to_owned(), b"1\n".to_vec())]));
}

#[test]
fn a_kill_does_not_lose_a_backup_that_was_synced() {
    if !can_mount() {
        return;
    }
    let mut mount = start(TempDir::new().unwrap());
    let _cleanup = Cleanup(mount.dir.clone());
    for name in ["k", "l"] {
        fs::write(mount.path(name), "1\n").unwrap();
    }
    fs::rename(mount.path("k"), mount.path("k~")).unwrap();
    File::open(mount.path("k~")).unwrap().sync_all().unwrap();
    fs::rename(mount.path("l"), mount.path("l~")).unwrap();
    kill(&mut mount);
    let mount = mount_again(mount);
    let values = through_the_mount(&mount.dir);
    assert_eq!(values.get("k~").map(Vec::as_slice), Some(&b"1\n"[..]));
    assert_eq!(values.values().collect::<Vec<_>>(), [b"1\n", b"1\n"], "{values:?}");
}

#[test]
fn a_kill_does_not_lose_a_temporary_file_that_was_synced() {
    if !can_mount() {
        return;
    }
    let mut mount = start(TempDir::new().unwrap());
    let _cleanup = Cleanup(mount.dir.clone());
    let mut file = File::options().write(true).create_new(true).open(mount.path("tmpabcdefgh")).unwrap();
    file.write_all(b"1\n").unwrap();
    file.sync_all().unwrap();
    kill(&mut mount);
    drop(file);
    let mount = mount_again(mount);
    assert_eq!(through_the_mount(&mount.dir), BTreeMap::from([("tmpabcdefgh".to_owned(), b"1\n".to_vec())]));
}

#[test]
fn a_kill_in_the_middle_of_a_document_leaves_the_old_value() {
    if !can_mount() {
        return;
    }
    let mut mount = start(TempDir::new().unwrap());
    let _cleanup = Cleanup(mount.dir.clone());
    fs::write(mount.path("k"), "[1]\n").unwrap();
    let mut file = File::create(mount.path("k")).unwrap();
    file.write_all(b"[2").unwrap();
    kill(&mut mount);
    drop(file);
    let mount = mount_again(mount);
    assert_eq!(through_the_mount(&mount.dir), BTreeMap::from([("k".to_owned(), b"[1]\n".to_vec())]));
}

/// Duplicates of all descriptors of another process that lead to `/dev/fuse`.
#[allow(unsafe_code)]
fn connections_of(pid: i32) -> Vec<OwnedFd> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let fuse = links.filter(|link| fs::read_link(link).is_ok_and(|file| file == Path::new("/dev/fuse")));
    let number = |link: PathBuf| link.file_name().unwrap().to_str().unwrap().parse::<i32>().unwrap();
    let duplicate = |fd: i32| {
        // SAFETY: both calls take numbers only; what they return is a new descriptor of this process, or -1.
        unsafe {
            let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            assert!(process >= 0, "{}", Error::last_os_error());
            let process = OwnedFd::from_raw_fd(process.try_into().unwrap());
            let copy = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0);
            assert!(copy >= 0, "{}", Error::last_os_error());
            OwnedFd::from_raw_fd(copy.try_into().unwrap())
        }
    };
    fuse.map(number).map(duplicate).collect()
}

/// As a thread does that was killed while it waits in the kernel, something keeps the connection open; the mount is
/// dead all the same, and does not hang.
#[test]
fn a_kill_ends_the_connection_even_if_it_is_held_open() {
    if !can_mount() {
        return;
    }
    let mut mount = start(TempDir::new().unwrap());
    let _cleanup = Cleanup(mount.dir.clone());
    let held = connections_of(mount.pid);
    assert!(!held.is_empty());
    kill(&mut mount);
    let out = Command::new("timeout").args(["30", "cat"]).arg(mount.path("k")).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("not connected"), "{:?} {text}", out.status);
    let mount = mount_again(mount);
    drop(held);
    assert!(through_the_mount(&mount.dir).is_empty());
}

/// A mount that was detached while a file was open ends with its last file, long after the next one was made.
#[test]
fn a_mount_that_ends_late_leaves_its_successor_alone() {
    if !can_mount() {
        return;
    }
    let mut first = start(TempDir::new().unwrap());
    let _cleanup = Cleanup(first.dir.clone());
    fs::write(first.path("k"), "1\n").unwrap();
    let file = File::open(first.path("k")).unwrap();
    assert!(Command::new("umount").arg("-l").arg(&first.dir).status().unwrap().success());
    let pid = std::mem::take(&mut first.pid);
    let second = mount_again(first);
    drop(file);
    wait_for(PATIENCE, || !is_running(pid));
    assert_eq!(through_the_mount(&second.dir), BTreeMap::from([("k".to_owned(), b"1\n".to_vec())]));
    assert_eq!(second.status()["pid"].as_i64(), Some(second.pid.into()));
}
