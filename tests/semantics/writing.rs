//! Rules 4 to 6: what a writer may do.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use crate::common::{Elsewhere, Mount, PATIENCE, can_mount, close, errno, wait_for};

#[test]
fn rule_04_a_flush_publishes_documents_and_only_the_opener_hears_of_fragments() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    // Each child flushes its inherited copy in mid-document.
    let out = mount.sh("( printf '{\"a\":'; /bin/true; printf '[1,'; /bin/echo '2]}' ) > doc");
    assert!(out.status.success(), "{out:?}");
    assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "{\"a\":[1,2]}\n");
    assert_eq!(mount.calls("set_key_value"), 1);
    let mut file = File::create(mount.path("doc")).unwrap();
    file.write_all(b"{\"a\":").unwrap();
    assert_eq!(errno(file.sync_all()), libc::EINVAL);
    assert_eq!(close(file), libc::EINVAL);
    assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "{\"a\":[1,2]}\n");
    for script in ["echo bad > doc", "echo '{} {}' > doc", "printf '1x' >> doc", "printf '\\377' > doc"] {
        let out = mount.sh(script);
        assert!(!out.status.success() && !out.stderr.is_empty(), "{script}: {out:?}");
        assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "{\"a\":[1,2]}\n", "{script}");
    }
    for script in [
        ": > doc",
        "cat doc >/dev/null",
        "chmod 600 doc",
        "touch -d yesterday doc",
        "touch doc",
        "exec 9>>doc",
    ] {
        assert!(mount.sh(script).status.success(), "{script}");
    }
    for script in ["truncate -s 0 doc", "cp /dev/null doc", "truncate -s 3 doc"] {
        let out = mount.sh(script);
        assert!(!out.status.success(), "{script}: {out:?}");
    }
    assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "{\"a\":[1,2]}\n");
    assert_eq!(mount.calls("set_key_value"), 1);
    // A shell does not look at what close says; sync asks again.
    assert!(mount.sh("printf '[1' > doc").status.success());
    assert!(!mount.sh("sync doc").status.success());
    assert!(mount.sh("printf '[1]' > doc && sync doc").status.success());
}

#[test]
fn rule_04_a_handle_stays_failed_after_a_failed_write() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("doc"), "0").unwrap();
    let mut file = File::create(mount.path("doc")).unwrap();
    file.write_all(b"[1]").unwrap();
    assert_eq!(errno(file.write_all(&[b' '; 10_000])), libc::EFBIG);
    assert_eq!(errno(file.write_all(b" ")), libc::EFBIG);
    assert_eq!(close(file), libc::EFBIG);
    // The document before it stays.
    assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "[1]");
    let raw = Mount::sqlite(&["--validate", "none"]);
    fs::write(raw.path("bytes"), b"\xff\0").unwrap();
    fs::write(raw.path("nothing"), b"").unwrap();
    File::create(raw.path("bytes")).unwrap();
    wait_for(PATIENCE, || Elsewhere::of(&raw).get("nothing").as_deref() == Some(""));
    assert_eq!(fs::read(raw.path("bytes")).unwrap(), b"");
}

#[test]
fn rule_05_the_limit_is_10_000_bytes_and_a_final_newline() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let text = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
    for size in [9_999, 10_000] {
        fs::write(mount.path("doc"), text(size)).unwrap();
        fs::write(mount.path("doc"), text(size) + "\n").unwrap();
        assert_eq!(fs::metadata(mount.path("doc")).unwrap().len(), size as u64 + 1);
    }
    let before = fs::read(mount.path("doc")).unwrap();
    assert_eq!(errno(fs::write(mount.path("doc"), text(10_001))), libc::EFBIG);
    let file = OpenOptions::new().write(true).open(mount.path("doc")).unwrap();
    assert_eq!(errno(file.write_at(b"12", 10_000)), libc::EFBIG);
    let file = OpenOptions::new().write(true).open(mount.path("doc")).unwrap();
    assert_eq!(errno(file.set_len(10_002)), libc::EFBIG);
    let out = mount.sh("dd if=/dev/zero of=doc bs=1M count=1024");
    assert!(String::from_utf8_lossy(&out.stderr).contains("File too large"), "{out:?}");
    let out = mount.sh("fallocate -l 20000 doc");
    assert!(String::from_utf8_lossy(&out.stderr).contains("File too large"), "{out:?}");
    assert_eq!(fs::read(mount.path("doc")).unwrap(), before);
}

#[test]
fn rule_06_files_work_as_on_a_local_disk() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("doc"), "[1]").unwrap();
    OpenOptions::new().append(true).open(mount.path("doc")).unwrap().write_all(b"\n").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(mount.path("doc")).unwrap();
    file.write_all_at(b"2", 1).unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(mount.path("doc")).unwrap(), "[2]\n");
    assert_eq!(errno(OpenOptions::new().write(true).create_new(true).open(mount.path("doc"))), libc::EEXIST);
    let reader = File::open(mount.path("doc")).unwrap();
    fs::remove_file(mount.path("doc")).unwrap();
    assert_eq!(reader.metadata().unwrap().nlink(), 0);
    assert_eq!(std::io::read_to_string(reader).unwrap(), "[2]\n");
    for (script, message) in [
        ("mkdir d", "Operation not permitted"),
        ("ln -s a b", "Operation not permitted"),
        ("mkfifo p", "Operation not permitted"),
        ("echo 1 > k; ln k l", "Operation not permitted"),
    ] {
        assert!(String::from_utf8_lossy(&mount.sh(script).stderr).contains(message), "{script}");
    }
    let sets = mount.calls("set_key_value");
    let out = mount.sh("echo '[3]' > new.x; mv -n new.x k; mv new.x k; cat k");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "[3]\n");
    assert_eq!(mount.calls("set_key_value"), sets + 1);
    assert_eq!(mount.calls("rename_key"), 1);
}

#[test]
fn rule_06_locks_hold_across_versions_of_a_key() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("count"), "0").unwrap();
    let script = "for i in $(seq 10); do flock count sh -c 'n=$(cat count); echo $((n+1)) > count'; done";
    let children: Vec<_> = (0..4)
        .map(|_| Command::new("sh").args(["-c", script]).current_dir(&mount.dir).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fs::read_to_string(mount.path("count")).unwrap(), "40\n");
    let out = mount.sh("flock count sh -c 'flock -n count true || echo busy'; flock -n count echo free");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "busy\nfree\n");
    // Who waits for a lock can be interrupted.
    let out = mount.sh("flock count sh -c 'timeout 0.3 flock count true; echo $?'");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "124\n");
}
