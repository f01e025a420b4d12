//! Signals other than those that end a mount.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{PATIENCE, kill, mounts_at};
use crate::common::{Elsewhere, KVFS, Mount, can_mount, is_running, wait_for};
use tempfile::TempDir;

#[test]
fn sighup_asks_for_everything_anew_and_unmounts_nothing() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("db"), "1").unwrap();
    assert_eq!(mount.text("db").as_deref(), Some("1"));
    let asked = mount.calls("get_key_value");
    assert_eq!(mount.text("db").as_deref(), Some("1"));
    assert_eq!(mount.calls("get_key_value"), asked);
    kill("-HUP", mount.pid);
    wait_for(PATIENCE, || {
        assert_eq!(mount.text("db").as_deref(), Some("1"));
        mount.calls("get_key_value") > asked
    });
    assert_eq!(mount.status()["freshness"], "pushed");
    // Changes of others are reported as before.
    Elsewhere::of(&mount).set("db", "2");
    wait_for(PATIENCE, || mount.text("db").as_deref() == Some("2"));
}

#[test]
fn sighup_leaves_answers_to_age_where_the_store_does_not_push() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let before = mount.status()["freshness"].clone();
    kill("-HUP", mount.pid);
    wait_for(PATIENCE, || log_of(&mount.home).contains("SIGHUP"));
    assert_eq!(mount.status()["freshness"], before);
}

fn log_of(home: &TempDir) -> String {
    fs::read_to_string(home.path().join("state/kvfs/kvfs.log")).unwrap_or_default()
}

#[test]
fn sighup_opens_the_log_file_anew() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let log = mount.home.path().join("state/kvfs/kvfs.log");
    wait_for(PATIENCE, || log_of(&mount.home).contains("mounted by kvfs"));
    fs::rename(&log, log.with_extension("1")).unwrap();
    kill("-HUP", mount.pid);
    wait_for(PATIENCE, || log_of(&mount.home).contains("SIGHUP"));
    assert_eq!(fs::read_link(format!("/proc/{}/fd/2", mount.pid)).unwrap(), log);
}

#[test]
fn user_signals_do_nothing() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    kill("-USR1", mount.pid);
    kill("-USR2", mount.pid);
    fs::write(mount.path("db"), "1").unwrap();
    assert!(is_running(mount.pid) && mounts_at(&mount.dir) == 1);
}

/// A mount in front, in a terminal of its own.
fn in_a_terminal(dir: &Path, home: &TempDir) -> std::process::Child {
    Command::new("script")
        .args(["-qc", &format!("exec {KVFS} -f memory: {}", dir.display()), "/dev/null"])
        .env("XDG_STATE_HOME", home.path().join("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn in_front_a_mount_ends_with_its_terminal() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let dir = home.path().join("mnt");
    let mut terminal = in_a_terminal(&dir, &home);
    wait_for(PATIENCE, || mounts_at(&dir) == 1);
    let pid = i32::try_from(crate::common::status_of(&dir)["pid"].as_i64().unwrap()).unwrap();
    kill("-HUP", pid);
    fs::write(dir.join("db"), "1").unwrap();
    assert!(mounts_at(&dir) == 1 && is_running(pid));
    // The terminal is gone with the process that has its other end.
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    wait_for(PATIENCE, || mounts_at(&dir) == 0 && !is_running(pid));
}

#[test]
fn an_auto_unmount_leaves_no_dead_mount() {
    if !can_mount() {
        return;
    }
    for (args, left) in [(&[][..], 1), (&["-o", "auto_unmount"][..], 0)] {
        let mount = Mount::memory(args);
        let guard = || super::guard_of(&mount.dir);
        wait_for(PATIENCE, || guard().is_some());
        kill("-9", mount.pid);
        wait_for(PATIENCE, || guard().is_none());
        assert_eq!(mounts_at(&mount.dir), left, "{args:?}");
    }
}

#[test]
fn a_remount_changes_whether_it_is_read_only() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let remount = |dir: &Path, options: &str| {
        let out =
            Command::new(KVFS).args(["memory:", dir.to_str().unwrap(), "-o", options]).output().unwrap();
        (String::from_utf8_lossy(&out.stderr).into_owned(), out.status.code().unwrap())
    };
    let mount = Mount::memory(&[]);
    fs::write(mount.path("db"), "1").unwrap();
    assert_eq!(remount(&mount.dir, "remount,ro").1, 0);
    assert_eq!(crate::common::errno(fs::write(mount.path("db"), "2")), libc::EROFS);
    assert_eq!(mount.text("db").as_deref(), Some("1"));
    assert_eq!(remount(&mount.dir, "remount,rw").1, 0);
    fs::write(mount.path("db"), "3").unwrap();
    let reads = Mount::memory(&["-o", "ro"]);
    let (text, code) = remount(&reads.dir, "rw,remount");
    assert!(text.contains("was mounted to be read only") && code == 3, "{code} {text}");
    let (text, code) = remount(home.path(), "remount,ro");
    assert!(text.contains("is no mount of kvfs") && code == 3, "{code} {text}");
}

#[test]
fn the_words_of_fstab_are_taken() {
    if !can_mount() {
        return;
    }
    let words = "sync,dirsync,nodiratime,lazytime,strictatime,nosymfollow,subtype=kvfs,fsname=a b#c,allow_root,umask=0";
    let mount = Mount::memory(&["-o", words]);
    let table = fs::read_to_string("/proc/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(mount.dir.to_str().unwrap())).unwrap();
    assert!(line.starts_with("a\\040b\\043c ") && line.contains(" fuse.kvfs "), "{line}");
    fs::write(mount.path("db"), "1").unwrap();
    let other = "setpriv --reuid=65534 --regid=65534 --clear-groups cat db";
    assert!(!mount.sh(other).status.success() && mount.sh("cat db").status.success());
}

#[test]
fn mount_8_takes_the_type_kvfs() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join("mnt")).unwrap();
    // mount(8) looks for the helper of a type in /sbin.
    let script = "set -e; T=$PWD/sbin; mkdir $T; mount -t tmpfs tmpfs $T; mkdir $T/sbin; ln -s \"$KVFS\" $T/sbin/mount.kvfs
        ln -s \"$KVFS\" $T/sbin/mount.fuse.kvfs; mount -t overlay overlay -o lowerdir=$T/sbin:/usr/sbin /usr/sbin
        for type in kvfs fuse.kvfs; do
            mount -t $type -o ro,nofail,max_age=5s memory: mnt
            grep -c \"$PWD/mnt fuse.kvfs ro,\" /proc/mounts; umount mnt
        done
        mount -t kvfs memory: mnt; echo 1 > mnt/db; mount -o remount,ro mnt
        echo 2 2>/dev/null > mnt/db || echo refused; cat mnt/db; umount mnt";
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .current_dir(home.path())
        .env("KVFS", KVFS)
        .env("KVFS_QUIET", "1")
        .env("XDG_STATE_HOME", home.path().join("state"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(text, "1\n1\nrefused\n1\n", "{out:?}");
}
