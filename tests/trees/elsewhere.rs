//! Directories that appear and vanish because others set and delete keys.

use std::fs;
use std::time::Duration;

use super::common::{errno, wait_for};
use super::{tree, walk};

const SOON: Duration = crate::common::PATIENCE;

#[test]
fn rule_13_a_directory_that_was_looked_for_appears_with_its_first_key() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    for path in ["a", "a/b", "a/b/k"] {
        assert_eq!(errno(fs::metadata(mount.path(path))), libc::ENOENT);
    }
    elsewhere.set("a/b/k", "1\n");
    wait_for(SOON, || mount.path("a/b/k").exists());
    assert_eq!(errno(fs::metadata(mount.path("a/c"))), libc::ENOENT);
    elsewhere.set("a/c/k", "2\n");
    wait_for(SOON, || mount.path("a/c/k").exists());
    assert_eq!(walk(&mount.dir), ["a/", "a/b/", "a/b/k", "a/c/", "a/c/k"]);
}

#[test]
fn rule_13_a_directory_vanishes_with_its_last_key() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a/b/k", "1\n");
    elsewhere.set("a/l", "1\n");
    // One was looked up, the other one only listed.
    assert!(mount.path("a/b").is_dir());
    fs::create_dir(mount.path("a/made")).unwrap();
    elsewhere.delete("a/b/k");
    wait_for(SOON, || !mount.path("a/b").exists());
    assert_eq!(walk(&mount.dir), ["a/", "a/l", "a/made/"]);
    elsewhere.delete("a/l");
    wait_for(SOON, || !mount.path("a/l").exists());
    assert_eq!(walk(&mount.dir), ["a/", "a/made/"]);
    elsewhere.set("a/made/k", "1\n");
    wait_for(SOON, || mount.path("a/made/k").exists());
    elsewhere.delete("a/made/k");
    wait_for(SOON, || !mount.path("a").exists());
    assert_eq!(walk(&mount.dir), [""; 0]);
}

#[test]
fn a_directory_stays_while_a_scratch_file_is_in_it() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a/k", "1\n");
    fs::write(mount.path("a/.k.swp"), "scratch").unwrap();
    elsewhere.delete("a/k");
    wait_for(SOON, || !mount.path("a/k").exists());
    assert_eq!(walk(&mount.dir), ["a/", "a/.k.swp"]);
    fs::write(mount.path("a/k"), "2\n").unwrap();
    assert_eq!(elsewhere.get("a/k").as_deref(), Some("2\n"));
}

#[test]
fn who_is_in_a_directory_that_vanishes_finds_nothing_there_until_it_is_back() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("a/k", "1\n");
    let inside = fs::File::open(mount.path("a")).unwrap();
    let within = |name: &str| {
        let path = format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&inside));
        errno(fs::metadata(path))
    };
    assert_eq!(within("k"), 0);
    elsewhere.delete("a/k");
    wait_for(SOON, || !mount.path("a").exists() && within("k") == libc::ENOENT);
    elsewhere.set("a/k", "2\n");
    wait_for(SOON, || mount.path("a/k").exists());
    assert_eq!(walk(&mount.dir), ["a/", "a/k"]);
}

#[test]
fn keys_renamed_elsewhere_move_between_directories() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    for round in 0..20 {
        let (old, new) = (format!("d{round}/k"), format!("d{}/k", round + 1));
        elsewhere.set(&new, &format!("{round}\n"));
        if round > 0 {
            elsewhere.delete(&old);
        }
        wait_for(SOON, || walk(&mount.dir) == [format!("d{}/", round + 1), new.clone()]);
        assert_eq!(fs::read_to_string(mount.path(&new)).unwrap(), format!("{round}\n"));
    }
}

#[test]
fn a_thousand_keys_in_directories_appear_and_vanish() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    assert_eq!(walk(&mount.dir), [""; 0]);
    for number in 0..1_000 {
        elsewhere.set(&format!("{}/{}/k", number % 10, number / 10), "1\n");
    }
    wait_for(SOON, || walk(&mount.dir).len() == 10 + 1_000 + 1_000);
    for number in 0..1_000 {
        elsewhere.delete(&format!("{}/{}/k", number % 10, number / 10));
    }
    wait_for(SOON, || walk(&mount.dir).is_empty());
}

#[test]
fn a_file_published_in_a_directory_that_has_vanished_is_found_there() {
    use std::io::Write;
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("d/k", "1\n");
    let mut writer = fs::File::options().write(true).truncate(true).open(mount.path("d/k")).unwrap();
    elsewhere.delete("d/k");
    wait_for(SOON, || errno(fs::metadata(mount.path("d"))) == libc::ENOENT);
    writer.write_all(b"2\n").unwrap();
    assert_eq!(super::common::close(writer), 0);
    wait_for(SOON, || fs::read_to_string(mount.path("d/k")).is_ok_and(|text| text == "2\n"));
}

#[test]
fn a_directory_that_vanishes_while_it_is_listed_is_gone() {
    let Some((mount, elsewhere)) = tree(&[]) else { return };
    elsewhere.set("x/k", "1\n");
    for number in 0..500 {
        elsewhere.set(&format!("{number}-{}", "y".repeat(200)), "1\n");
    }
    let mut entries = fs::read_dir(&mount.dir).unwrap();
    entries.next().unwrap().unwrap();
    elsewhere.delete("x/k");
    elsewhere.set("end", "1\n");
    wait_for(SOON, || mount.path("end").exists());
    entries.for_each(|entry| drop(entry.unwrap()));
    assert_eq!(errno(fs::metadata(mount.path("x"))), libc::ENOENT);
}
