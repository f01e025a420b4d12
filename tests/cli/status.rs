//! `kvfs status`: true for parts of a mount, for mounts of others, for daemons that are stopped, and for the store.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PATIENCE, failure, run, stop};
use crate::common::serve::{KEY, Server};
use crate::common::{KVFS, Mount, can_mount, is_running, unmount, wait_for};

fn status(home: &TempDir, path: &Path) -> Value {
    let out = run(home, &["status", "--json", path.to_str().unwrap()]);
    assert!(out.status.success(), "{out:?}");
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    all[0].clone()
}

fn table(home: &TempDir, path: &Path) -> String {
    let out = run(home, &["status", path.to_str().unwrap()]);
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// The output and exit code of `--check` for the mount at `path`.
fn check(home: &TempDir, path: &Path) -> (String, i32) {
    let out = run(home, &["status", "--check", path.to_str().unwrap()]);
    if !out.status.success() {
        assert!(out.stdout.is_empty(), "{out:?}");
        return failure(&out);
    }
    assert!(out.stderr.is_empty(), "{out:?}");
    (String::from_utf8(out.stdout).unwrap(), 0)
}

fn kill(signal: &str, mount: &Mount) {
    assert!(Command::new("kill").args([signal, &mount.pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_mount_of_which_a_key_and_a_directory_are_bound_is_well() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&["--separator", "/"]);
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("dir/db"), "1").unwrap();
    let (file, dir) = (mount.home.path().join("file"), mount.home.path().join("dir"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&dir).unwrap();
    let bind = |from: &str, to: &Path| {
        assert!(
            Command::new("mount").arg("--bind").arg(mount.path(from)).arg(to).status().unwrap().success()
        );
    };
    bind("dir/db", &file);
    bind("dir", &dir);
    let seen: Vec<_> =
        [&mount.dir, &file, &dir].iter().map(|path| status(&mount.home, path)["bound"].clone()).collect();
    let alone = "umount \"$MOUNT\"; exec \"$KVFS\" status --check \"$FILE\"";
    let alone = Command::new("unshare")
        .args(["-m", "sh", "-c", alone])
        .envs([("MOUNT", mount.dir.as_os_str()), ("FILE", file.as_os_str()), ("KVFS", KVFS.as_ref())])
        .output()
        .unwrap();
    let checked = check(&mount.home, &file);
    for place in [&file, &dir] {
        unmount(place);
    }
    let bound = json!([{"path": file, "of": "/dir/db"}, {"path": dir, "of": "/dir"}]);
    assert_eq!(seen, [bound.clone(), bound.clone(), bound]);
    let shown = mount.dir.display();
    assert_eq!(checked, (format!("kvfs: {shown} is well, and so is its store memory:\n"), 0));
    // Where nothing but the bound key is to be seen, it is asked in place of the mount.
    let shown = file.display();
    assert_eq!(
        String::from_utf8(alone.stdout).unwrap(),
        format!("kvfs: {shown} is well, and so is its store memory:\n")
    );
}

#[test]
fn a_stopped_and_a_killed_daemon_are_told_apart() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let shown = mount.dir.display();
    stop(mount.pid);
    let (seen, checked) = (status(&mount.home, &mount.dir), check(&mount.home, &mount.dir));
    kill("-CONT", &mount);
    let why = format!("does not answer, for its kvfs is stopped; continue it with: kill -CONT {}", mount.pid);
    assert_eq!((&seen["state"], &seen["error"]), (&json!("stopped"), &json!(why)));
    assert_eq!(checked, (format!("kvfs: {shown} {why}\n"), 3));
    kill("-9", &mount);
    wait_for(PATIENCE, || !is_running(mount.pid));
    let why = format!("is dead, for its kvfs was killed; mount it again, or: umount {shown}");
    assert_eq!(check(&mount.home, &mount.dir), (format!("kvfs: {shown} {why}\n"), 3));
    assert!(table(&mount.home, &mount.dir).contains(&why));
    let (text, code) = check(&mount.home, mount.home.path());
    assert!(text.contains("nothing of kvfs is mounted at") && code == 3, "{code} {text}");
}

/// In a namespace of its own, for the device may be root's alone.
const OF_ANOTHER_USER: &str = r#"
    mknod "$HOME/fuse" c 10 229; chmod 666 "$HOME/fuse"; mount --bind "$HOME/fuse" /dev/fuse
    as="setpriv --reuid=65534 --regid=65534 --clear-groups"
    $as "$HOME/kvfs" --quiet memory: "$HOME/mnt"
    # Its guard names it, which is started last.
    until "$HOME/kvfs" status --json "$HOME/mnt" | grep '"foreign"' >&2; do sleep 0.1; done
    "$HOME/kvfs" status --check "$HOME/mnt" 2>&1 || echo "$?"
    $as "$HOME/kvfs" umount "$HOME/mnt" 2>&1 || echo "$?"
    "$HOME/kvfs" status --check "$HOME/mnt" 2>&1 || echo "$?"
"#;

#[test]
fn a_mount_of_another_user_is_not_dead_and_is_ended_by_its_user() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // The built binary may lie where others cannot go.
    fs::copy(KVFS, home.path().join("kvfs")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-e", "-c", OF_ANOTHER_USER]).current_dir("/").env("HOME", home.path());
    // What these name others cannot write either.
    command.env_remove("XDG_STATE_HOME").env_remove("XDG_DATA_HOME");
    let out = command.output().unwrap();
    let seen: Value = serde_json::from_slice(&out.stderr).unwrap_or_default();
    let (seen, shown) = (&seen[0], home.path().join("mnt"));
    let (pid, shown) = (&seen["pid"], shown.display());
    assert_eq!((&seen["store"], pid.is_u64()), (&json!("memory:"), true), "{out:?}");
    let says = format!(
        "kvfs: {shown} is a mount of user 65534, who alone may ask; its kvfs runs (process {pid})\n3\n\
         kvfs: nothing of kvfs is mounted at {shown}; `kvfs status` lists what is\n3\n"
    );
    assert_eq!(String::from_utf8(out.stdout).unwrap(), says);
}

#[test]
fn a_store_that_is_down_is_told_with_its_reason_and_the_age_of_what_is_shown() {
    if !can_mount() {
        return;
    }
    let mut server = Server::memory();
    let mount = Mount::prefect_cloud(&server.address, KEY, &["--timeout", "2s"]);
    let shown = mount.dir.display();
    let store = format!("prefect-cloud:http://{}", server.address);
    fs::write(mount.path("db"), "1").unwrap();
    let well = format!("kvfs: {shown} is well, and so is its store {store}\n");
    assert_eq!(check(&mount.home, &mount.dir), (well.clone(), 0));
    assert!(status(&mount.home, &mount.dir)["down"].is_null());
    // It does not tell of changes: nobody knows how it is before it is asked.
    let told = table(&mount.home, &mount.dir);
    assert!(told.contains("  state       well; its store answered last "), "{told}");
    assert!(told.contains(" s ago, and is asked by: kvfs status --check"), "{told}");
    // A store that hangs.
    stop(i32::try_from(server.pid()).unwrap());
    let (text, code) = check(&mount.home, &mount.dir);
    assert!(text.starts_with(&format!("kvfs: {shown} answers, but not its store {store}: ")), "{text}");
    assert_eq!(code, 4);
    server.signal("-CONT");
    wait_for(PATIENCE, || check(&mount.home, &mount.dir) == (well.clone(), 0));
    // One that is gone.
    server.signal("-9");
    server.wait();
    let (text, code) = check(&mount.home, &mount.dir);
    assert!(text.contains("answers, but not its store") && code == 4, "{code} {text}");
    let seen = status(&mount.home, &mount.dir);
    assert_eq!(seen["state"], "down");
    assert!(seen["down"]["why"].as_str().is_some_and(|why| why.contains("cannot be reached")), "{seen}");
    assert!(seen["down"]["since_s"].is_u64() && seen["down"]["answered_s"].is_u64(), "{seen}");
    let told = table(&mount.home, &mount.dir);
    assert!(told.contains("  state       down for ") && told.contains("; what is shown is "), "{told}");
}

#[test]
fn texts_that_were_rejected_are_counted() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    assert_eq!(status(&mount.home, &mount.dir)["rejected"], 0);
    assert!(!table(&mount.home, &mount.dir).contains("rejected"));
    assert!(fs::write(mount.path("db"), "no JSON").is_err());
    wait_for(PATIENCE, || status(&mount.home, &mount.dir)["rejected"] == 1);
    let kept = mount.home.path().join("state/kvfs/rejected");
    let line = format!("  rejected    texts 1, kept in {}", kept.display());
    let told = table(&mount.home, &mount.dir);
    assert!(told.contains(&line) && told.contains("  refusals    kvfs why tells the last ones"), "{told}");
}
