//! Rule 4: a failure leaves the old value in place, also for who removes the file before it is made anew.

use std::fs;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::common::{Elsewhere, Mount, PATIENCE, can_mount, close, errno, wait_for};

/// They remove the file before they write it, where it is not on the filesystem of their source.
const PROGRAMS: [&str; 4] = [
    "mv ../source k",
    "install ../source k",
    "cp --remove-destination ../source k",
    "python3 -c 'import os, shutil; os.remove(\"k\"); shutil.move(\"../source\", \"k\")'",
];

/// Too large, refused at its beginning, and refused at its end.
const TEXTS: [&str; 3] = ["large", "{bad", "{\"half\":"];

fn write(source: &Path, text: &str) {
    let large = format!("\"{}\"", "x".repeat(12_000));
    fs::write(source, if text == "large" { &large } else { text }).unwrap();
}

#[test]
fn rule_04_what_a_program_removes_for_a_text_that_is_refused_is_back() {
    if !can_mount() {
        return;
    }
    for mount in [Mount::sqlite(&[]), Mount::memory(&[])] {
        let (key, source) = (mount.path("k"), mount.home.path().join("source"));
        for program in PROGRAMS {
            for text in TEXTS {
                fs::write(&key, "[1]\n").unwrap();
                fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
                write(&source, text);
                let ran = mount.sh(program);
                assert!(!ran.status.success(), "{program}, {text}: {ran:?}");
                assert_eq!(mount.text("k").as_deref(), Some("[1]\n"), "{program}, {text}");
                assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o640, "{program}, {text}");
                assert!(mount.last_error().contains("is back"), "{program}, {text}: {}", mount.last_error());
                assert_eq!(mount.names(), ["k"], "{program}, {text}");
                // It is a file as before.
                fs::write(&key, "[2]\n").unwrap();
                assert_eq!(mount.text("k").as_deref(), Some("[2]\n"), "{program}, {text}");
            }
            write(&source, "[3]\n");
            assert!(mount.sh(program).status.success(), "{program}");
            assert_eq!(mount.text("k").as_deref(), Some("[3]\n"), "{program}");
        }
        let why = mount.sh("getfattr -n user.kvfs.refusals --only-values k");
        let why = String::from_utf8_lossy(&why.stdout).into_owned();
        assert!(!why.contains("the old value stays"), "each is told once: {why}");
    }
}

#[test]
fn rule_04_what_another_process_removed_or_somebody_has_set_since_does_not_come_back() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    let key = mount.path("k");
    let create = || OpenOptions::new().write(true).create(true).truncate(true).open(&key).unwrap();
    fs::write(&key, "1").unwrap();
    let ran = mount.sh("rm k; echo bad > k");
    assert!(!ran.status.success());
    wait_for(PATIENCE, || !key.exists());

    fs::write(&key, "1").unwrap();
    fs::remove_file(&key).unwrap();
    drop(create());
    assert_eq!(fs::metadata(&key).unwrap().len(), 0, "an empty file is what was asked for");
    fs::remove_file(&key).unwrap();

    for created_before in [false, true] {
        fs::write(&key, "1").unwrap();
        fs::remove_file(&key).unwrap();
        let file = created_before.then(create);
        elsewhere.set("k", "2");
        wait_for(PATIENCE, || mount.text("k").as_deref() == Some("2"));
        elsewhere.delete("k");
        wait_for(PATIENCE, || mount.text("k").is_none_or(|text| text.is_empty()));
        let mut file = file.unwrap_or_else(create);
        assert_eq!(errno(file.write_all(b"bad")), libc::EINVAL);
        drop(file);
        wait_for(PATIENCE, || !key.exists());
        assert_eq!(elsewhere.get("k"), None);
    }
}

#[test]
fn rule_04_a_writer_goes_on_where_the_old_value_is_back() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let key = mount.path("k");
    fs::write(&key, "1").unwrap();
    fs::remove_file(&key).unwrap();
    let mut file = OpenOptions::new().write(true).create_new(true).open(&key).unwrap();
    file.write_all(b"{\"half\":").unwrap();
    let copy = file.try_clone().unwrap();
    assert_eq!(close(copy), libc::EINVAL);
    assert_eq!(mount.text("k").as_deref(), Some("1"));
    file.write_all(b"2}").unwrap();
    assert_eq!(mount.text("k").as_deref(), Some("{\"half\":2}"));
    assert_eq!(close(file), 0);
    assert_eq!(mount.text("k").as_deref(), Some("{\"half\":2}"));
}

#[test]
fn rule_09_what_was_removed_is_kept_where_the_store_does_not_take_it_back() {
    if !can_mount() {
        return;
    }
    for created_before in [true, false] {
        let mount = Mount::sqlite(&["--timeout", "500ms"]);
        let (key, other) = (mount.path("k"), mount.path("other"));
        fs::write(&key, "\"old\"").unwrap();
        fs::remove_file(&key).unwrap();
        let create = || OpenOptions::new().write(true).create(true).truncate(true).open(&key);
        let file = created_before.then(create);
        let database = rusqlite::Connection::open(mount.home.path().join("kv.db")).unwrap();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        match file {
            Some(file) => {
                let mut file = file.unwrap();
                assert_eq!(errno(file.write_all(b"\"new\"")), libc::EBUSY);
                assert_eq!(close(file), libc::EBUSY);
            }
            None => {
                // One a second is let through to try again.
                wait_for(PATIENCE, || {
                    _ = fs::write(&other, "1");
                    errno(create()) == libc::EBUSY
                });
            }
        }
        let is_kept =
            |text: &str| mount.rejected().iter().any(|path| fs::read(path).unwrap() == text.as_bytes());
        wait_for(PATIENCE, || is_kept("\"old\"") && is_kept("\"new\"") == created_before);
        wait_for(PATIENCE, || mount.last_error().contains("could not be set again"));
        database.execute_batch("ROLLBACK").unwrap();
    }
}

/// They rename the old file before they write the new one, and what the backup is called.
const RENAMERS: [(&str, &str); 6] = [
    ("sed -i.bak s/1/oops/ k", "k.bak"),
    ("sed -i~ s/1/oops/ k", "k~"),
    ("perl -i.bak -pe s/1/oops/ k", "k.bak"),
    ("perl -i~ -pe s/1/oops/ k", "k~"),
    (
        "python3 -c 'import fileinput\nfor line in fileinput.input(\"k\", True, \".bak\"): print(line.replace(\"1\", \"oops\"))'",
        "k.bak",
    ),
    (
        "python3 -c 'import os\nos.rename(\"k\", \"k~\")\nwith open(\"k\", \"w\") as f: f.write(\"[1,\")'",
        "k~",
    ),
];

#[test]
fn rule_04_what_a_program_renames_for_a_text_that_is_refused_has_its_name_again() {
    if !can_mount() {
        return;
    }
    for mount in [Mount::sqlite(&[]), Mount::memory(&[])] {
        let key = mount.path("k");
        for (program, backup) in RENAMERS {
            fs::write(&key, "[1]\n").unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
            let ran = mount.sh(program);
            assert!(!ran.status.success(), "{program}: {ran:?}");
            wait_for(PATIENCE, || mount.text("k").as_deref() == Some("[1]\n"));
            wait_for(PATIENCE, || fs::metadata(&key).unwrap().mode() & 0o777 == 0o640);
            assert_eq!(mount.text(backup).as_deref(), Some("[1]\n"), "{program}");
            assert!(mount.last_error().contains("not JSON") || mount.last_error().contains("incomplete"));
            // It is a file as before.
            fs::write(&key, "[2]\n").unwrap();
            assert_eq!(mount.text("k").as_deref(), Some("[2]\n"), "{program}");
            fs::remove_file(mount.path(backup)).unwrap();
            assert_eq!(mount.names(), ["k"], "{program}");
        }
        // Without a backup that stays.
        let program =
            "python3 -c 'import fileinput\nfor line in fileinput.input(\"k\", True): print(\"oops\")'";
        assert!(!mount.sh(program).status.success());
        assert_eq!(
            (mount.text("k").as_deref(), mount.names().as_slice()),
            (Some("[2]\n"), ["k".to_owned()].as_slice())
        );
    }
}

#[test]
fn rule_07_a_key_whose_successor_is_refused_was_never_renamed() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let elsewhere = Elsewhere::of(&mount);
    let (key, backup) = (mount.path("k"), mount.path("k~"));
    fs::write(&key, "[1]").unwrap();
    fs::rename(&key, &backup).unwrap();
    let mut file = OpenOptions::new().write(true).create_new(true).open(&key).unwrap();
    file.write_all(b"[2,").unwrap();
    let shown = || String::from_utf8(mount.sh("cat k").stdout).unwrap();
    assert_eq!(close(file), libc::EINVAL);
    assert_eq!((shown().as_str(), elsewhere.get("k").as_deref()), ("[1]", Some("[1]")));
    // Another one that is none is no rename, either.
    assert_eq!(errno(fs::write(&key, "bad")), libc::EINVAL);
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("[1]"));
    assert_eq!((mount.text("k~").as_deref(), elsewhere.get("k~")), (Some("[1]"), None));
    fs::write(&key, "[2]").unwrap();
    assert_eq!((shown().as_str(), elsewhere.get("k").as_deref()), ("[2]", Some("[2]")));
    // The backup may have its name back, and is one.
    fs::rename(&backup, &key).unwrap();
    assert_eq!((mount.text("k").as_deref(), elsewhere.get("k").as_deref()), (Some("[1]"), Some("[1]")));
    assert_eq!(mount.calls("rename_key"), 0);
    // Who renames another file over it, which is refused.
    fs::rename(&key, &backup).unwrap();
    fs::write(mount.path(".k.swp"), "bad").unwrap();
    assert_eq!(errno(fs::rename(mount.path(".k.swp"), &key)), libc::EINVAL);
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("[1]"));
    assert_eq!(errno(File::open(&backup).unwrap().sync_all()), 0);
    assert_eq!((mount.calls("rename_key"), elsewhere.get("k~")), (0, None));
}
