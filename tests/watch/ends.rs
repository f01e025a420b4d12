//! The end of the mount that is watched.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::{PATIENCE, Watcher, command, signal};
use crate::common::{self, Mount, can_mount, unmount, wait_for};

#[test]
fn a_watch_does_not_keep_the_mount_and_ends_with_it() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let watchers: Vec<_> = (0..10).map(|_| Watcher::start(&mount)).collect();
    signal(&watchers[0].child, "-INT");
    let mut watchers = watchers.into_iter();
    assert_eq!(watchers.next().unwrap().ended(), (Some(0), String::new()));
    // A question may be under way at that very moment, but hardly ten times in turn.
    unmount(&mount.dir);
    for watcher in watchers {
        let (code, said) = watcher.ended();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with("kvfs: the mount at ") && said.lines().count() == 1, "{said}");
    }
    let mount = Mount::memory(&[]);
    let watcher = Watcher::start(&mount);
    assert!(Command::new("kill").args(["-9", &mount.pid.to_string()]).status().unwrap().success());
    let (code, said) = watcher.ended();
    assert_eq!(code, Some(3), "{said}");
    let shown = mount.dir.display();
    let why = "was killed; changes may be missed from now on: mount it again, and watch it";
    assert_eq!(said, format!("kvfs: the kvfs of {shown} {why}\n"));
}

#[test]
fn a_watch_goes_on_with_the_next_mount_at_its_place() {
    if !can_mount() {
        return;
    }
    let mut mount = Mount::sqlite(&[]);
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let (file, log) = (mount.path("file"), mount.home.path().join("log"));
    for killed in [true, false] {
        _ = fs::remove_file(&log);
        let of_all = Watcher::start(&mount);
        let of_file = Watcher::of(&mount, &file, &file);
        let mut runs = command(&mount, &["--exec", "echo \"$KVFS_EVENT\" >> \"$LOG\""]);
        let runs = runs.env("LOG", &log).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let runs = Watcher { child: runs, lines: Arc::default() };
        let log = || fs::read_to_string(&log).unwrap_or_default();
        wait_for(PATIENCE, || {
            fs::write(mount.path("ready"), "1").unwrap();
            log().lines().last() == Some("set")
        });
        if killed {
            assert!(Command::new("kill").args(["-9", &mount.pid.to_string()]).status().unwrap().success());
        } else {
            unmount(&mount.dir);
        }
        wait_for(PATIENCE, || !common::is_running(mount.pid));
        let restarted = Mount::command(&mount.home).args(["-q", &store]).arg(&mount.dir).status();
        assert!(restarted.unwrap().success());
        mount.pid = i32::try_from(mount.status()["pid"].as_i64().unwrap()).unwrap();
        for watcher in [&of_all, &of_file] {
            watcher.tells_since_missed(&[]);
        }
        wait_for(PATIENCE, || log().lines().last() == Some("missed"));
        fs::write(&file, "2").unwrap();
        for watcher in [of_all, of_file] {
            let set = ("set".to_owned(), "file".to_owned());
            watcher.tells_since_missed(&[set]);
            signal(&watcher.child, "-TERM");
            // A restart between two polls is not noticed otherwise.
            let told =
                format!("kvfs: {} is mounted again; changes may have been missed\n", mount.dir.display());
            let (code, said) = watcher.ended();
            assert!(code == Some(0) && (said.is_empty() || said == told), "{code:?} {said}");
        }
        wait_for(PATIENCE, || log().ends_with("missed\nset\n"));
        signal(&runs.child, "-TERM");
        assert_eq!(runs.ended().0, Some(0));
    }
}
