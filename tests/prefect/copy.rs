//! From the keys and values of Prefect 1.x to Variables: what must be renamed or does not fit is said.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kvfs::store::{Expect, Key, SqliteStore, Store};
use serde_json::json;
use tempfile::TempDir;

use super::common::KVFS;
use super::server::Server;

#[test]
fn nothing_of_the_old_keys_is_dropped_in_silence() {
    let Some(server) = Server::fresh() else { return };
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let store = SqliteStore::open(&path, Duration::from_secs(5)).unwrap();
    let large = json!("x".repeat(6_000)).to_string();
    let keys = [
        ("plain", "{\"a\": 1}"),
        ("Vision Zero", "2"),
        ("vision-Zero", "5"),
        ("team/key", "3"),
        ("team key", "4"),
        ("large", &large),
        ("huge", "[1e400]"),
    ];
    super::suite::block_on(async {
        for (key, text) in keys {
            store.set_key_value(&Key::from(key), Arc::from(text.as_bytes()), Expect::Anything).await.unwrap();
        }
    });
    let run = |args: &[&str]| {
        let (from, to) = (format!("sqlite:{}", path.display()), format!("prefect:{}", server.url()));
        let out = Command::new(KVFS).arg("copy").args(args).args([from, to]).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    let (code, said) = run(&[]);
    assert_eq!(code, Some(1));
    for line in [
        "\"Vision Zero\" not copied: the other store cannot have this key; --rename makes it \"vision_zero\"",
        "\"large\" not copied: the value has 6002 bytes, the limit is 5000",
        "\"huge\" not copied: the number 1e+400 is too large for Prefect",
        "1 copied, 0 there already, 6 not copied",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    let (code, said) = run(&["--rename"]);
    assert_eq!(code, Some(1));
    for line in [
        "\"Vision Zero\" copied as \"vision_zero\"",
        "\"team key\" copied as \"team_key\"",
        "\"team/key\" not copied as \"team_key\": \"team key\" has become \"team_key\" already",
        "\"vision-Zero\" copied as \"vision-zero\"",
        "3 copied, 1 there already, 3 not copied",
    ] {
        assert!(said.contains(line), "no {line:?} in {said}");
    }
    assert_eq!(server.get("team_key").unwrap()["value"], 4);
    assert_eq!(server.names(), ["plain", "team_key", "vision-zero", "vision_zero"]);
    // A name that a key has is never given to another one.
    super::suite::block_on(async {
        let text = Arc::from(&b"6"[..]);
        store.set_key_value(&Key::from("vision-zero"), text, Expect::Anything).await.unwrap();
    });
    let (_, said) = run(&["--rename", "--replace"]);
    assert!(
        said.contains(
            "\"vision-Zero\" not copied as \"vision-zero\": there is a key \"vision-zero\" already"
        ),
        "{said}"
    );
    assert_eq!(server.get("vision-zero").unwrap()["value"], 6);
}
