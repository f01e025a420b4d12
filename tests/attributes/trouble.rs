//! What chmod and the like come to where the store cannot keep it now.

use super::{done, shown};
use crate::common::{Mount, PATIENCE, can_mount, wait_for};
use rusqlite::Connection;

fn says(mount: &Mount, script: &str) -> String {
    let out = mount.sh(&format!("exec 2>&1; {script}"));
    String::from_utf8(out.stdout).unwrap()
}

/// Each change of what is said of a file or directory.
const CHANGES: [&str; 5] = ["chmod 600 k", "chown 5 k", "touch -d @5 k", "chmod 700 d", "mkdir -m 700 e"];

fn refused(mount: &Mount, why: &str) {
    let before = says(mount, "stat -c '%a %u %Y' k; stat -c %a d");
    for change in CHANGES {
        let said = says(mount, change);
        assert!(said.contains(why) && said.lines().count() == 1, "{change}: {said}");
    }
    assert_eq!(says(mount, "stat -c '%a %u %Y' k; stat -c %a d"), before);
    assert!(!mount.path("e").exists());
}

#[test]
fn a_database_that_others_keep_locked_is_busy_for_attributes_too() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/", "--timeout", "4s"]);
    done(&mount, "umask 022; echo 1 > k; mkdir d");
    let db = Connection::open(mount.home.path().join("kv.db")).unwrap();
    db.busy_timeout(PATIENCE).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    refused(&mount, "Device or resource busy");
    assert!(mount.last_error().contains("locked"), "{}", mount.last_error());
    db.execute_batch("ROLLBACK").unwrap();
    wait_for(PATIENCE, || says(&mount, "chmod 600 k").is_empty());
    done(&mount, "chown 5 k; touch -d @5 k; chmod 700 d; mkdir -m 700 e");
    assert_eq!(shown(&mount, "k"), "600 5 0 5\n");
}

#[test]
fn a_mount_that_is_read_only_refuses_attributes() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/"]);
    done(&mount, "umask 022; echo 1 > k; mkdir d; echo 1 > d/k");
    let home = mount.unmount();
    let store = format!("sqlite:{}", home.path().join("kv.db").display());
    for more in [&[][..], &["--notify"][..]] {
        let args = [&["--separator", "/", "-r"], more].concat();
        let mount = Mount::start_in(tempfile::TempDir::new().unwrap(), &store, &args);
        refused(&mount, "Read-only file system");
    }
    drop(home);
}

#[test]
fn a_database_that_was_moved_away_keeps_no_attributes() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--separator", "/"]);
    done(&mount, "umask 022; echo 1 > k; mkdir d; stat k d");
    done(&mount, "cd ..; mkdir away; mv kv.db* away");
    refused(&mount, "Input/output error");
    assert!(mount.last_error().contains("while it was in use"), "{}", mount.last_error());
    done(&mount, "cd ..; mv away/kv.db* .");
    wait_for(PATIENCE, || says(&mount, "chmod 600 k").is_empty());
    assert!(shown(&mount, "k").starts_with("600 0 0"));
}
