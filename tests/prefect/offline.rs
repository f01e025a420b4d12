//! A mount that starts while its server does not answer, on what an earlier one has kept.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::PATIENCE;
use super::common::{Mount, can_mount, errno, wait_for};
use super::proxy::{Fault, Proxy};
use super::server::{PATIENT, Server};

#[test]
fn a_start_without_the_server_shows_what_was_known_and_all_is_fresh_afterwards() {
    let Some(server) = can_mount().then(Server::fresh).flatten() else { return };
    server.create(&json!({"name": "a", "value": [1], "tags": ["t"]}));
    server.create(&json!({"name": "b", "value": "two"}));
    let proxy = Proxy::before(&server.address);
    let home = TempDir::new().unwrap();
    let kept = home.path().join("offline");
    let args = [&PATIENT[..], &["--offline-cache", kept.to_str().unwrap(), "--max-age", "10ms"]].concat();
    let mount = Mount::prefect_in(home, &proxy.address, &args);
    assert_eq!(mount.names(), ["a", "b"]);
    let texts = ["a", "b"].map(|name| mount.text(name));
    let home = mount.unmount();

    proxy.set(&Fault::Refuse);
    let mount = Mount::prefect_in(home, &proxy.address, &args);
    assert_eq!(mount.names(), ["a", "b"]);
    assert_eq!(["a", "b"].map(|name| mount.text(name)), texts);
    assert_eq!(errno(fs::write(mount.path("a"), "[2]")), libc::EHOSTUNREACH);
    assert!(mount.status()["kept_s"].is_u64(), "{}", mount.status());

    server.set("a", &json!([3]));
    server.delete("b");
    proxy.set(&Fault::None);
    wait_for(PATIENCE, || mount.text("a").is_some_and(|text| text.contains('3')));
    wait_for(PATIENCE, || mount.names() == ["a"]);
    fs::write(mount.path("new"), "[4]").unwrap();
    assert_eq!(server.get("new").unwrap()["value"], json!([4]));
    assert!(mount.status()["kept_s"].is_null(), "{}", mount.status());
}
