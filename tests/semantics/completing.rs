//! Rule 4: the write(2) that completes a document sets it.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::common::{Elsewhere, Mount, PATIENCE, can_mount, close, errno, is_running, wait_for};

const OLD: &str = "{\"old\":1}";

/// A mount with a key, `doc`, and another client of its store.
fn mounted() -> (Mount, Elsewhere) {
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("doc"), OLD).unwrap();
    let elsewhere = Elsewhere::of(&mount);
    (mount, elsewhere)
}

/// As [`Mount::calls`], but starts no program, which would close what it inherits.
fn sets(mount: &Mount) -> u64 {
    let status = kvfs::sys::get_xattr(&mount.dir, "user.kvfs.status").unwrap();
    serde_json::from_slice::<serde_json::Value>(&status).unwrap()["calls"]["set_key_value"].as_u64().unwrap()
}

/// The values that were replaced or deleted, and are kept for a minute.
fn replaced(mount: &Mount) -> Vec<String> {
    let kept =
        mount.rejected().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "deleted"));
    kept.map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn rule_04_the_write_that_completes_a_document_sets_it() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    for name in ["doc", "new"] {
        let before = elsewhere.get(name);
        for (parts, last) in [
            (&["{\"a\"", ":[1,2]"][..], "}"),
            (&[], "[true]\n"),
            (&["  12"], "\n"),
            (&["\"", "}", "1"], "\""),
        ] {
            let mut file = File::create(mount.path(name)).unwrap();
            let sets_before = sets(&mount);
            for part in parts {
                file.write_all(part.as_bytes()).unwrap();
            }
            assert_eq!(sets(&mount), sets_before, "{parts:?}");
            file.write_all(last.as_bytes()).unwrap();
            let text = parts.concat() + last;
            assert_eq!((elsewhere.get(name), mount.text(name)), (Some(text.clone()), Some(text)));
            assert_eq!(fs::metadata(mount.path(name)).unwrap().len(), file.metadata().unwrap().len());
            assert_eq!((close(file), sets(&mount)), (0, sets_before + 1));
        }
        fs::remove_file(mount.path(name)).unwrap();
        if let Some(text) = before {
            fs::write(mount.path(name), text).unwrap();
        }
    }
}

#[test]
fn rule_04_what_is_not_written_from_nothing_in_order_is_set_at_close() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    let whole = |name: &str| OpenOptions::new().read(true).write(true).open(mount.path(name)).unwrap();
    let writes: [&dyn Fn() -> File; 4] = [
        &|| {
            let file = whole("doc");
            file.write_all_at(b"{\"new\":", 0).unwrap();
            file
        },
        &|| {
            let mut file = OpenOptions::new().append(true).open(mount.path("doc")).unwrap();
            file.write_all(b"\n").unwrap();
            file
        },
        &|| {
            let file = File::create(mount.path("doc")).unwrap();
            file.write_all_at(b"]", 2).unwrap();
            file.write_all_at(b"[1", 0).unwrap();
            file
        },
        &|| {
            let mut file = File::create(mount.path("doc")).unwrap();
            file.write_all(b"12").unwrap();
            file
        },
    ];
    for (number, write) in writes.into_iter().enumerate() {
        let before = elsewhere.get("doc");
        let file = write();
        assert_eq!(elsewhere.get("doc"), before, "{number}");
        let sets_before = sets(&mount);
        assert_eq!((close(file), sets(&mount)), (0, sets_before + 1), "{number}");
        assert_ne!(elsewhere.get("doc"), before, "{number}");
    }
    // After a truncation to nothing it is.
    let mut file = whole("doc");
    file.write_all(b"7").unwrap();
    file.set_len(0).unwrap();
    file.rewind().unwrap();
    file.write_all(b"[8]").unwrap();
    assert_eq!(elsewhere.get("doc").as_deref(), Some("[8]"));
}

#[test]
fn rule_04_close_sets_what_came_after() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    let begin = || {
        let mut file = File::create(mount.path("doc")).unwrap();
        file.write_all(b"[1]").unwrap();
        (file, sets(&mount))
    };
    // The size that it has, and a time, are nothing to set.
    let (file, before) = begin();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.set_len(3).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
    assert_eq!(fs::metadata(mount.path("doc")).unwrap().modified().unwrap(), time);
    assert_eq!((close(file), sets(&mount)), (0, before));
    assert_eq!(fs::metadata(mount.path("doc")).unwrap().modified().unwrap(), time);
    let (mut file, before) = begin();
    file.write_all(b" \n").unwrap();
    assert_eq!(elsewhere.get("doc").as_deref(), Some("[1]"));
    assert_eq!((close(file), sets(&mount)), (0, before + 1));
    assert_eq!(elsewhere.get("doc").as_deref(), Some("[1] \n"));
    let (file, _) = begin();
    file.write_all_at(b"2", 1).unwrap();
    assert_eq!((close(file), elsewhere.get("doc").as_deref()), (0, Some("[2]")));
    // White space alone does not bring back a value that another one has replaced.
    let (mut file, _) = begin();
    elsewhere.set("doc", "[3]");
    file.write_all(b"\n").unwrap();
    assert_eq!((close(file), elsewhere.get("doc").as_deref()), (0, Some("[3]")));
    let (file, _) = begin();
    elsewhere.set("doc", "[3]");
    file.write_all_at(b"2", 1).unwrap();
    assert_eq!((close(file), elsewhere.get("doc").as_deref()), (libc::ESTALE, Some("[3]")));
}

#[test]
fn rule_04_what_is_no_document_is_refused_whole_in_one_write_and_from_its_place_in_two() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    let before = sets(&mount);
    assert_eq!(errno(fs::write(mount.path("doc"), "{\"a\":1}\n{\"b\":2}\n")), libc::EINVAL);
    assert_eq!((elsewhere.get("doc").as_deref(), sets(&mount)), (Some(OLD), before));
    wait_for(PATIENCE, || mount.rejected().len() == 2);
    let mut file = File::create(mount.path("doc")).unwrap();
    file.write_all(b"{\"a\":1}\n").unwrap();
    assert_eq!(errno(file.write_all(b"{\"b\":2}\n")), libc::EINVAL);
    assert_eq!(close(file), libc::EINVAL);
    assert_eq!(elsewhere.get("doc").as_deref(), Some("{\"a\":1}\n"));
    wait_for(PATIENCE, || replaced(&mount) == [OLD]);
    wait_for(PATIENCE, || {
        mount.rejected().iter().any(|path| fs::read(path).unwrap() == b"{\"a\":1}\n{\"b\":2}\n")
    });
    let why = mount.last_error();
    for part in [
        "(line 2, column 1): something follows",
        "before it stays set",
        "kept for a minute",
        "the text is kept",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(!why.contains("the old value stays"), "{why}");
    // What was truncated to nothing begins anew.
    let mut file = File::create(mount.path("doc")).unwrap();
    assert_eq!(errno(file.write_all(b"bad")), libc::EINVAL);
    file.set_len(0).unwrap();
    file.rewind().unwrap();
    file.write_all(b"[4]").unwrap();
    assert_eq!((close(file), elsewhere.get("doc").as_deref()), (0, Some("[4]")));
}

#[test]
fn rule_04_a_set_that_failed_is_tried_again_by_the_same_document() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--timeout", "500ms"]);
    fs::write(mount.path("doc"), OLD).unwrap();
    let mut file = File::create(mount.path("doc")).unwrap();
    file.write_all(b"[1,").unwrap();
    let other = rusqlite::Connection::open(mount.home.path().join("kv.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(errno(file.write_all(b"2]\n")), libc::EBUSY);
    assert_eq!(file.metadata().unwrap().len(), 3);
    assert_eq!(errno(file.write_all(b"2")), libc::EBUSY);
    other.execute_batch("ROLLBACK").unwrap();
    wait_for(PATIENCE, || file.write_all(b"2]\n").is_ok());
    assert_eq!(close(file), 0);
    assert_eq!(mount.text("doc").as_deref(), Some("[1,2]\n"));
    assert_eq!(mount.rejected(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn rule_04_a_sync_after_each_write_sets_a_whole_document_and_lets_a_part_be() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    fs::write(mount.home.path().join("doc"), "{\"by\":\"dd\",\"n\":1}").unwrap();
    for flag in ["sync", "dsync"] {
        let out = mount.sh(&format!("dd if=../doc of=doc bs=4 oflag={flag}"));
        assert!(out.status.success(), "{out:?}");
        assert_eq!(elsewhere.get("doc").as_deref(), Some("{\"by\":\"dd\",\"n\":1}"));
    }
    let out = mount.sh("printf '[1' | dd of=doc bs=1 oflag=sync");
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("closing"), "{out:?}");
}

#[test]
fn rule_04_fsync_sets_the_document_that_was_written_over_a_longer_text() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    let rewrite = |text: &str| {
        fs::write(mount.path("doc"), "{\"long\":\"value\"}").unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(mount.path("doc")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        (file, sets(&mount))
    };
    // What is left of the longer text is cut off: nothing is left to set.
    let (file, before) = rewrite("[1]\n");
    assert_eq!(errno(file.sync_all()), 0);
    assert_eq!(
        (elsewhere.get("doc").as_deref(), mount.text("doc").as_deref()),
        (Some("[1]\n"), Some("[1]\n"))
    );
    file.set_len(4).unwrap();
    assert_eq!(
        file.metadata().unwrap().modified().unwrap(),
        fs::metadata(mount.path("doc")).unwrap().modified().unwrap()
    );
    elsewhere.set("doc", "[2]");
    assert_eq!((errno(file.sync_all()), close(file), sets(&mount)), (0, 0, before + 1));
    assert_eq!(elsewhere.get("doc").as_deref(), Some("[2]"));
    // It is not: the close tells of it, and what was synced stays.
    let (file, before) = rewrite("[3]");
    assert_eq!(errno(file.sync_data()), 0);
    assert_eq!((close(file), sets(&mount)), (libc::EINVAL, before + 1));
    assert_eq!(elsewhere.get("doc").as_deref(), Some("[3]"));
    wait_for(PATIENCE, || {
        mount.rejected().iter().any(|path| fs::read(path).unwrap() == b"[3]ong\":\"value\"}")
    });
    assert!(mount.last_error().contains("before it stays set"), "{}", mount.last_error());
    // Cut elsewhere, or written on behind a gap, it is what is left that counts.
    for change in [|file: &File| file.set_len(5).unwrap(), |file: &File| file.write_all_at(b"x", 9).unwrap()]
    {
        let (file, before) = rewrite("[4]");
        change(&file);
        assert_eq!((errno(file.sync_all()), close(file), sets(&mount)), (libc::EINVAL, libc::EINVAL, before));
    }
}

/// What is done to a file whose text was set.
type How = fn(&Mount, File);

/// Leaves no document.
fn spoil(file: &File) {
    file.write_all_at(b"x", 1).unwrap();
}

/// What is told of a document that was set, of which `how` has the rest refused.
fn told_of(how: How) -> Vec<String> {
    let (mount, elsewhere) = mounted();
    let mut file = File::create(mount.path("doc")).unwrap();
    file.write_all(b"[1]").unwrap();
    how(&mount, file);
    wait_for(PATIENCE, || replaced(&mount) == [OLD]);
    assert_eq!(elsewhere.get("doc").as_deref(), Some("[1]"));
    let mut told: Vec<String> =
        mount.rejected().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    told.extend(is_running(mount.pid).then(|| mount.last_error()));
    told
}

#[test]
fn rule_04_whatever_tells_of_a_refusal_says_that_a_part_is_set() {
    if !can_mount() {
        return;
    }
    let hows: [How; 5] = [
        |_, file| {
            spoil(&file);
            assert_eq!(close(file), libc::EINVAL);
        },
        |_, file| {
            spoil(&file);
            assert_eq!((errno(file.sync_all()), close(file)), (libc::EINVAL, libc::EINVAL));
        },
        |_, file| assert_eq!((errno(file.set_len(10_002)), close(file)), (libc::EFBIG, 0)),
        // Nobody is told by the close of a child; what is kept tells.
        |_, file| {
            let script = "import os, sys; sys.stdin.read(); os.pwrite(1, b'x', 1)";
            let child =
                Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(file).spawn();
            assert!(child.unwrap().wait_with_output().unwrap().status.success());
        },
        // So it is at the end of the mount.
        |mount, file| {
            spoil(&file);
            assert!(Command::new("kill").arg(mount.pid.to_string()).status().unwrap().success());
            wait_for(PATIENCE, || !is_running(mount.pid));
        },
    ];
    for (number, how) in hows.into_iter().enumerate() {
        let told = told_of(how);
        assert!(told.iter().any(|text| text.contains("before it stays set")), "{number}: {told:?}");
        assert!(!told.iter().any(|text| text.contains("the old value stays")), "{number}: {told:?}");
    }
}
