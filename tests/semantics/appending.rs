//! Rule 10: appends of several writers are merged; and rule 6, which write is one.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Child, Command};

use crate::common::{Elsewhere, Mount, can_mount, close, errno};

fn appender(mount: &Mount, name: &str) -> File {
    OpenOptions::new().read(true).append(true).create(true).open(mount.path(name)).unwrap()
}

/// Shells that each append fifty lines to `f`.
fn shells(mount: &Mount, names: &[&str]) -> Vec<Child> {
    let script = "for n in $(seq 50); do echo \"$0 $n\" >> f; done";
    let shell =
        |name| Command::new("bash").args(["-c", script, name]).current_dir(&mount.dir).spawn().unwrap();
    names.iter().map(|name| shell(*name)).collect()
}

/// The number of different lines once they are done.
fn lines_of(shells: Vec<Child>, mount: &Mount) -> usize {
    for mut shell in shells {
        assert!(shell.wait().unwrap().success());
    }
    let text = mount.text("f").unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    lines.len()
}

#[test]
fn rule_10_what_several_append_at_once_is_all_there() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--validate", "none"]);
    let shells = shells(&mount, &["a", "b", "c", "d"]);
    assert_eq!(lines_of(shells, &mount), 200);
}

#[test]
fn rule_10_what_is_appended_on_two_mounts_at_once_is_all_there() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--validate", "none"]);
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let other = Mount::start_in(tempfile::TempDir::new().unwrap(), &store, &["--validate", "none"]);
    let mut all = shells(&mount, &["a", "b"]);
    all.extend(shells(&other, &["c", "d"]));
    assert_eq!(lines_of(all, &mount), 200);
}

#[test]
fn rule_10_an_append_goes_to_what_another_client_has_set_meanwhile() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--validate", "none"]);
    let elsewhere = Elsewhere::of(&mount);
    fs::write(mount.path("f"), "old\n").unwrap();
    let mut file = appender(&mount, "f");
    file.write_all(b"1\n").unwrap();
    elsewhere.set("f", "a longer one\n");
    file.write_all(b"2\n").unwrap();
    file.sync_all().unwrap();
    assert_eq!(elsewhere.get("f").as_deref(), Some("a longer one\n1\n2\n"));
    // The descriptor shows the version that was there when it was opened, and what was written through it.
    let mut shown = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut shown).unwrap();
    assert_eq!((shown.as_str(), file.metadata().unwrap().len()), ("old\n1\n2\n", 8));
    file.write_all(b"3\n").unwrap();
    assert_eq!(close(file), 0);
    let merged = "a longer one\n1\n2\n3\n";
    assert_eq!((elsewhere.get("f").as_deref(), mount.text("f").as_deref()), (Some(merged), Some(merged)));
    assert_eq!(fs::metadata(mount.path("f")).unwrap().len(), merged.len() as u64);
    // White space is a value, too.
    let mut file = appender(&mount, "f");
    file.write_all(b"4\n").unwrap();
    file.sync_all().unwrap();
    elsewhere.set("f", "x");
    file.write_all(b"\n").unwrap();
    assert_eq!((close(file), mount.text("f").as_deref()), (0, Some("x\n")));
}

#[test]
fn rule_10_what_was_not_only_appended_is_stale() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--validate", "none"]);
    let elsewhere = Elsewhere::of(&mount);
    fs::write(mount.path("f"), "old\n").unwrap();
    let mut file = OpenOptions::new().write(true).open(mount.path("f")).unwrap();
    file.write_all(b"A").unwrap();
    elsewhere.set("f", "other\n");
    assert_eq!((close(file), elsewhere.get("f").as_deref()), (libc::ESTALE, Some("other\n")));
    let mut file = appender(&mount, "f");
    file.set_len(2).unwrap();
    file.write_all(b"A").unwrap();
    elsewhere.set("f", "third\n");
    assert_eq!((close(file), elsewhere.get("f").as_deref()), (libc::ESTALE, Some("third\n")));
    // There is nothing to append to any more.
    let mut file = appender(&mount, "f");
    file.write_all(b"A").unwrap();
    elsewhere.delete("f");
    assert_eq!((close(file), elsewhere.get("f")), (libc::ESTALE, None));
}

#[test]
fn rule_10_what_an_append_gives_is_a_value_or_refused() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    fs::write(mount.path("k"), "[1]").unwrap();
    let mut file = appender(&mount, "k");
    file.write_all(b"\n").unwrap();
    elsewhere.set("k", "[2]");
    assert_eq!((close(file), elsewhere.get("k").as_deref()), (0, Some("[2]\n")));
    assert_eq!(errno(appender(&mount, "k").write_all(b"{}")), libc::EINVAL);
    fs::write(mount.path("k"), "1").unwrap();
    let mut file = appender(&mount, "k");
    file.write_all(b"2").unwrap();
    elsewhere.set("k", "[2]");
    assert_eq!((close(file), elsewhere.get("k").as_deref()), (libc::ESTALE, Some("[2]")));
    // Who is first makes the file, and what another one began with nothing is no document after that.
    let mut file = appender(&mount, "new");
    elsewhere.set("new", "[1]");
    assert_eq!(errno(file.write_all(b"[2]\n")), libc::ESTALE);
    assert_eq!(elsewhere.get("new").as_deref(), Some("[1]"));
    let large = format!("\"{}\"", "x".repeat(9_998));
    let mut file = appender(&mount, "k");
    file.write_all(b"  ").unwrap();
    elsewhere.set("k", &large);
    assert_eq!((close(file), elsewhere.get("k")), (libc::EFBIG, Some(large)));
}

#[test]
fn rule_10_a_lock_shows_an_appender_what_others_have_set() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--validate", "none"]);
    let elsewhere = Elsewhere::of(&mount);
    fs::write(mount.path("f"), "old\n").unwrap();
    let mut file = appender(&mount, "f");
    file.write_all(b"1\n").unwrap();
    elsewhere.set("f", "a longer one\n");
    file.sync_all().unwrap();
    file.lock().unwrap();
    let mut shown = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut shown).unwrap();
    assert_eq!(shown, "a longer one\n1\n");
    file.write_all(b"2\n").unwrap();
    file.unlock().unwrap();
    assert_eq!(elsewhere.get("f").as_deref(), Some("a longer one\n1\n2\n"));
    assert_eq!((close(file), mount.text("f").as_deref()), (0, Some("a longer one\n1\n2\n")));
}

#[test]
fn rule_06_whether_a_write_appends_is_as_fcntl_has_set_it() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--validate", "none"]);
    fs::write(mount.path("f"), "12345").unwrap();
    let script = "import fcntl, os
fd = os.open('f', os.O_WRONLY | os.O_APPEND)
os.write(fd, b'6')
fcntl.fcntl(fd, fcntl.F_SETFL, 0)
os.pwrite(fd, b'X', 0)
fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
os.lseek(fd, 0, 0)
os.write(fd, b'7')
os.close(fd)";
    let out = Command::new("python3").args(["-c", script]).current_dir(&mount.dir).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(mount.text("f").as_deref(), Some("X234567"));
}
