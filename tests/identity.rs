//! One number for each file: whoever opens it, however it is written, whatever the kernel remembers.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::Permissions;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::common;
use common::{Elsewhere, Mount, PATIENCE, can_mount, close, wait_for};

fn number(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// As a listing tells it.
fn listed(mount: &Mount, name: &str) -> u64 {
    let mut entries = fs::read_dir(&mount.dir).unwrap().map(Result::unwrap);
    entries.find(|entry| entry.file_name() == name).unwrap().ino()
}

/// Whether a descriptor and the name show one file.
fn agree(file: &File, path: &Path) -> bool {
    file.metadata().unwrap().ino() == number(path)
}

/// Makes the kernel forget all that nobody uses, which only root can.
fn forget(mount: &Mount) {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let before = mount.messages("FORGET");
    let remount = Command::new("mount").args(["-i", "-o", "remount"]).arg(&mount.dir).output().unwrap();
    assert!(remount.status.success(), "{remount:?}");
    wait_for(PATIENCE, || mount.messages("FORGET") > before);
}

fn again(mount: Mount) -> Mount {
    let home = mount.unmount();
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    Mount::start_in(home, &store, &[])
}

#[test]
fn a_descriptor_and_its_name_show_one_file() {
    if !can_mount() {
        return;
    }
    for mount in [Mount::sqlite(&[]), Mount::memory(&[])] {
        let path = mount.path("k");
        let mut made = File::create_new(&path).unwrap();
        assert!(agree(&made, &path), "created");
        made.write_all(b"1").unwrap();
        made.sync_all().unwrap();
        assert!(agree(&made, &path), "created and published");
        drop(made);
        let shown = number(&path);
        for (how, options) in [
            ("read", File::options().read(true)),
            ("read and written", File::options().read(true).write(true)),
            ("appended to", File::options().append(true)),
            ("truncated", File::options().write(true).truncate(true)),
            ("created", File::options().write(true).create(true)),
        ] {
            let file = options.open(&path).unwrap();
            assert!(agree(&file, &path), "{how}");
            if how == "truncated" {
                (&file).write_all(b"2").unwrap();
                assert!(agree(&file, &path), "{how} and written");
                file.sync_all().unwrap();
                assert!(agree(&file, &path), "{how} and published");
            }
            drop(file);
            assert_eq!((number(&path), listed(&mount, "k")), (shown, shown), "{how} and closed");
        }
    }
}

#[test]
fn a_number_is_kept_over_sets_and_forgetting_and_is_the_same_on_every_mount() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let path = mount.path("k");
    fs::write(&path, "1").unwrap();
    let shown = number(&path);
    Elsewhere::of(&mount).set("k", "2");
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("2"));
    fs::write(&path, "3").unwrap();
    assert_eq!((number(&path), listed(&mount, "k")), (shown, shown), "set");
    forget(&mount);
    assert_eq!((listed(&mount, "k"), number(&path)), (shown, shown), "forgotten");
    fs::rename(&path, mount.path("renamed")).unwrap();
    assert_eq!(number(mount.path("renamed")), shown, "renamed");
    forget(&mount);
    assert_eq!(number(mount.path("renamed")), shown, "renamed and forgotten");
    let mount = again(mount);
    assert_eq!(
        (listed(&mount, "renamed"), number(mount.path("renamed"))),
        (shown, shown),
        "on another mount"
    );
}

#[test]
fn what_takes_a_name_after_a_removal_or_a_replacement_is_another_file() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let path = mount.path("k");
    fs::write(&path, "1").unwrap();
    let (first, held) = (number(&path), File::open(&path).unwrap());
    fs::remove_file(&path).unwrap();
    fs::write(&path, "2").unwrap();
    let second = number(&path);
    fs::write(mount.path("other"), "3").unwrap();
    let other = number(mount.path("other"));
    fs::rename(mount.path("other"), &path).unwrap();
    assert_eq!(number(&path), other);
    // A temporary file, which nothing but the name makes the key.
    fs::write(mount.path("k~"), "4").unwrap();
    let replaced = File::open(&path).unwrap();
    fs::rename(mount.path("k~"), &path).unwrap();
    let last = number(&path);
    assert!(first != second && second != other && other != last, "{first} {second} {other} {last}");
    assert_eq!([held, replaced].map(|file| file.metadata().unwrap().ino()), [first, other]);
}

#[test]
fn a_file_that_is_read_at_an_older_version_has_another_number_by_its_name() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let path = mount.path("k");
    fs::write(&path, "1").unwrap();
    let (shown, reader) = (number(&path), File::open(&path).unwrap());
    // Nobody has set it yet.
    let writer = File::options().write(true).truncate(true).open(&path).unwrap();
    assert!(agree(&writer, &path) && agree(&reader, &path));
    (&writer).write_all(b"2").unwrap();
    writer.sync_all().unwrap();
    let next = number(&path);
    assert_ne!(next, shown, "`tail -F` goes by it");
    assert_eq!(reader.metadata().unwrap().ino(), shown);
    assert!(agree(&writer, &path));
    drop(writer);
    Elsewhere::of(&mount).set("k", "3");
    wait_for(PATIENCE, || mount.text("k").as_deref() == Some("3"));
    assert_eq!((number(&path), listed(&mount, "k")), (next, next), "nobody reads that version");
    drop(reader);
    assert!(agree(&File::open(&path).unwrap(), &path));
}

/// As flopen(3) and portalocker do it: a lock file that was replaced while its lock was waited for is no lock file.
#[test]
fn a_lock_file_that_is_opened_locked_and_compared_is_the_one_that_has_the_name() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--validate", "none"]);
    let path = mount.path("pid");
    for holder in 0..3 {
        let file = loop {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
            file.try_lock().unwrap();
            if agree(&file, &path) {
                break file;
            }
        };
        let shown = file.metadata().unwrap().ino();
        file.set_len(0).unwrap();
        write!(&file, "{holder}").unwrap();
        assert!(agree(&file, &path));
        drop(file);
        assert_eq!(number(&path), shown, "who verifies it later");
    }
}

#[test]
fn a_rename_of_a_directory_takes_the_numbers_along() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/"]);
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/k"), "1").unwrap();
    let shown = [mount.path("d"), mount.path("d/k")].map(number);
    let held = File::options().read(true).write(true).open(mount.path("d/k")).unwrap();
    fs::rename(mount.path("d"), mount.path("e")).unwrap();
    assert_eq!([mount.path("e"), mount.path("e/k")].map(number), shown);
    assert!(agree(&held, &mount.path("e/k")));
}

/// Mode, owner, links and size.
fn attributes(file: &File) -> (u32, u32, u64, u64) {
    let meta = file.metadata().unwrap();
    (meta.mode() & 0o7777, meta.uid(), meta.nlink(), meta.len())
}

type LoseName = fn(&Path);

#[test]
fn what_is_said_of_a_file_that_has_lost_its_name_is_said_of_it_alone() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let (path, usual) = (mount.path("k"), fs::metadata(&mount.dir).unwrap().uid());
    let take_away: [(&str, LoseName); 3] = [
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("replaced by a key", |path| {
            fs::write(path.with_file_name("other"), "22").unwrap();
            fs::rename(path.with_file_name("other"), path).unwrap();
        }),
        ("replaced by a temporary file", |path| {
            fs::write(path.with_file_name("k~"), "22").unwrap();
            fs::rename(path.with_file_name("k~"), path).unwrap();
        }),
    ];
    for (how, lose_name) in take_away {
        for write in [false, true] {
            fs::write(&path, "1").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
            let file = File::options().read(true).write(write).open(&path).unwrap();
            assert_eq!(attributes(&file), (0o640, usual, 1, 1), "{how}, {write}");
            lose_name(&path);
            assert_eq!(attributes(&file), (0o640, usual, 0, 1), "{how}, {write}");
            file.set_permissions(Permissions::from_mode(0o600)).unwrap();
            assert_eq!(attributes(&file), (0o600, usual, 0, 1), "{how}, {write}");
            if how != "removed" {
                let successor = File::open(&path).unwrap();
                assert_eq!(attributes(&successor), (0o644, usual, 1, 2), "{how}, {write}");
            }
            _ = fs::remove_file(&path);
        }
    }
}

#[test]
fn who_writes_a_file_that_is_removed_elsewhere_sees_no_links() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("k"), "1").unwrap();
    let file = File::options().read(true).write(true).open(mount.path("k")).unwrap();
    assert_eq!(attributes(&file).2, 1);
    Elsewhere::of(&mount).delete("k");
    wait_for(PATIENCE, || attributes(&file).2 == 0);
}

/// utimes(2) by name.
fn touch(path: &Path, second: u64) {
    let date = format!("@{second}");
    assert!(Command::new("touch").args(["-d", &date]).arg(path).status().unwrap().success());
}

fn modified(file: &File, path: &Path) -> (SystemTime, SystemTime) {
    (file.metadata().unwrap().modified().unwrap(), fs::metadata(path).unwrap().modified().unwrap())
}

#[test]
fn a_time_that_is_set_by_name_is_of_what_is_written_too_and_a_writer_who_changes_nothing_shows_it() {
    if !can_mount() {
        return;
    }
    let old = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    for mount in [Mount::sqlite(&[]), Mount::memory(&[])] {
        let path = mount.path("k");
        fs::write(&path, "[1]").unwrap();
        let whole = || File::options().read(true).write(true).open(&path).unwrap();
        let changes: [fn(&File); 4] = [
            |file| file.set_len(3).unwrap(),
            |file| kvfs::sys::reserve(file, 2).unwrap(),
            |file| file.write_all_at(b"", 1).unwrap(),
            |_| {},
        ];
        for (change, second) in changes.into_iter().zip(1..) {
            touch(&path, second);
            let file = whole();
            change(&file);
            assert_eq!(modified(&file, &path), (old(second), old(second)), "{second}");
            assert_eq!(close(file), 0);
            assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old(second), "{second}");
        }
        for (again, second) in [(false, 11), (true, 12)] {
            let file = whole();
            file.write_all_at(b"2", 1).unwrap();
            touch(&path, second);
            if again {
                file.write_all_at(b"3", 1).unwrap();
            }
            assert_eq!(close(file), 0);
            assert_eq!(fs::metadata(&path).unwrap().modified().unwrap() == old(second), !again);
        }
    }
}
