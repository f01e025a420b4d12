//! Prefect's own command line and its Python client, beside a mount.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::PATIENCE;
use super::common::{Mount, can_mount, wait_for};
use super::server::{PATIENT, Server};

/// Runs `prefect variable` with these arguments; returns its exit code and what it printed.
#[track_caller]
fn variable(server: &Server, args: &[&str]) -> (Option<i32>, String) {
    let out = server.prefect("prefect").arg("variable").args(args).output().unwrap();
    (out.status.code(), both(&out))
}

fn both(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn the_command_line_and_the_mount_see_what_the_other_one_wrote() {
    let Some(server) = can_mount().then(Server::fresh).flatten() else { return };
    let mount = Mount::prefect(&server.address, &PATIENT);
    let shows = |name: &str, text: &str| {
        wait_for(PATIENCE, || fs::read_to_string(mount.path(name)).is_ok_and(|shown| shown == text));
    };
    fs::write(mount.path("ours"), "{\"host\": \"db1\"}\n").unwrap();
    let (code, said) = variable(&server, &["get", "ours"]);
    assert_eq!((code, serde_json::from_str(&said).ok()), (Some(0), Some(json!({"host": "db1"}))), "{said}");
    assert_eq!(variable(&server, &["set", "theirs", "[1, 2.5, null]"]).0, Some(0));
    shows("theirs", "[\n  1,\n  2.5,\n  null\n]\n");
    assert_eq!(variable(&server, &["set", "ours", "plain text", "--overwrite"]).0, Some(0));
    shows("ours", "\"plain text\"\n");
    let (_, listed) = variable(&server, &["ls", "-o", "json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mut names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ours", "theirs"]);
    assert_eq!(variable(&server, &["unset", "ours"]).0, Some(0));
    wait_for(PATIENCE, || !mount.path("ours").exists());
    fs::remove_file(mount.path("theirs")).unwrap();
    let (code, said) = variable(&server, &["get", "theirs"]);
    assert_eq!((code, said.contains("not found")), (Some(1), true), "{said}");
}

#[test]
fn a_flow_and_the_mount_see_what_the_other_one_wrote() {
    let Some(server) = can_mount().then(Server::fresh).flatten() else { return };
    let mount = Mount::prefect(&server.address, &PATIENT);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prefect/flow.py");
    let out = server.prefect("python").arg(script).arg(&mount.dir).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).ends_with("passed\n"), "{}", both(&out));
}

#[test]
fn overwriting_and_renaming_keep_id_and_tags() {
    let Some(server) = can_mount().then(Server::fresh).flatten() else { return };
    server.create(&json!({"name": "k", "value": 1, "tags": ["one", "two"]}));
    let before = server.get("k").unwrap();
    let mount = Mount::prefect(&server.address, &PATIENT);
    let kept = |name: &str, value: Value| {
        let now = server.get(name).unwrap();
        assert_eq!((&now["id"], &now["tags"], &now["value"]), (&before["id"], &before["tags"], &value));
    };
    fs::write(mount.path("k"), "2\n").unwrap();
    kept("k", json!(2));
    fs::rename(mount.path("k"), mount.path("m")).unwrap();
    kept("m", json!(2));
    fs::write(mount.path("new"), "3\n").unwrap();
    fs::rename(mount.path("new"), mount.path("m")).unwrap();
    kept("m", json!(3));
    assert_eq!(server.get("new"), None);
}

/// White space is no part of the value: only the server's own count says whether it fits.
#[test]
fn a_value_over_5000_bytes_is_refused_and_kept() {
    let Some(server) = can_mount().then(Server::fresh).flatten() else { return };
    let mount = Mount::prefect(&server.address, &PATIENT);
    let fits = format!("[ \"{}é\" ]", "x".repeat(4_994));
    fs::write(mount.path("k"), &fits).unwrap();
    let over = fits.replace("[ \"", "[ \"x");
    let file = fs::File::create(mount.path("k")).unwrap();
    let errno = super::common::write_and_close(file, over.as_bytes());
    assert_eq!(errno, libc::EFBIG, "{}", mount.last_error());
    assert_eq!(fs::read_to_string(mount.path("k")).unwrap(), fits);
    assert_eq!(server.get("k").unwrap()["value"], serde_json::from_str::<Value>(&fits).unwrap());
    wait_for(PATIENCE, || mount.rejected().iter().any(|path| fs::read_to_string(path).unwrap() == over));
    for name in ["K", "a b", "a.json", "é"] {
        let refused = fs::write(mount.path(name), "1").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{name}");
        assert!(mount.last_error().contains("abcdefghijklmnopqrstuvwxyz"), "{}", mount.last_error());
        assert_eq!(fs::metadata(mount.path(name)).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}
