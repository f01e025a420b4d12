//! `kvfs umount`.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::{PATIENCE, failure, run, stop};
use crate::common::{Mount, can_mount, is_running, wait_for};

fn umount(mount: &Mount) -> Output {
    run(&mount.home, &["umount", mount.dir.to_str().unwrap()])
}

fn is_mounted(dir: &Path) -> bool {
    fs::read_to_string("/proc/mounts").unwrap().contains(dir.to_str().unwrap())
}

#[test]
fn umount_returns_when_the_daemon_has_ended() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    fs::write(mount.path("db"), "1").unwrap();
    let out = umount(&mount);
    assert!(out.status.success() && out.stdout.is_empty() && out.stderr.is_empty(), "{out:?}");
    assert!(!is_running(mount.pid) && !is_mounted(&mount.dir));
    let (text, code) = failure(&umount(&mount));
    assert!(text.contains("is no mount of kvfs; `kvfs status` lists") && code == 3, "{code} {text}");
}

#[test]
fn umount_tells_of_text_that_was_rejected() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("db"), "1").unwrap();
    // A temporary file that never became a document.
    let half = Command::new("sh")
        .args(["-c", "set -C; printf '{\"a\":' > db.tmp"])
        .current_dir(&mount.dir)
        .status()
        .unwrap();
    assert!(half.success());
    let (text, code) = failure(&umount(&mount));
    let rejected = mount.home.path().join("state/kvfs/rejected");
    assert_eq!(text, format!("kvfs: 1 rejected text is kept in {}\n", rejected.display()));
    assert_eq!(code, 6);
    assert!(!is_running(mount.pid) && !mount.rejected().is_empty());
}

#[test]
fn umount_refuses_what_it_cannot_end_and_says_why() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &mount.pid.to_string()]).status().unwrap().success());
    };
    let mut file = File::create(mount.path("open")).unwrap();
    let (text, code) = failure(&umount(&mount));
    assert!(text.contains("fuser -vm") && code == 3, "{code} {text}");
    file.write_all(b"1").unwrap();
    drop(file);

    let home = TempDir::new().unwrap();
    let bound = home.path().join("bound");
    fs::write(&bound, "").unwrap();
    let bind = |args: &[&str]| {
        Command::new("mount").args(args).arg(mount.path("open")).arg(&bound).status().unwrap()
    };
    assert!(bind(&["--bind"]).success());
    let (text, code) = failure(&run(&mount.home, &["umount", bound.to_str().unwrap()]));
    assert!(text.contains("is /open of a mount, bound there") && code == 3, "{code} {text}");
    assert!(Command::new("umount").arg(&bound).status().unwrap().success());

    stop(mount.pid);
    let (text, code) = failure(&umount(&mount));
    signal("-CONT");
    assert!(
        text.contains(&format!("continue it with: kill -CONT {}", mount.pid)) && code == 3,
        "{code} {text}"
    );
    assert!(is_mounted(&mount.dir));

    signal("-9");
    wait_for(PATIENCE, || !is_running(mount.pid));
    let out = umount(&mount);
    assert!(out.status.success() && !is_mounted(&mount.dir), "{out:?}");
}
