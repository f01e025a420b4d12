//! Directories that are bound elsewhere, or that somebody is in, while others remove the last key in them and set it again.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::inside::run;
use super::shell::Shell;
use super::{Mount, PATIENCE, errno, wait_for};

/// A bind mount, until it is dropped.
struct Bound(TempDir);

impl Bound {
    fn of(directory: &Path) -> Self {
        let place = TempDir::new().unwrap();
        run(Command::new("mount").arg("--bind").args([directory, place.path()]));
        Self(place)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// What another mount does to a key: to set it to a number, or that there is none.
pub trait Others: Fn(&str, Option<u32>) {}

impl<T: Fn(&str, Option<u32>)> Others for T {}

/// Deletes the key, with the directories that it is in.
pub fn sets_and_deletes(other: &Mount) -> impl Others {
    move |key, number| {
        let path = other.path(key);
        if let Some(number) = number {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{number}\n")).unwrap();
            return;
        }
        fs::remove_file(path).unwrap();
        for directory in Path::new(key).ancestors().skip(1).filter(|way| way.parent().is_some()) {
            fs::remove_dir(other.path(directory)).unwrap();
        }
    }
}

/// Moves the whole tree that the key is in away, and back.
pub fn moves(other: &Mount) -> impl Others {
    let sets = sets_and_deletes(other);
    move |key, number| {
        let (top, inside) = key.split_once('/').unwrap();
        if number.is_none() {
            return fs::rename(other.path(top), other.path("elsewhere")).unwrap();
        }
        sets(&format!("elsewhere/{inside}"), number);
        fs::rename(other.path("elsewhere"), other.path(top)).unwrap();
    }
}

/// Binds the directory of `key`, is in it and has it open, while `others` take its only key away and bring it back: meanwhile it
/// is a removed directory, and afterwards the same one as before.
#[track_caller]
pub fn lives_on(mount: &Mount, key: &str, others: impl Others) {
    let (directory, name) = key.rsplit_once('/').unwrap();
    others(key, Some(0));
    wait_for(PATIENCE, || mount.text(key).as_deref() == Some("0\n"));
    let bound = Bound::of(&mount.path(directory));
    let open = File::open(bound.0.path()).unwrap();
    let mut inside = Shell::at(&mount.path(directory));
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    let places = [bound.0.path(), &by_descriptor];
    let number = open.metadata().unwrap().ino();
    for round in 1..=4 {
        others(key, None);
        // With and without a look by which the kernel takes in that it is gone.
        if round % 2 == 0 {
            wait_for(PATIENCE, || errno(fs::metadata(mount.path(directory))) == libc::ENOENT);
        }
        for place in places {
            is_removed(place, name);
        }
        assert_eq!(inside.says("ls -A"), "");
        assert!(inside.says("echo 1 > new").contains("No such file"));
        others(key, Some(round));
        // Nobody looks for it by its path.
        for place in places {
            let text = || fs::read_to_string(place.join(name)).unwrap_or_default();
            wait_for(PATIENCE, || text() == format!("{round}\n"));
            wait_for(PATIENCE, || {
                fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).eq([name])
            });
        }
        assert_eq!(
            inside.says(&format!("ls; cat {name}; stat -c %i,%h .")),
            format!("{name} {round} {number},2")
        );
        assert_eq!(fs::metadata(mount.path(directory)).unwrap().ino(), number);
        // The kernel has its name again once somebody has looked for it.
        assert_eq!(inside.place(), mount.path(directory).canonicalize().unwrap().display().to_string());
    }
    for place in places {
        fs::write(place.join("new"), "1\n").unwrap();
        assert_eq!(mount.text(&format!("{directory}/new")).as_deref(), Some("1\n"));
        fs::remove_file(place.join("new")).unwrap();
    }
}

/// As POSIX has it: without names, and nothing can be made in it.
#[track_caller]
fn is_removed(place: &Path, name: &str) {
    wait_for(PATIENCE, || errno(fs::metadata(place.join(name))) == libc::ENOENT);
    wait_for(PATIENCE, || fs::read_dir(place).unwrap().count() == 0);
    assert_eq!(errno(File::create(place.join("new"))), libc::ENOENT);
    assert_eq!(errno(fs::create_dir(place.join("new"))), libc::ENOENT);
}
