//! Rule 10: a change of one's own is no conflict.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{Mount, can_mount, close, wait_for};

/// What one process does to a file that it has open, by its name or another descriptor, and what becomes of that.
const CHANGES: &str = r#"
import os, sys
path, new = sys.argv[1:]

def emptied_by_open():
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))

def emptied_by_a_descriptor():
    with open(path, 'rb+') as other: other.truncate(0)

def emptied_by_name():
    os.truncate(path, 0)

def set_by_name_and_emptied():
    with open(path, 'w') as other: other.write(new)
    os.truncate(path, 0)

for change in emptied_by_open, emptied_by_a_descriptor, emptied_by_name, set_by_name_and_emptied:
    with open(path, 'w') as file: file.write('"old value"\n')
    with open(path, 'rb+') as file:
        change()
        same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        file.write(new.encode())
        file.flush()
        os.fsync(file.fileno())
        assert same and open(path).read() == new, (change, same, open(path).read())
    assert open(path).read() == new, change
with open(path, 'ab') as one, open(path, 'ab') as other:
    for file in one, other:
        file.write(b' \n')
        file.flush()
assert open(path).read() == new + ' \n \n'
"#;

#[test]
fn rule_10_what_one_process_does_to_a_file_is_no_conflict() {
    if !can_mount() {
        return;
    }
    for (validate, new) in [("json", "\"new\""), ("none", "new")] {
        let mount = Mount::memory(&["--validate", validate]);
        fs::write(mount.path("k"), "1").unwrap();
        let script = "set -e; python3 -c \"$1\" mnt/k \"$2\"
            touch bound; mount --bind mnt/k bound; python3 -c \"$1\" bound \"$2\"; umount bound";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh", CHANGES, new]).current_dir(mount.home.path());
        let out = command.output().unwrap();
        assert!(out.status.success(), "{validate}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn rule_10_what_another_process_cuts_by_name_is_changed_by_somebody_else() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    fs::write(mount.path("k"), "[1]\n").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(mount.path("k")).unwrap();
    assert!(mount.sh("truncate -s 3 k").status.success());
    file.write_all_at(b"[2]", 0).unwrap();
    assert_eq!(close(file), libc::ESTALE);
    assert_eq!(fs::read_to_string(mount.path("k")).unwrap(), "[1]");
}

#[test]
fn rule_10_threads_that_overwrite_a_file_never_mix_their_texts() {
    const TEXTS: [&str; 3] = ["12345", "99", "7777777"];
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let path = mount.path("k");
    fs::write(&path, TEXTS[0]).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&path).unwrap();
                assert!(TEXTS.contains(&text.as_str()), "{text:?}");
            }
        });
        let writers = TEXTS.map(|text| {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..200 {
                    let mut file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
                    file.write_all(text.as_bytes()).unwrap();
                    assert_eq!(close(file), 0);
                }
            })
        });
        let ended = writers.map(|writer| writer.join().is_ok());
        over.store(true, Ordering::Relaxed);
        assert!(reader.join().is_ok() && ended == [true; 3]);
    });
}

#[test]
fn rule_10_of_an_empty_new_file_nothing_removed_comes_back() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    fs::write(mount.path("k"), "1").unwrap();
    fs::remove_file(mount.path("k")).unwrap();
    let mut file = OpenOptions::new().write(true).create_new(true).open(mount.path("k")).unwrap();
    file.write_all(b"[").unwrap();
    file.set_len(0).unwrap();
    assert_eq!(close(file), 0);
    wait_for(crate::common::PATIENCE, || mount.messages("RELEASE") > 1);
    assert_eq!(fs::read_to_string(mount.path("k")).unwrap(), "");
}
