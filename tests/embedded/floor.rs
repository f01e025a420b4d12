//! The database is moved, replaced, cut or restored below a mount.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libc::EIO;
use tempfile::TempDir;

use crate::common::{KVFS, Mount, can_mount, close, errno, wait_for};

const PATIENCE: Duration = Duration::from_mins(2);

/// A mount of a database in a directory of its own, with the keys `k` and `other`.
fn mount() -> Mount {
    let home = TempDir::new().unwrap();
    let store = format!("sqlite:{}", home.path().join("data/kv.db").display());
    let mount = Mount::start_in(home, &store, &[]);
    fs::write(mount.path("k"), "1\n").unwrap();
    fs::write(mount.path("other"), "2\n").unwrap();
    mount
}

/// A change through a mount: its errno.
fn change(mount: &Mount, number: usize) -> i32 {
    use std::io::Write;
    match number {
        0 => match File::create(mount.path("k")) {
            Ok(mut file) => {
                file.write_all(b"3\n").map_or_else(|error| error.raw_os_error().unwrap(), |()| close(file))
            }
            error => errno(error),
        },
        1 => errno(fs::remove_file(mount.path("k"))),
        _ => errno(fs::rename(mount.path("k"), mount.path("new"))),
    }
}

/// What happens to the database in `$1`, while `$2` is another one, with the key `restored`.
const WAYS: [&str; 7] = [
    "rm $1/kv.db",
    "mv $1/kv.db $1/away.db",
    "mv $2/kv.db $1/kv.db",
    "truncate -s 0 $1/kv.db",
    "rm $1/kv.db-wal",
    "rm -rf $1",
    "mv $1 $1.away",
];

fn other(home: &Path) {
    fs::create_dir(home.join("other")).unwrap();
    let put = |command: &mut Command| assert!(command.status().unwrap().success());
    let [from, to] = ["from.db", "other/kv.db"].map(|name| format!("sqlite:{}", home.join(name).display()));
    let mount = Mount::start_in(TempDir::new().unwrap(), &from, &[]);
    fs::write(mount.path("restored"), "5\n").unwrap();
    mount.unmount();
    put(Command::new(KVFS).args(["copy", &from, &to]).stdout(std::process::Stdio::null()));
}

#[test]
fn a_change_fails_aloud_while_the_database_is_not_where_it_was() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        for number in 0..3 {
            let mount = mount();
            other(mount.home.path());
            let [data, other] = ["data", "other"].map(|name| mount.home.path().join(name));
            let script = way.replace("$1", data.to_str().unwrap()).replace("$2", other.to_str().unwrap());
            assert!(mount.sh(&script).status.success(), "{script}");
            match change(&mount, number) {
                EIO => {
                    let why = mount.last_error();
                    assert!(why.contains("while it was in use") && why.contains("kv.db"), "{way}: {why}");
                }
                // It was noticed before, and what is there now is used already.
                0 if way.contains("-wal") || way.starts_with("mv $2") => {}
                libc::ENOENT if way.starts_with("mv $2") => {}
                errno => panic!("{way}, {number}: {errno}"),
            }
            if way.starts_with("mv $2") {
                wait_for(PATIENCE, || mount.text("restored").as_deref() == Some("5\n"));
            } else if way.contains("-wal") {
                wait_for(PATIENCE, || mount.sh("echo 4 > k && sync k").status.success());
                assert_eq!(mount.text("other").as_deref(), Some("2\n"), "{way}");
            } else {
                assert!(mount.text("other").is_none_or(|text| text == "2\n"), "{way}");
            }
            let home = mount.unmount();
            fs::create_dir_all(&data).unwrap();
            let again = Mount::start_in(home, &format!("sqlite:{}", data.join("kv.db").display()), &[]);
            fs::write(again.path("k"), "6\n").unwrap();
            assert_eq!(again.text("k").as_deref(), Some("6\n"), "{way}");
        }
    }
}

#[test]
fn a_backup_that_is_copied_over_a_mounted_database_is_shown_by_all_its_mounts() {
    if !can_mount() {
        return;
    }
    for way in ["cp $2 $1", "cat $2 > $1", "dd if=$2 of=$1 conv=notrunc status=none"] {
        let mount = mount();
        let database = mount.home.path().join("data/kv.db");
        let store = format!("sqlite:{}", database.display());
        let elsewhere = Mount::start_in(TempDir::new().unwrap(), &store, &[]);
        let backup = mount.home.path().join("backup.db");
        let copy =
            Command::new(KVFS).args(["copy", &store, &format!("sqlite:{}", backup.display())]).output();
        assert!(copy.unwrap().status.success());
        for number in 0..20 {
            fs::write(mount.path("k"), format!("{number}\n")).unwrap();
        }
        fs::write(mount.path("later"), "1\n").unwrap();
        wait_for(PATIENCE, || elsewhere.text("k").as_deref() == Some("19\n"));
        let script = way.replace("$1", database.to_str().unwrap()).replace("$2", backup.to_str().unwrap());
        assert!(mount.sh(&script).status.success(), "{script}");
        for mount in [&mount, &elsewhere] {
            wait_for(PATIENCE, || mount.text("k").as_deref() == Some("1\n"));
            assert_eq!(mount.names(), ["k", "other"], "{way}");
        }
        fs::write(mount.path("k"), "7\n").unwrap();
        wait_for(PATIENCE, || elsewhere.text("k").as_deref() == Some("7\n"));
        elsewhere.unmount();
        let home = mount.unmount();
        let again = Mount::start_in(home, &store, &[]);
        assert_eq!(again.text("k").as_deref(), Some("7\n"), "{way}");
        assert_eq!(again.names(), ["k", "other"], "{way}");
    }
}

#[test]
fn a_database_that_is_mounted_as_a_file_is_refused() {
    if !can_mount() {
        return;
    }
    let home = mount().unmount();
    let (file, place) = (home.path().join("data/kv.db"), home.path().join("place"));
    fs::create_dir(&place).unwrap();
    let bound = place.join("kv.db");
    File::create(&bound).unwrap();
    let run = |command: &str, path: &Path| Command::new(command).arg(path).status().unwrap().success();
    let bind = Command::new("mount").arg("--bind").args([&file, &bound]).output().unwrap();
    if !bind.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&bind.stderr));
        return;
    }
    let store = format!("sqlite:{}", bound.display());
    let out = Mount::command(&home).arg(&store).arg(home.path().join("mnt")).output().unwrap();
    assert!(run("umount", &bound));
    let why = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(4), "{why}");
    assert!(why.contains("mounted as a file of its own") && why.contains("mount the directory"), "{why}");
    assert_eq!(why.lines().count(), 1, "{why}");
    // Its directory is another matter.
    let bind =
        Command::new("mount").arg("--bind").args([&home.path().join("data"), &place]).status().unwrap();
    assert!(bind.success());
    let mount = Mount::start_in(home, &store, &[]);
    assert_eq!(mount.text("k").as_deref(), Some("1\n"));
    let home = mount.unmount();
    assert!(run("umount", &place));
    drop(home);
}
