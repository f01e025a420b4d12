//! A mount that starts while its cluster is down, on what an earlier one has kept.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use tempfile::TempDir;

use super::PATIENCE;
use super::server::Cluster;
use crate::common::serve::both;
use crate::common::{Mount, can_mount, errno, wait_for};

/// A mount of `store` with what is kept in `home`, if it starts, and what it says.
fn start(home: TempDir, store: &str, args: &[&str]) -> (Option<Mount>, Output) {
    let mut command = Mount::command(&home);
    command.env("KVFS_OFFLINE_CACHE", home.path().join("offline")).args(args).arg(store);
    Mount::made_by(command, home)
}

fn mount(home: TempDir, store: &str) -> (Mount, String) {
    let (mount, out) = start(home, store, &[]);
    (mount.unwrap_or_else(|| panic!("{}", both(&out))), both(&out))
}

/// Why a start in `home` fails.
fn refusal(home: &Path, store: &str, args: &[&str]) -> String {
    let inner = TempDir::new_in(home).unwrap();
    let mut command = Mount::command(&inner);
    command.arg("--offline-cache").arg(home.join("offline")).args(args).arg(store);
    let (mount, out) = Mount::made_by(command, inner);
    assert!(mount.is_none(), "{}", both(&out));
    both(&out)
}

fn age(mount: &Mount, name: &str) -> f64 {
    let out = mount.sh(&format!("getfattr --only-values -n user.kvfs.age {name}"));
    String::from_utf8(out.stdout).unwrap().parse().unwrap_or_else(|_| panic!("{:?}", out.stderr))
}

fn kept(home: &Path) -> PathBuf {
    let files = fs::read_dir(home.join("offline")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = files.collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// A cluster, and the home of a mount that has read `a` and `d/b` of it and is unmounted.
fn known() -> Option<(Cluster, String, TempDir)> {
    let cluster = can_mount().then(|| Cluster::start(1, &[])).flatten()?;
    let store = format!("etcd:{}/app", cluster.addresses().join(","));
    let (mount, _) = mount(TempDir::new().unwrap(), &store);
    fs::write(mount.path("a"), "[1]\n").unwrap();
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/b"), "{\"b\": 22}").unwrap();
    fs::write(mount.path("gone"), "0").unwrap();
    fs::remove_file(mount.path("gone")).unwrap();
    assert_eq!(mount.names(), ["a", "d"]);
    Some((cluster, store, mount.unmount()))
}

#[test]
fn a_start_while_the_cluster_is_down_shows_what_was_known_and_all_is_fresh_afterwards() {
    let Some((cluster, store, home)) = known() else { return };
    cluster.members[0].kill();
    let (mount, said) = mount(home, &store);
    assert!(said.contains("what was last known is shown"), "{said}");
    assert_eq!(mount.names(), ["a", "d"]);
    assert_eq!(mount.text("a").as_deref(), Some("[1]\n"));
    assert_eq!(mount.text("d/b").as_deref(), Some("{\"b\": 22}"));
    assert_eq!(fs::metadata(mount.path("d/b")).unwrap().len(), 9);
    assert_eq!(mount.text("gone"), None);
    assert!(age(&mount, "a") > 0.0);
    let seen = mount.status();
    assert!(seen["state"] == "down" && seen["kept_s"].is_u64(), "{seen}");
    assert_eq!(errno(fs::write(mount.path("a"), "[2]")), libc::EHOSTUNREACH);
    cluster.members[0].start();
    wait_for(PATIENCE, || mount.status()["freshness"] == "pushed");
    cluster.members[0].put("app/a", "[3]");
    wait_for(PATIENCE, || mount.text("a").as_deref() == Some("[3]"));
    fs::write(mount.path("d/b"), "[4]").unwrap();
    assert_eq!(cluster.members[0].get("app/d/b").unwrap(), b"[4]");
    let seen = mount.status();
    assert!(seen["state"] == "well" && seen["kept_s"].is_null(), "{seen}");
}

#[test]
fn what_cannot_be_used_is_named_and_nothing_is_mounted() {
    let Some((cluster, store, home)) = known() else { return };
    cluster.members[0].kill();
    let (home, directory) = (home.path(), home.path().join("offline"));
    let file = kept(home);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let refused = |args: &[&str], why: &str| {
        let said = refusal(home, &store, args);
        assert!(said.contains(why), "{why}: {said}");
    };
    chmod(&directory, 0o755);
    refused(&[], "other users may enter it");
    chmod(&directory, 0o700);
    chmod(&file, 0o644);
    refused(&[], "it is no file of this user alone");
    chmod(&file, 0o600);
    refused(&["--max-stale", "0"], "older than --max-stale");
    refused(&["--cache-size", "1", "--cache-entries", "1"], "larger than --cache-size");
    refused(&["--max-stale", "0s"], "older than --max-stale");
    let whole = fs::read(&file).unwrap();
    for torn in [&whole[..whole.len() - 1], &whole[..3], b"", b"xxxx{}"] {
        fs::write(&file, torn).unwrap();
        refused(&[], "it is damaged");
    }
    fs::remove_file(&file).unwrap();
    refused(&[], "nothing is kept of it");
    symlink(home.join("elsewhere"), &file).unwrap();
    fs::write(home.join("elsewhere"), &whole).unwrap();
    refused(&[], "is ignored");
}

#[test]
fn a_mount_that_is_killed_has_kept_what_it_knew() {
    let Some((cluster, store, home)) = known() else { return };
    let file = kept(home.path());
    fs::remove_file(&file).unwrap();
    let (first, _) = mount(home, &store);
    assert_eq!(first.text("a").as_deref(), Some("[1]\n"));
    wait_for(PATIENCE, || file.exists());
    wait_for(PATIENCE, || String::from_utf8_lossy(&fs::read(&file).unwrap()).contains("WzFdCg"));
    let dead = std::process::Command::new("kill").args(["-9", &first.pid.to_string()]).status().unwrap();
    assert!(dead.success());
    let home = first.unmount();
    cluster.members[0].kill();
    let (again, _) = mount(home, &store);
    assert_eq!(again.text("a").as_deref(), Some("[1]\n"));
}
