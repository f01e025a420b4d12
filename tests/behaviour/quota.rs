//! What a loop that makes names, and never gives them a value, comes to.

use std::fs::{self, File};

use libc::ENOSPC;

use crate::common::{Elsewhere, KVFS, Mount, PATIENCE, can_mount, errno, wait_for};

/// As in `docs/semantics.md`.
const NAMES: usize = 65_536;

#[test]
fn a_loop_that_touches_files_and_makes_directories_is_refused_when_there_are_too_many() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/"]);
    let elsewhere = Elsewhere::of(&mount);
    elsewhere.set("key", "1\n");
    fs::create_dir(mount.path("d")).unwrap();
    let make = |number: usize| match number % 8 {
        0 => fs::create_dir(mount.path(format!("d/{number}"))),
        1 => File::create(mount.path(format!("d/{number}~"))).map(drop),
        _ => File::create(mount.path(number.to_string())).map(drop),
    };
    let all = (0..2 * NAMES).take_while(|number| match make(*number) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(ENOSPC));
            false
        }
    });
    assert_eq!(all.count(), NAMES - 1);
    assert_eq!(errno(File::create(mount.path("one"))), ENOSPC);
    assert_eq!(errno(fs::create_dir(mount.path("one"))), ENOSPC);
    assert_eq!(mount.status()["in_memory"]["names"], NAMES);
    let why = mount.sh(&format!("{KVFS} why {}/one", mount.dir.display())).stdout;
    let why = String::from_utf8(why).unwrap();
    assert!(
        why.contains("ENOSPC") && why.contains("65536 files and directories are in no store already"),
        "{why}"
    );
    // What has a value goes on, and what gets one or goes makes room.
    fs::write(mount.path("key"), "2\n").unwrap();
    fs::write(mount.path("2"), "2\n").unwrap();
    assert_eq!(elsewhere.get("2").as_deref(), Some("2\n"));
    wait_for(PATIENCE, || fs::write(mount.path("new"), "1\n").is_ok());
    fs::remove_file(mount.path("3")).unwrap();
    wait_for(PATIENCE, || fs::create_dir(mount.path("made")).is_ok());
}

#[test]
fn what_is_made_as_all_others_are_takes_no_room_for_attributes() {
    if !can_mount() {
        return;
    }
    // Where the store keeps attributes those of keys are not in memory alone.
    let mount = Mount::sqlite(&[]);
    let made = mount.sh("umask 022; for i in 1 2 3; do echo 1 > k$i; done; echo 2 > k1; truncate -s 1 k2; mv k3 k4; chmod 644 k4");
    assert!(made.status.success());
    let none = serde_json::json!({"names": 0, "attributes": 0});
    wait_for(PATIENCE, || mount.status()["in_memory"] == none);
    assert!(mount.sh(": > a~; touch b~; chmod 600 k1 a~; touch -d @1 k2 b~; chmod 600 b~").status.success());
    assert_eq!(mount.status()["in_memory"]["attributes"], 2);
    assert!(mount.sh("chmod 644 a~; rm b~").status.success());
    assert_eq!(mount.status()["in_memory"]["attributes"], 0);
}
