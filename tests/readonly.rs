//! Mounts of a database that cannot be written: read-only, with a word of why.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{KVFS, Mount, can_mount};

/// A directory that everybody may enter, with a closed database that has the key `doc` in its directory `db`.
fn home() -> tempfile::TempDir {
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("doc"), "[1]").unwrap();
    let home = mount.unmount();
    let script = "mkdir db; mv kv.db* db; chmod 755 . db; chmod 644 db/*; mkdir -m 777 at";
    assert!(sh(home.path(), script).status.success());
    home
}

fn sh(directory: &Path, script: &str) -> Output {
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", script]).current_dir(directory);
    command.env("HOME", "/nowhere").env("XDG_STATE_HOME", directory.join("at/state")).env("K", KVFS);
    command.output().unwrap()
}

/// Mounts `database` as the user nobody, tries to write, and unmounts: what was said at the start, and what came of it.
fn used_by_nobody(home: &Path, database: &str, flags: &str) -> (String, String) {
    let script = format!(
        "set -e; mkdir fuse at/mnt; mount -t tmpfs -o dev none fuse; mknod -m 666 fuse/fuse c 10 229
         mount --bind fuse/fuse /dev/fuse; chown nobody at/mnt; D=$PWD
         as_nobody() {{ setpriv --reuid=nobody --regid=nogroup --clear-groups -- \"$@\"; }}
         as_nobody bash -c '\"$K\" {flags} sqlite:{database} at/mnt' >&2
         as_nobody bash -c '
             cat at/mnt/doc; (echo 2 > at/mnt/doc) 2>&1; (echo 3 > at/mnt/new) 2>&1; (rm at/mnt/doc) 2>&1; ls at/mnt
             grep $PWD/at/mnt /proc/mounts | cut -d\" \" -f 4 | cut -c 1-3; fusermount3 -u at/mnt'"
    );
    let out = sh(home, &script);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(out.status.success(), "{out:?}");
    (text(out.stderr), text(out.stdout))
}

fn refused(told: &str) {
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains("Read-only file system")).count(), 3, "{told}");
    assert!(told.starts_with("[1]") && told.ends_with("doc\nro,\n"), "{told}");
}

#[test]
fn a_database_of_another_user_is_mounted_read_only_and_that_is_said() {
    if !can_mount() {
        return;
    }
    let home = home();
    let (said, told) = used_by_nobody(home.path(), "db/kv.db", "-q");
    refused(&told);
    let database = home.path().join("db/kv.db");
    let wanted = format!(
        "kvfs: {} belongs to root and cannot be written by nobody: mounted read-only\n",
        database.display()
    );
    assert_eq!(said, wanted);
}

#[test]
fn who_asks_for_a_read_only_mount_is_told_nothing() {
    if !can_mount() {
        return;
    }
    let home = home();
    let (said, told) = used_by_nobody(home.path(), "db/kv.db", "-q -r");
    refused(&told);
    assert_eq!(said, "");
}

#[test]
fn a_directory_in_which_no_log_can_be_made_is_named() {
    if !can_mount() {
        return;
    }
    let home = home();
    assert!(sh(home.path(), "chown nobody db/*").status.success());
    let (said, told) = used_by_nobody(home.path(), "db/kv.db", "-q");
    refused(&told);
    let wanted = format!(
        "kvfs: the directory {} belongs to root and cannot be written by nobody: mounted read-only\n",
        home.path().join("db").display()
    );
    assert_eq!(said, wanted);
}

#[test]
fn a_database_that_its_owner_has_protected_is_mounted_read_only() {
    if !can_mount() {
        return;
    }
    let home = home();
    assert!(sh(home.path(), "chown -R nobody db; chmod 444 db/kv.db").status.success());
    let (said, told) = used_by_nobody(home.path(), "db/kv.db", "-q");
    refused(&told);
    assert!(said.contains("db/kv.db has the mode 0444 and cannot be written by nobody"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn only_what_is_on_read_only_media_is_said_to_be() {
    if !can_mount() {
        return;
    }
    let home = home();
    let script = "set -e; mount --bind db db; mount -o remount,bind,ro db; $K -q sqlite:db/kv.db mnt >&2
         cat mnt/doc; (echo 2 > mnt/doc) 2>&1 || true; grep $PWD/mnt /proc/mounts | cut -d' ' -f 4 | cut -c 1-3; umount mnt";
    let out = sh(home.path(), script);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (said, told) = (text(out.stderr), text(out.stdout));
    assert!(
        told.starts_with("[1]") && told.contains("Read-only file system") && told.ends_with("ro,\n"),
        "{told}"
    );
    let database = home.path().join("db/kv.db");
    assert_eq!(said, format!("kvfs: {} is on read-only media: mounted read-only\n", database.display()));
}
