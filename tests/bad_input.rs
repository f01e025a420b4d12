//! Hostile and unlucky input: each gets its errno, the daemon stays up, and nothing stored changes.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::common;
use common::{Elsewhere, Mount, can_mount, close, errno, unmount};

#[test]
fn texts_that_are_no_documents_are_refused_and_the_old_value_stays() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
    for text in
        [&b"{\"a\":1,\"a\":2}"[..], b"1e999", b"\"\\ud83d\\ude00\"", &nested(127), &nested(128), b" 1\r\n"]
    {
        fs::write(mount.path("doc"), text).unwrap();
        assert_eq!(fs::read(mount.path("doc")).unwrap(), text);
    }
    fs::write(mount.path("doc"), "[\"old\"]").unwrap();
    for text in [
        &b"NaN"[..],
        b"-Infinity",
        b"\"\xff\"",
        b"\xef\xbb\xbf1",
        b"\"\\ud800\"",
        b"\0",
        b"{'a':1}",
        b"1 2",
        &nested(129),
        &b"[".repeat(1_000_000),
        &[b"\"".to_vec(), b"9".repeat(20_000), b"\"".to_vec()].concat(),
    ] {
        let file = OpenOptions::new().write(true).truncate(true).open(mount.path("doc")).unwrap();
        let written = errno((&file).write_all(text));
        let wanted = if text.len() > 10_000 { libc::EFBIG } else { libc::EINVAL };
        assert_eq!(written, wanted, "{:?}", String::from_utf8_lossy(&text[..text.len().min(20)]));
        assert_eq!(close(file), wanted);
        assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "[\"old\"]");
    }
    assert_eq!(Elsewhere::of(&mount).get("doc").as_deref(), Some("[\"old\"]"));
}

#[test]
fn ten_thousand_open_files_are_served() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    for number in 0..100 {
        fs::write(mount.path(format!("k{number}")), number.to_string()).unwrap();
    }
    let script = "import os, resource\n\
        resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))\n\
        fds = [os.open('k%d' % (n % 100), os.O_RDONLY) for n in range(9000)]\n\
        fds += [os.open('k%d' % (n % 100), os.O_RDWR) for n in range(1000)]\n\
        assert all(int(os.pread(fd, 9, 0)) == n % 100 for n, fd in enumerate(fds))\n\
        print(len(fds))";
    let out = Command::new("python3").args(["-c", script]).current_dir(&mount.dir).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "10000\n", "{out:?}");
    assert_eq!(mount.calls("set_key_value"), 100);
}

#[test]
fn a_full_disk_is_enospc_and_over_when_there_is_room_again() {
    if !can_mount() {
        return;
    }
    // A small filesystem for the database, in a mount namespace of its own.
    let home = tempfile::TempDir::new().unwrap();
    let script = format!(
        "set -e; mkdir disk; mount -t tmpfs -o size=2m none disk; {kvfs} sqlite:$PWD/disk/kv.db mnt; cd mnt
         for n in $(seq 400); do (printf '\"%09000d\"' $n > key$n) 2>/dev/null || true; done
         python3 -c \"
import os
try:
    fd = os.open('more', os.O_CREAT | os.O_WRONLY); os.write(fd, b'[1]' + b' ' * 9000); os.close(fd); print('room')
except OSError as e: print(e.errno)
\"
         for n in $(seq 20); do test \"$(cat key$n)\" = \"$(printf '\"%09000d\"' $n)\" || echo lost $n; done
         ls | wc -l > ../count; echo reads; cd ..; umount mnt; umount -l disk",
        kvfs = common::KVFS
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", &script]).current_dir(home.path());
    command.env("HOME", home.path()).env("XDG_STATE_HOME", home.path().join("state"));
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{out:?}");
    assert!(text.contains("28\n") && text.ends_with("reads\n") && !text.contains("lost"), "{out:?}");
}

#[test]
fn a_corrupt_database_never_gives_a_wrong_value_and_never_ends_the_daemon() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let value = |number: usize| format!("[{number},\"{}\"]", "x".repeat(3000));
    for number in 0..200 {
        fs::write(mount.path(format!("k{number}")), value(number)).unwrap();
    }
    let home = mount.unmount();
    let database = home.path().join("kv.db");
    let file = OpenOptions::new().read(true).write(true).open(&database).unwrap();
    let size = file.metadata().unwrap().len();
    for page in (5..size / 4096).step_by(7) {
        file.write_all_at(&[0x5a; 64], page * 4096 + 1).unwrap();
    }
    drop(file);
    let store = format!("sqlite:{}", database.display());
    let out = Mount::command(&home).arg(&store).arg(home.path().join("mnt")).output().unwrap();
    if !out.status.success() {
        assert_eq!(out.status.code(), Some(4), "{out:?}");
        return;
    }
    unmount(&home.path().join("mnt"));
    let mount = Mount::start_in(home, &store, &[]);
    let mut failed = 0;
    for number in 0..200 {
        match fs::read_to_string(mount.path(format!("k{number}"))) {
            Ok(text) => assert!(text == value(number) || text.contains('Z'), "{number}: {text:.40}"),
            Err(error) => {
                assert!(matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOENT)), "{number}: {error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0, "the damage was not seen");
    assert_eq!(mount.status()["pid"].as_i64(), Some(i64::from(mount.pid)));
}

#[test]
fn a_database_on_read_only_media_is_read_and_refuses_writes() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("doc"), "[1]").unwrap();
    let home = mount.unmount();
    fs::create_dir(home.path().join("ro")).unwrap();
    let script = format!(
        "set -e; mount --bind . ro; mount -o remount,bind,ro ro; {kvfs} sqlite:$PWD/ro/kv.db mnt
         cat mnt/doc; echo 2 > mnt/doc && sync mnt/doc || true
         python3 -c \"
import os
try: os.open('mnt/doc', os.O_WRONLY | os.O_TRUNC); print('opened')
except OSError as e: print(e.errno)
\"
         cat mnt/doc; umount mnt; umount ro",
        kvfs = common::KVFS
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c", &script]).current_dir(home.path()).env("HOME", home.path());
    let out = command.env("XDG_STATE_HOME", home.path().join("state")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "[1]30\n[1]", "{out:?}");
}

#[test]
fn names_that_look_dangerous_are_harmless() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    for name in ["-rf", "$(reboot)", "a;b", "*", "\u{202e}gnp", "'", "\"", "\\", "%s%n", " "] {
        fs::write(mount.path(name), "1").unwrap();
        assert_eq!(fs::read_to_string(mount.path(name)).unwrap(), "1", "{name}");
        assert_eq!(Elsewhere::of(&mount).get(name).as_deref(), Some("1"));
        fs::remove_file(mount.path(name)).unwrap();
    }
    let raw = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    assert_eq!(errno(File::create(mount.path(raw))), libc::EINVAL);
    assert_eq!(errno(File::open(mount.path(raw))), libc::ENOENT);
}
