//! The command line: starting, exit codes, messages, options, status.
#![allow(missing_docs, clippy::unwrap_used)]

mod kept;
mod status;
mod umount;
mod usage;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common;
use common::{KVFS, Mount, PATIENCE, can_mount, errno, stop, unmount, wait_for};
use tempfile::TempDir;

fn run(home: &TempDir, args: &[&str]) -> Output {
    Mount::command(home).args(args).output().unwrap()
}

/// The one line on standard error, and the exit code.
fn failure(out: &Output) -> (String, i32) {
    let text = String::from_utf8(out.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("kvfs: "), "{text}");
    (text, out.status.code().unwrap())
}

#[test]
fn wrong_usage_is_one_line_and_code_2() {
    let home = TempDir::new().unwrap();
    for (args, says) in [
        (&["redis:localhost", "/nonexistent/x"][..], "\"redis:localhost\" is not a store"),
        (&["sqlite:", "/nonexistent/x"], "needs the path"),
        (&["memory:"], "name the directory"),
        (&["/nonexistent/x", "-o", "ro,frobnicate"], "there is no option -o frobnicate"),
        (&["/nonexistent/x", "--scratch", "["], "--scratch ["),
        (&[], "name the directory"),
        (
            &["--offline-cache", "/nonexistent/kept", "memory:", "/nonexistent/x"],
            "memory: is on this machine and needs no offline cache",
        ),
        (
            &["prefect-cloud", "/nonexistent/x", "--validate", "none"],
            "prefect-cloud keeps JSON only; leave the option away",
        ),
        (
            &["-o", "validate=none", "prefect-cloud:http://h", "/nonexistent/x"],
            "prefect-cloud:http://h keeps JSON only",
        ),
    ] {
        let (text, code) = failure(&run(&home, args));
        assert!(text.contains(says) && code == 2, "{args:?}: {code} {text}");
    }
    for args in [&["--max-age", "soon", "/nonexistent/x"][..], &["--no-such-flag"], &["a", "b", "c"]] {
        assert_eq!(run(&home, args).status.code(), Some(2), "{args:?}");
    }
    assert!(run(&home, &["--help"]).status.success());
    assert!(String::from_utf8(run(&home, &["--version"]).stdout).unwrap().starts_with("kvfs "));
}

#[test]
fn an_unusable_mount_point_is_code_3() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let full = home.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "").unwrap();
    let full = full.to_str().unwrap();
    let (text, code) = failure(&run(&home, &["memory:", full]));
    assert!(text.contains("is not empty") && text.contains("-o nonempty") && code == 3, "{code} {text}");
    let (text, code) = failure(&run(&home, &["memory:", &format!("{full}/file")]));
    assert!(text.contains("not a directory") && code == 3, "{code} {text}");
    let (text, code) = failure(&run(&home, &["memory:", "/proc/nowhere"]));
    assert!(text.contains("/proc/nowhere") && code == 3, "{code} {text}");
    let (text, code) = failure(&run(&home, &[&format!("sqlite:{full}/kv.db"), full]));
    assert!(text.contains("lies below") && code == 3, "{code} {text}");
    let mount = Mount::memory(&[]);
    let (text, code) = failure(&run(&home, &["memory:", mount.dir.to_str().unwrap()]));
    assert!(text.contains("is mounted already") && code == 3, "{code} {text}");
}

#[test]
fn an_unusable_store_is_code_4_and_is_left_alone() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let path = home.path().join("file");
    let store = format!("sqlite:{}", path.display());
    let dir = home.path().join("mnt");
    let dir = dir.to_str().unwrap();
    let refused = |says: &str| {
        let before = fs::read(&path).unwrap();
        let (text, code) = failure(&run(&home, &[&store, dir]));
        assert!(text.contains(says) && code == 4, "{code} {text}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(dir));
    };
    fs::write(&path, "this is not a database at all, but long enough to look like one to nobody").unwrap();
    refused("is not a database");
    fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    refused("is a database of another program");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(&format!("PRAGMA application_id = {}; PRAGMA user_version = 99", 0x6b76_6673))
        .unwrap();
    refused("newer kvfs");
}

#[test]
fn the_directory_is_made_and_the_embedded_store_is_the_default() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let dir = home.path().join("made/for/me");
    let out = run(&home, &[dir.to_str().unwrap()]);
    let database = home.path().join("data/kvfs/kv.db");
    let says = |new: &str| {
        let (database, dir) = (database.display(), dir.display());
        let why = "refusals are explained by: kvfs why";
        format!("kvfs: {database}{new} is mounted on {dir}; end it with: umount {dir}; {why}\n")
    };
    assert!(out.status.success() && out.stdout.is_empty(), "{out:?}");
    assert_eq!(String::from_utf8(out.stderr).unwrap(), says(" (new)"));
    fs::write(dir.join("db"), "{}").unwrap();
    assert!(database.exists());
    assert_eq!(fs::metadata(home.path().join("data/kvfs")).unwrap().mode() & 0o777, 0o700);
    unmount(&dir);
    // The mount is gone when umount returns; the daemon ends with it.
    let again = run(&home, &["-o", "ro,_netdev,nofail,x-systemd.automount", "none", dir.to_str().unwrap()]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(String::from_utf8(again.stderr).unwrap(), says(""));
    assert_eq!(fs::read_to_string(dir.join("db")).unwrap(), "{}");
    assert_eq!(errno(fs::write(dir.join("db"), "1")), libc::EROFS);
    unmount(&dir);
}

#[test]
fn the_mount_table_shows_type_and_source_and_safe_flags() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--allow-other"]);
    let table = fs::read_to_string("/proc/mounts").unwrap();
    let line = table.lines().find(|line| line.contains(mount.dir.to_str().unwrap())).unwrap();
    let fields: Vec<&str> = line.split(' ').collect();
    assert!(fields[0].starts_with("sqlite:/") && fields[2] == "fuse.kvfs", "{line}");
    for flag in ["nosuid", "nodev", "noexec", "default_permissions", "allow_other"] {
        assert!(fields[3].split(',').any(|set| set == flag), "{flag}: {line}");
    }
}

#[test]
fn mount_8_and_the_environment_pass_options() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let dir = home.path().join("mnt");
    fs::create_dir(&dir).unwrap();
    // mount(8) finds helpers in the system's directories only.
    let script = "set -e; mount --bind \"$BIN\" /usr/local/sbin
        mount -t fuse.kvfs -o ro,uid=12,gid=34,umask=027,nofail,_netdev memory: mnt
        stat -c '%u %g %a' mnt; umount mnt";
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .current_dir(home.path())
        .env("BIN", Path::new(KVFS).parent().unwrap())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "12 34 750\n", "{out:?}");
    let out = Mount::command(&home)
        .arg(&dir)
        .env("KVFS_STORE", "memory:")
        .env("KVFS_UMASK", "077")
        .env("KVFS_READ_ONLY", "true")
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(errno(fs::write(dir.join("x"), "1")), libc::EROFS);
    unmount(&dir);
}

#[test]
fn other_users_enter_only_if_told_so() {
    if !can_mount() {
        return;
    }
    let as_nobody = |dir: &Path, script: &str| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
            .current_dir("/");
        command.env("D", dir).output().unwrap()
    };
    for (args, enters) in [(&[][..], false), (&["--allow-other"][..], true)] {
        let mount = Mount::memory(args);
        fs::set_permissions(mount.home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(mount.path("open"), "1").unwrap();
        fs::write(mount.path("secret"), "2").unwrap();
        fs::set_permissions(mount.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(as_nobody(&mount.dir, "cat $D/open").status.success(), enters);
        assert!(!as_nobody(&mount.dir, "cat $D/secret").status.success());
        assert!(!as_nobody(&mount.dir, "echo 3 > $D/open").status.success());
        assert!(!as_nobody(&mount.dir, "echo 3 > $D/new").status.success());
        assert_eq!(fs::read_to_string(mount.path("open")).unwrap(), "1");
    }
}

#[test]
fn status_tells_of_live_and_dead_mounts() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    fs::write(mount.path("db"), "1").unwrap();
    let out = Command::new(KVFS).arg("status").arg(&mount.dir).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("memory:") && text.contains("set_key_value 1"), "{text}");
    let home = TempDir::new().unwrap();
    let (text, code) = failure(&run(&home, &["status", home.path().to_str().unwrap()]));
    assert!(text.contains("nothing of kvfs is mounted") && code == 3, "{text}");
    assert!(Command::new("kill").args(["-9", &mount.pid.to_string()]).status().unwrap().success());
    wait_for(PATIENCE, || !Path::new(&format!("/proc/{}", mount.pid)).exists());
    let out = Command::new(KVFS).arg("status").arg(&mount.dir).output().unwrap();
    assert!(String::from_utf8(out.stdout).unwrap().contains("dead"));
}

/// The guard's process of the mount at `dir`, if there is one.
fn guards(dir: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let ours = |process: &PathBuf| {
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
        arguments.contains(&&b"__guard"[..]) && arguments.contains(&dir.as_os_str().as_encoded_bytes())
    };
    processes.filter(ours).count()
}

#[test]
fn the_guard_of_a_mount_lives_as_long_as_its_daemon() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let dir = mount.dir.clone();
    wait_for(PATIENCE, || guards(&dir) == 1);
    let home = mount.unmount();
    assert_eq!(guards(&dir), 0);
    let mount = Mount::start_in(home, "memory:", &[]);
    wait_for(PATIENCE, || guards(&dir) == 1);
    assert!(Command::new("kill").arg(mount.pid.to_string()).status().unwrap().success());
    wait_for(PATIENCE, || guards(&dir) == 0);
}

#[test]
fn a_mount_that_does_not_answer_is_named_and_not_waited_for() {
    if !can_mount() {
        return;
    }
    let mount = Mount::memory(&[]);
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &mount.pid.to_string()]).status().unwrap().success());
    };
    stop(mount.pid);
    let (text, code) = failure(&run(&mount.home, &["memory:", mount.dir.to_str().unwrap()]));
    signal("-CONT");
    assert!(text.contains("does not answer") && text.contains("umount -f") && code == 3, "{code} {text}");
}

#[test]
fn the_background_process_keeps_nothing_of_its_parent() {
    if !can_mount() {
        return;
    }
    let home = TempDir::new().unwrap();
    let dir = home.path().join("mnt");
    // `output` waits for the end of both pipes: it returns only if the daemon holds neither.
    let out = Mount::command(&home)
        .args(["--quiet", "memory:", "mnt"])
        .current_dir(home.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success() && out.stdout.is_empty() && out.stderr.is_empty(), "{out:?}");
    let pid = common::status_of(&dir)["pid"].as_i64().unwrap();
    let process = format!("/proc/{pid}");
    assert_eq!(fs::read_link(format!("{process}/cwd")).unwrap(), Path::new("/"));
    assert_eq!(fs::read_link(format!("{process}/fd/0")).unwrap(), Path::new("/dev/null"));
    assert!(fs::read_link(format!("{process}/fd/2")).unwrap().ends_with("state/kvfs/kvfs.log"));
    unmount(&dir);
    wait_for(PATIENCE, || !Path::new(&process).exists());
}
