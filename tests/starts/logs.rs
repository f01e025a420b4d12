//! The log, and the escaping of foreign text.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::{PATIENCE, said, start};
use crate::common::serve::{KEY, Server};
use crate::common::{KVFS, Mount, can_mount, stop, unmount, wait_for};
use tempfile::TempDir;

fn log_of(home: &TempDir) -> PathBuf {
    home.path().join("state/kvfs/kvfs.log")
}

/// Has a line logged: a text that is no value is rejected at once.
fn have_a_line_logged(mount: &Mount) {
    let count = mount.rejected().len();
    mount.sh("printf '{\"a\":' > db");
    wait_for(PATIENCE, || mount.rejected().len() > count);
}

#[test]
fn starts_and_ends_are_logged_with_mount_store_and_options() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--max-age", "5s"]);
    let (dir, pid) = (mount.dir.display().to_string(), mount.pid);
    let home = mount.unmount();
    let log = fs::read_to_string(log_of(&home)).unwrap();
    let about = format!(" {dir} (sqlite:{}): ", home.path().join("kv.db").display());
    assert!(log.lines().all(|line| line.contains(&about)), "{log}");
    assert!(
        log.contains(&format!("process {pid}: kvfs --max-age 5s ")) && log.contains("unmounted"),
        "{log}"
    );
}

#[test]
fn the_log_tells_of_an_outage_of_the_store_and_of_its_end() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    let mount = Mount::prefect_cloud(&server.address, KEY, &["--timeout", "2s", "--max-age", "1ms"]);
    fs::write(mount.path("db"), "1").unwrap();
    let told = || -> Vec<bool> {
        let log = fs::read_to_string(log_of(&mount.home)).unwrap();
        let ends = |line: &str| match line {
            line if line.contains("the store does not answer: ") => Some(false),
            line if line.contains("the store answers again, after ") => Some(true),
            _ => None,
        };
        log.lines().filter_map(ends).collect()
    };
    let read_until = |ended: bool| {
        wait_for(PATIENCE, || {
            _ = fs::read(mount.path("db"));
            told().last() == Some(&ended)
        });
    };
    stop(i32::try_from(server.pid()).unwrap());
    read_until(false);
    server.signal("-CONT");
    read_until(true);
    // Each is told once, however many calls fail.
    let told = told();
    assert!(!told[0] && told.windows(2).all(|two| two[0] != two[1]), "{told:?}");
}

#[test]
fn the_log_is_bounded_while_it_runs() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let log = fs::OpenOptions::new().write(true).open(log_of(&mount.home)).unwrap();
    log.set_len(11 << 20).unwrap();
    have_a_line_logged(&mount);
    wait_for(PATIENCE, || log.metadata().unwrap().len() < 1 << 20);
    wait_for(PATIENCE, || fs::read_to_string(log_of(&mount.home)).unwrap().contains("was not published"));
}

#[test]
fn the_log_follows_no_link_and_its_lack_is_told() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    fs::create_dir_all(home.path().join("state/kvfs")).unwrap();
    let victim = home.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    symlink(&victim, log_of(&home)).unwrap();
    let dir = home.path().join("mnt");
    let (text, code) = said(&start(&home, "memory:", &dir).wait_with_output().unwrap());
    assert!(text.contains("kvfs: nothing is logged, for ") && code == 0, "{code} {text}");
    let mount = Mount { home, dir, pid: 0 };
    have_a_line_logged(&mount);
    unmount(&mount.dir);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
}

/// A name with control sequences for a terminal.
const NAME: &str = "x\x1b[2J\u{202e}\nkvfs: all is well";
const SHOWN: &str = "x\\u{1b}[2J\\u{202e}\\nkvfs: all is well";

#[test]
fn a_name_reaches_neither_terminal_nor_log_as_more_than_text() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let dir = home.path().join(NAME);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(NAME), "").unwrap();
    let raw = |text: &str| text.contains('\x1b') || text.contains('\u{202e}');
    let (text, _) = said(&start(&home, "memory:", &dir).wait_with_output().unwrap());
    assert!(!raw(&text) && text.lines().count() == 1 && text.matches(SHOWN).count() == 2, "{text:?}");
    fs::remove_file(dir.join(NAME)).unwrap();
    let (text, code) = said(&start(&home, "memory:", &dir).wait_with_output().unwrap());
    assert!(!raw(&text) && code == 0, "{text:?}");
    let mount = Mount { home, dir, pid: 0 };
    have_a_line_logged(&mount);
    let log = fs::read_to_string(log_of(&mount.home)).unwrap();
    assert!(!raw(&log) && log.lines().all(|line| line.contains(SHOWN)), "{log:?}");
    let out = Command::new(KVFS).arg("status").arg(&mount.dir).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(!raw(&text) && text.contains(SHOWN), "{text:?}");
    unmount(&mount.dir);
}

#[test]
fn a_place_that_is_no_text_is_named_in_one_line() {
    let home = TempDir::new().unwrap();
    let place = home.path().join(std::ffi::OsString::from_vec(b"\x9b2J\xff\n".to_vec()));
    let out = Command::new(KVFS).arg("status").arg(&place).output().unwrap();
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(text.lines().count() == 1 && !text.contains('\u{9b}'), "{text:?}");
}
