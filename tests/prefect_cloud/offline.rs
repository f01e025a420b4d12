//! A mount that starts while its server does not answer, on what an earlier one has kept.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::common::proxy::{Fault, Proxy, response};
use super::common::serve::both;
use super::common::{Mount, PATIENCE, can_mount, errno, wait_for};
use super::server::{KEY, Server};

#[test]
fn a_start_without_the_server_shows_what_was_known_and_one_that_is_refused_fails() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    server.set("a", json!([1]));
    server.set("gone", json!(2));
    let proxy = Proxy::before(&server.address);
    let home = TempDir::new().unwrap();
    let kept = home.path().join("offline");
    let args = ["--offline-cache", kept.to_str().unwrap(), "--max-age", "10ms"];
    let mount = Mount::prefect_cloud_in(home, &proxy.address, KEY, &args);
    assert_eq!(mount.names(), ["a", "gone"]);
    let text = mount.text("a");
    let home = mount.unmount();
    for file in fs::read_dir(&kept).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(KEY));
    }
    let store = format!("prefect-cloud:http://{}", proxy.address);
    proxy.set(&Fault::Answer(response("401 Unauthorized", "", "{}")));
    let inner = TempDir::new_in(home.path()).unwrap();
    let mut command = Mount::command(&inner);
    command.args(args).arg(&store).env("HOME", home.path());
    let (refused, out) = Mount::made_by(command, inner);
    assert!(refused.is_none(), "{}", both(&out));
    proxy.set(&Fault::Refuse);
    let mount = Mount::prefect_cloud_in(home, &proxy.address, KEY, &args);
    assert_eq!(mount.names(), ["a", "gone"]);
    assert_eq!(mount.text("a"), text);
    assert_eq!(errno(fs::write(mount.path("a"), "[2]")), libc::EHOSTUNREACH);
    server.set("a", json!([3]));
    proxy.set(&Fault::None);
    wait_for(PATIENCE, || mount.text("a").is_some_and(|text| text.contains('3')));
    fs::write(mount.path("new"), "[4]").unwrap();
    assert_eq!(server.get("new"), Some(json!([4])));
    assert_eq!(mount.names(), ["a", "gone", "new"]);
}
