//! Values whose rows are lost or damaged.

use std::fs;
use std::process::{Command, Stdio};

use libc::EIO;
use rusqlite::Connection;

use crate::common::{KVFS, Mount, can_mount, errno};

/// A mount with the keys `k` and `other` that is started after the value of `k` was lost.
fn damaged(damage: &str) -> Mount {
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("k"), "1\n").unwrap();
    fs::write(mount.path("other"), "2\n").unwrap();
    let home = mount.unmount();
    let path = home.path().join("kv.db");
    let db = Connection::open(&path).unwrap();
    let row = "WHERE id = (SELECT value_id FROM entry WHERE key = 'k')";
    assert_eq!(db.execute(&format!("{damage} {row}"), []), Ok(1));
    drop(db);
    Mount::start_in(home, &format!("sqlite:{}", path.display()), &[])
}

#[test]
fn a_lost_or_damaged_value_is_eio_and_its_file_can_be_had_again() {
    if !can_mount() {
        return;
    }
    for damage in ["DELETE FROM value", "UPDATE value SET bytes = x'39'"] {
        for cure in ["echo 3 > k", "mv other k", "cp other new && mv -f new k", "rm k && echo 3 > k"] {
            for listed in [false, true] {
                let mount = damaged(damage);
                if listed {
                    assert_eq!(mount.names(), ["k", "other"]);
                }
                assert_eq!(errno(fs::read(mount.path("k"))), EIO, "{damage}");
                assert!(mount.last_error().contains("damaged"), "{}", mount.last_error());
                assert_eq!(mount.names(), ["k", "other"], "{damage}");
                assert_eq!(mount.text("other").as_deref(), Some("2\n"));
                let out = mount.sh(cure);
                assert!(out.status.success(), "{damage}, {cure}: {}", String::from_utf8_lossy(&out.stderr));
                let expected = if cure.contains("echo") { "3\n" } else { "2\n" };
                assert_eq!(mount.text("k").as_deref(), Some(expected), "{damage}, {cure}");
                assert_eq!(mount.rejected(), [""; 0].map(std::path::PathBuf::from), "{damage}, {cure}");
            }
        }
    }
}

#[test]
fn a_copy_names_a_damaged_value_and_goes_on() {
    if !can_mount() {
        return;
    }
    let home = damaged("DELETE FROM value").unmount();
    let store = |name: &str| format!("sqlite:{}", home.path().join(name).display());
    let mut copy = Command::new(KVFS);
    let out = copy.args(["copy", &store("kv.db"), &store("to.db")]).stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(told.contains("\"k\" not copied: its value is damaged"), "{told}");
    assert!(told.contains("1 copied, 0 there already, 1 not copied"), "{told}");
}
