//! Rules 11 and 12: trouble and the end.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::behaviour::sys::truncate;
use crate::common::proxy::{Fault, Proxy};
use crate::common::serve::{KEY, Server};
use crate::common::{Mount, PATIENCE, can_mount, close, errno, is_running, wait_for};
use kvfs::store::{Key, SqliteStore, Store};

#[test]
fn rule_11_a_locked_database_delays_writers_up_to_the_deadline_and_readers_never() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--timeout", "500ms"]);
    fs::write(mount.path("doc"), "[1]").unwrap();
    let other = rusqlite::Connection::open(mount.home.path().join("kv.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let file = OpenOptions::new().write(true).truncate(true).open(mount.path("doc")).unwrap();
    assert_eq!(errno(file.write_all_at(b"[2]", 0)), libc::EBUSY);
    assert_eq!(close(file), libc::EBUSY);
    assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "[1]");
    assert_eq!(errno(fs::remove_file(mount.path("doc"))), libc::EBUSY);
    other.execute_batch("ROLLBACK").unwrap();
    // Once a set is let through to try again.
    wait_for(PATIENCE, || {
        let file = File::create(mount.path("doc"));
        file.is_ok_and(|mut file| file.write_all(b"[3]").is_ok() && close(file) == 0)
    });
    assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "[3]");
}

#[test]
fn rule_11_removals_beside_a_locked_database_are_refused_and_hold_up_the_directory_for_one_deadline() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--timeout", "2s"]);
    let files: Vec<PathBuf> = (0..8).map(|number| mount.path(format!("k{number}"))).collect();
    for file in &files {
        fs::write(file, "1").unwrap();
    }
    let other = rusqlite::Connection::open(mount.home.path().join("kv.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    thread::scope(|scope| {
        let removals: Vec<_> =
            files.iter().map(|file| scope.spawn(move || errno(fs::remove_file(file)))).collect();
        for removal in removals {
            assert_eq!(removal.join().unwrap(), libc::EBUSY);
        }
    });
    // The kernel lets one removal after the other in: the first waits for the lock, and what it comes to holds for the others.
    let tries = mount.status()["calls"]["delete_key"].as_u64().unwrap();
    assert!(tries < 8, "{tries} of 8 removals waited for the lock");
    let status = mount.status();
    assert!(
        status["down"].is_null() && status["busy"]["why"].as_str().is_some_and(|why| why.contains("locked"))
    );
    assert_eq!(errno(fs::write(mount.path("k0"), "2")), libc::EBUSY);
    assert_eq!(fs::read_to_string(mount.path("k0")).unwrap(), "1");
    other.execute_batch("ROLLBACK").unwrap();
    wait_for(PATIENCE, || fs::remove_file(&files[0]).is_ok());
    assert!(mount.status()["busy"].is_null());
}

#[test]
fn rule_11_a_name_shows_the_new_value_although_a_lookup_beside_it_has_no_answer() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    server.set("k", 12345.into());
    let proxy = Proxy::before(&server.address);
    let mount = Mount::prefect_cloud(&proxy.address, KEY, &["--max-age", "1h", "--timeout", "1m"]);
    let (k, beside) = (mount.path("k"), mount.path("beside"));
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let reader = File::open(&k).unwrap();
    assert_eq!(size(&k), 6);
    proxy.set(&Fault::LoseAnswer("beside"));
    let requests = proxy.requests();
    thread::scope(|scope| {
        // The kernel locks the directory until it is answered, and drops no name in it by itself.
        scope.spawn(|| errno(fs::metadata(&beside)));
        wait_for(PATIENCE, || proxy.requests() > requests);
        truncate(&k, 3).unwrap();
        let (tell, told) = mpsc::channel();
        scope.spawn(move || tell.send(size(&k)));
        // The old value needs no lock, and would be there by now; the new one may have to wait for the lookup.
        let shown = told.recv_timeout(Duration::from_millis(500));
        proxy.set(&Fault::None);
        assert_eq!(shown.or_else(|_| told.recv()), Ok(3));
    });
    assert_eq!(reader.metadata().unwrap().len(), 6);
}

#[test]
fn rule_12_sigterm_publishes_unmounts_and_says_what_was_set_aside() {
    if !can_mount() {
        return;
    }
    for (draft, code) in [("{\"whole\":1}", 0), ("{\"half\":", 6)] {
        let (home, mut daemon, dir, database) = in_front();
        let mut file = File::create(dir.join("doc")).unwrap();
        file.write_all(draft.as_bytes()).unwrap();
        let killed = Command::new("kill").arg(daemon.id().to_string()).status().unwrap();
        assert!(killed.success());
        assert_eq!(daemon.wait().unwrap().code(), Some(code), "{draft}");
        drop(file);
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(dir.to_str().unwrap()));
        assert_eq!(stored(&database, "doc"), (code == 0).then(|| draft.as_bytes().to_vec()));
        let rejected = fs::read_dir(home.path().join("state/kvfs/rejected")).map_or(0, Iterator::count);
        assert_eq!(rejected, if code == 0 { 0 } else { 2 });
    }
}

#[test]
fn rule_12_a_second_signal_ends_at_once_while_the_store_is_waited_for() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--timeout", "10m"]);
    let other = rusqlite::Connection::open(mount.home.path().join("kv.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Started before the file is open: a later child would flush it, and wait for the lock.
    let mut killer = Command::new("sh")
        .args(["-c", "read _; while kill $0; do sleep 0.2; done", &mount.pid.to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut file = File::create(mount.path("doc")).unwrap();
    drop(killer.stdin.take());
    // Waits for the lock until the daemon is gone.
    assert_ne!(errno(file.write_all(b"{}")), 0);
    wait_for(PATIENCE, || !is_running(mount.pid));
    killer.kill().unwrap();
    killer.wait().unwrap();
}

#[test]
fn rule_12_a_dead_mount_is_taken_over() {
    if !can_mount() {
        return;
    }
    let mut mount = Mount::sqlite(&[]);
    fs::write(mount.path("doc"), "[1]").unwrap();
    assert!(Command::new("kill").args(["-9", &mount.pid.to_string()]).status().unwrap().success());
    wait_for(PATIENCE, || !Path::new(&format!("/proc/{}", mount.pid)).exists());
    // A process that is just being started by the daemon has its files for a moment.
    wait_for(PATIENCE, || errno(fs::metadata(&mount.dir)) == libc::ENOTCONN);
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let out = Mount::command(&mount.home).arg(&store).arg(&mount.dir).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    mount.pid = i32::try_from(mount.status()["pid"].as_i64().unwrap()).unwrap();
    assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "[1]");
}

/// A mount in the foreground, its directory and its database.
fn in_front() -> (tempfile::TempDir, Child, PathBuf, PathBuf) {
    let home = tempfile::TempDir::new().unwrap();
    let (dir, database) = (home.path().join("mnt"), home.path().join("kv.db"));
    let store = format!("sqlite:{}", database.display());
    let daemon = Mount::command(&home).arg("-f").arg(&store).arg(&dir).spawn().unwrap();
    wait_for(PATIENCE, || fs::read_to_string("/proc/mounts").unwrap().contains(dir.to_str().unwrap()));
    (home, daemon, dir, database)
}

pub(super) fn stored(database: &Path, key: &str) -> Option<Vec<u8>> {
    let store = SqliteStore::open(database, Duration::from_secs(5)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(store.get_key_value(&Key::from(key))).ok().map(|entry| entry.text.to_vec())
}

#[test]
fn rule_12_a_document_completed_after_sigterm_is_published() {
    if !can_mount() {
        return;
    }
    let (_home, mut daemon, dir, database) = in_front();
    let mut file = File::create(dir.join("doc")).unwrap();
    file.write_all(b"{\"a\":").unwrap();
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().unwrap().success());
    wait_for(PATIENCE, || !fs::read_to_string("/proc/mounts").unwrap().contains(dir.to_str().unwrap()));
    file.write_all(b"1}").unwrap();
    assert_eq!(close(file), 0);
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert_eq!(stored(&database, "doc").unwrap(), b"{\"a\":1}");
}

#[test]
fn rule_12_sigterm_publishes_what_was_written_past_a_name() {
    if !can_mount() {
        return;
    }
    let (_home, mut daemon, dir, database) = in_front();
    fs::write(dir.join("doc"), "[1]").unwrap();
    let reader = File::open(dir.join("doc")).unwrap();
    let by_number = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let mut file = OpenOptions::new().write(true).truncate(true).open(by_number).unwrap();
    file.write_all(b"[2]").unwrap();
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().unwrap().success());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    drop(file);
    assert_eq!(stored(&database, "doc").unwrap(), b"[2]");
}

/// While a temporary file that came of age is on its way to the store.
#[test]
fn rule_7_a_temporary_file_removed_during_its_promotion_leaves_no_key() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let name = mount.path("tmpabcd1234");
    let mut file = File::options().write(true).create_new(true).open(&name).unwrap();
    file.write_all(b"[1]").unwrap();
    assert_eq!(close(file), 0);
    let other = rusqlite::Connection::open(mount.home.path().join("kv.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    wait_for(PATIENCE, || mount.calls("set_key_value") == 1);
    let removal = std::thread::spawn(move || fs::remove_file(name));
    std::thread::sleep(Duration::from_millis(300));
    other.execute_batch("ROLLBACK").unwrap();
    removal.join().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(stored(&mount.home.path().join("kv.db"), "tmpabcd1234"), None);
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 0);
}
