//! The messages about a place or a machine on which nothing can be mounted, with advice.

use std::fs;
use std::os::unix::fs::symlink;

use super::user;
use super::{kill, said, start};
use crate::common::{Mount, can_mount, stop};
use tempfile::TempDir;

#[test]
fn a_place_that_cannot_be_used_is_named_with_what_to_do() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let refused = |place: &str, says: &str| {
        let (text, code) =
            said(&start(&home, "memory:", &home.path().join(place)).wait_with_output().unwrap());
        assert!(text.contains(says) && text.lines().count() == 1 && code == 3, "{place}: {code} {text}");
    };
    symlink("nowhere", home.path().join("dangling")).unwrap();
    refused("dangling", "dangling is a link to nowhere, which is not there; make that directory");
    fs::write(home.path().join("file"), "").unwrap();
    refused("file", "file is not a directory");
    refused("file/below", "Not a directory");
    refused(
        "/proc/x",
        "cannot create /proc/x: No such file or directory (os error 2); name a directory that is there",
    );
    let mount = Mount::memory(&[]);
    let inside = mount.dir.join("x");
    let hint = format!("it lies in the kvfs mount at {}; name a directory outside", mount.dir.display());
    refused(inside.to_str().unwrap(), &hint);
    refused(mount.dir.to_str().unwrap(), "is mounted already; see `kvfs status`, or `umount ");
    stop(mount.pid);
    let _cont = Continued(mount.pid);
    refused(
        mount.dir.to_str().unwrap(),
        "is mounted already and does not answer, for its kvfs is stopped; continue it with `kill -CONT ",
    );
}

/// A stopped process that goes on when this is dropped: before its mount is ended, also where an assertion fails.
struct Continued(i32);

impl Drop for Continued {
    fn drop(&mut self) {
        kill("-CONT", self.0);
    }
}

#[test]
fn what_an_ordinary_user_may_not_do_is_said() {
    if !can_mount() {
        return;
    }
    let code = "kvfs memory: mnt 2>&1; echo $?";
    for (before, script, says) in [
        ("chmod 600 /dev/fuse", code, "/dev/fuse may not be opened by this user"),
        ("mount --bind /dev/null /usr/bin/fusermount3", code, "fusermount3"),
        (
            "",
            "setpriv --no-new-privs kvfs memory: mnt 2>&1; echo $?",
            "(no_new_privs), which fusermount3 needs",
        ),
        ("", "kvfs memory: mnt -o allow_other 2>&1; echo $?", "user_allow_other"),
    ] {
        let said = user::says(before, script);
        let lines: Vec<&str> = said.lines().collect();
        assert!(said.starts_with("kvfs: cannot mount on /") && said.contains(says), "{script}: {said}");
        assert_eq!(lines[1..], ["5"], "{said}");
    }
    for (before, script, says) in [
        ("mkdir mnt", code, "belongs to user 0; mount on a directory of your own"),
        ("mkdir -m 1777 mnt", code, "belongs to user 0"),
        ("mkdir -m 700 mnt mnt/x", "kvfs memory: mnt/x 2>&1; echo $?", "this user may not go there"),
        ("kvfs memory: mnt", code, "is mounted already by another user"),
    ] {
        let said = user::says(before, script);
        let lines: Vec<&str> = said.lines().collect();
        assert!(said.contains(says) && lines[1..] == ["3"], "{before}: {said}");
    }
}

#[test]
fn without_fusermount3_it_is_named() {
    if !can_mount() {
        return;
    }
    let before = "cp -a /usr/bin \"$T/bin\"; rm \"$T\"/bin/fusermount*; mount --bind \"$T/bin\" /usr/bin";
    let said = user::says(before, "kvfs memory: mnt 2>&1; echo $?");
    assert!(
        said.contains("there is no fusermount3 to do it; install fuse3, or be root")
            && said.ends_with("\n5\n"),
        "{said}"
    );
}

#[test]
fn an_owner_that_no_user_namespace_knows_is_refused() {
    if !can_mount() {
        return;
    }
    let out = std::process::Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            crate::common::KVFS,
            "memory:",
            "/tmp/x",
            "--uid",
            "12345",
        ])
        .output()
        .unwrap();
    let (text, code) = said(&out);
    assert!(
        text.contains("--uid 12345: there is no such id in this user namespace") && code == 2,
        "{code} {text}"
    );
}
