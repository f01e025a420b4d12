//! The `prefect-cloud` store against `kvfs serve`.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::needless_pass_by_value)]

mod directories;
mod memory;
mod offline;
mod renewed;
mod tls;

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use kvfs::store::{PrefectCloudSettings, PrefectCloudStore, Store};
use serde_json::{Value, json};

use crate::common;
use crate::common::serve as server;
use crate::suite;
use common::{Mount, can_mount, close, errno, wait_for};
use server::{KEY, Server};
use suite::{Fresh, PATIENCE};

fn store(server: &Server) -> Arc<dyn Store> {
    let settings = PrefectCloudSettings {
        url: format!("http://{}", server.address),
        key: Some(KEY.to_owned()),
        key_from: "the test",
        key_source: None,
        tenant: None,
    };
    Arc::new(PrefectCloudStore::open(&settings, PATIENCE).unwrap())
}

mod over_memory {
    fn fresh() -> super::Fresh {
        let server = super::Server::memory();
        let (store, elsewhere) = (super::store(&server), super::store(&server));
        super::Fresh { store, elsewhere, home: Some(Box::new(server)) }
    }

    conformance!(fresh, json);
}

#[test]
fn a_listing_brings_all_values_in_one_request_and_a_set_is_one() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    for number in 0..1_000 {
        server.set(&format!("key{number}"), json!({"number": number}));
    }
    let requests = || server.log().matches("POST").count();
    let mount = Mount::prefect_cloud(&server.address, KEY, &["--max-age", "10m"]);
    let (before, asked) = (requests(), mount.calls("get_key_value"));
    let read_all = || {
        for entry in fs::read_dir(&mount.dir).unwrap() {
            let path = entry.unwrap().path();
            let size = fs::metadata(&path).unwrap().len();
            let text = fs::read(&path).unwrap();
            assert_eq!(size, text.len() as u64);
            assert!(serde_json::from_slice::<Value>(&text).unwrap()["number"].is_u64());
        }
    };
    read_all();
    assert_eq!(requests() - before, 1, "cold");
    read_all();
    assert_eq!(requests() - before, 1, "hot");
    fs::write(mount.path("key7"), "\"new\"\n").unwrap();
    assert_eq!(requests() - before, 2, "a set");
    assert_eq!(server.get("key7"), Some(json!("new")));
    assert_eq!(fs::read_to_string(mount.path("key7")).unwrap(), "\"new\"\n");
    fs::File::create_new(mount.path("empty")).unwrap();
    for _ in 0..3 {
        assert_eq!(fs::metadata(mount.path("empty")).unwrap().len(), 0);
    }
    assert_eq!(mount.calls("get_key_value") - asked, 1, "that there is no such key");
}

/// The API has no revisions: only the value and the id tell of a change.
#[test]
fn a_key_set_to_an_equal_value_has_not_changed_and_one_set_anew_has() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    let mount = Mount::prefect_cloud(&server.address, KEY, &[]);
    fs::write(mount.path("k"), "1\n").unwrap();
    let change = |meanwhile: &dyn Fn()| {
        let mut file = fs::OpenOptions::new().read(true).write(true).open(mount.path("k")).unwrap();
        meanwhile();
        file.write_all(b"2").unwrap();
        close(file)
    };
    let set = || server.set("k", json!(1));
    assert_eq!(change(&|| drop(set())), 0);
    assert_eq!(server.get("k"), Some(json!(2)));
    let id = set();
    wait_for(PATIENCE, || fs::read(mount.path("k")).is_ok_and(|text| text == b"1\n"));
    let set_anew = || {
        server.data(DELETE, json!({"id": id}));
        set();
    };
    assert_eq!(change(&set_anew), libc::ESTALE);
    assert_eq!(server.get("k"), Some(json!(1)));
}

const DELETE: &str = "mutation($id: UUID!) { delete_key_value(input: {key_value_id: $id}) { success } }";

#[test]
fn what_others_change_is_seen_within_the_age_and_the_last_values_outlive_the_server() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    server.set("k", json!([1]));
    let mount = Mount::prefect_cloud(&server.address, KEY, &["--max-age", "200ms"]);
    let text = |name: &str| fs::read_to_string(mount.path(name));
    assert_eq!(text("k").unwrap(), "[\n  1\n]\n");
    server.set("k", json!([2]));
    wait_for(PATIENCE, || text("k").is_ok_and(|text| text == "[\n  2\n]\n"));
    server.set("new", json!(1));
    wait_for(PATIENCE, || text("new").is_ok());
    let id = server.set("new", json!(2));
    server.data(DELETE, json!({"id": id}));
    wait_for(PATIENCE, || errno(text("new")) == libc::ENOENT);
    fs::File::create_new(mount.path("new")).unwrap();
    let mut file = fs::File::create(mount.path("k")).unwrap();
    file.write_all(b"3").unwrap();
    drop(server);
    assert_eq!(close(file), libc::EHOSTUNREACH);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(text("k").unwrap(), "[\n  2\n]\n");
    // Known to be down by the read: a shell fails at the open already.
    assert_eq!(errno(fs::File::create(mount.path("k"))), libc::EHOSTUNREACH);
    for name in ["k", "other"] {
        let out = mount.sh(&format!("cat k > /dev/null; echo 4 > {name}"));
        assert!(!out.status.success(), "a shell that writes while the server is known to be down: {out:?}");
    }
    assert_eq!(text("k").unwrap(), "[\n  2\n]\n");
}

#[test]
fn a_wrong_key_is_access_denied_and_says_where_it_is_from() {
    if !can_mount() {
        return;
    }
    let server = Server::memory();
    let home = Mount::prefect_cloud(&server.address, KEY, &[]).unmount();
    let auth = home.path().join(".prefect/auth.toml");
    fs::write(&auth, fs::read_to_string(&auth).unwrap().replace(KEY, "pcu_wrong")).unwrap();
    let store = format!("prefect-cloud:http://{}", server.address);
    let out = Mount::command(&home).arg(store).arg(home.path().join("mnt")).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), said.lines().count()), (Some(4), 1), "{said}");
    assert!(said.contains("auth.toml") && !said.contains("pcu_wrong"), "{said}");
}
