//! `kvfs copy`: from any store to any other, with nothing dropped in silence.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use kvfs::store::{Attributes, Expect, Given, Key, SqliteStore, Store};
use serde_json::json;
use tempfile::TempDir;

use crate::common;
use crate::common::serve as server;
use common::KVFS;
use server::{KEY, Server};

fn copy(args: &[&str]) -> Output {
    Command::new(KVFS).arg("copy").args(args).env("PREFECT__CLOUD__API_KEY", KEY).output().unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, lines: &[&str]) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        (output.status.code(), said.lines().collect::<Vec<_>>()),
        (Some(code), lines.to_vec()),
        "{output:?}"
    );
}

/// A database with these keys and texts.
fn database(home: &Path, name: &str, keys: &[(&str, &str)]) -> String {
    let path = home.join(name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = SqliteStore::open(&path, Duration::from_secs(5)).unwrap();
    for (key, text) in keys {
        let key = Key::from(*key);
        let set = store.set_key_value(&key, Arc::from(text.as_bytes()), Expect::Anything);
        runtime.block_on(set).unwrap();
    }
    format!("sqlite:{}", path.display())
}

fn text(location: &str, key: &str) -> Option<String> {
    let path = location.strip_prefix("sqlite:").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = SqliteStore::open(Path::new(path), Duration::from_secs(5)).unwrap();
    let key = Key::from(key);
    let entry = runtime.block_on(store.get_key_value(&key)).ok()?;
    Some(String::from_utf8(entry.text.to_vec()).unwrap())
}

#[test]
fn all_keys_are_copied_and_a_second_time_changes_nothing() {
    let home = TempDir::new().unwrap();
    let from = database(home.path(), "a.db", &[("a/b", "{ \"x\" : 1 }"), ("", "2"), ("zürich", "[3]")]);
    let to = database(home.path(), "b.db", &[("other", "4")]);
    says(
        &copy(&["--dry-run", &from, &to]),
        0,
        &[
            "\"\" copied",
            "\"a/b\" copied",
            "\"zürich\" copied",
            "3 to be copied, 0 there already, 0 not copied",
        ],
    );
    assert_eq!(text(&to, "a/b"), None);
    says(&copy(&[&from, &to]), 0, &["3 copied, 0 there already, 0 not copied"]);
    assert_eq!(text(&to, "a/b").as_deref(), Some("{ \"x\" : 1 }"));
    assert_eq!(text(&to, "other").as_deref(), Some("4"));
    says(&copy(&[&from, &to]), 0, &["0 copied, 3 there already, 0 not copied"]);
}

/// What `work` comes to in the database at `location`.
fn within<T>(location: &str, work: impl AsyncFnOnce(&SqliteStore) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let path = location.strip_prefix("sqlite:").unwrap();
    let store = SqliteStore::open(Path::new(path), Duration::from_secs(5)).unwrap();
    runtime.block_on(work(&store))
}

/// The modes of keys, in their order, and of prefixes.
type Modes = (Vec<Option<u32>>, Vec<(String, Option<u32>)>);

fn modes(location: &str) -> Modes {
    within(location, async |store| {
        let keys = store.list_keys().await.unwrap();
        let prefixes = store.list_prefixes().await.unwrap();
        let keys = keys.into_iter().map(|(_, meta)| meta.attributes.and_then(|kept| kept.mode));
        let prefixes = prefixes.into_iter().map(|(prefix, kept)| (prefix.as_str().to_owned(), kept.mode));
        (keys.collect(), prefixes.collect())
    })
}

#[test]
fn owner_and_mode_are_copied_or_it_is_said_of_how_many_they_are_left() {
    let home = TempDir::new().unwrap();
    let from = database(home.path(), "a.db", &[("a/k", "1"), ("b", "2"), ("c", "3")]);
    let mode = |mode| Attributes { mode: Some(mode), ..Attributes::default() };
    within(&from, async |store| {
        for key in ["a/k", "b"] {
            store.set_attributes(&key.into(), &mode(0o600)).await.unwrap();
        }
        for prefix in ["", "a/"] {
            store
                .set_prefix(&prefix.into(), &Given { attributes: mode(0o2775), replaces: false })
                .await
                .unwrap();
        }
    });
    let to = database(home.path(), "b.db", &[]);
    says(
        &copy(&["--dry-run", &from, &to]),
        0,
        &["\"a/k\" copied", "\"b\" copied", "\"c\" copied", "3 to be copied, 0 there already, 0 not copied"],
    );
    assert_eq!(modes(&to), (vec![], vec![]));
    says(&copy(&[&from, &to]), 0, &["3 copied, 0 there already, 0 not copied"]);
    assert_eq!(modes(&to), modes(&from));
    // What the target says of them stays, unless it is to be replaced.
    within(&to, async |store| {
        store.set_attributes(&"b".into(), &mode(0o640)).await.unwrap();
        store.set_prefix(&"".into(), &Given { attributes: mode(0o700), replaces: false }).await.unwrap();
    });
    says(&copy(&[&from, &to]), 0, &["0 copied, 3 there already, 0 not copied"]);
    assert_eq!((modes(&to).0[1], modes(&to).1[0].1), (Some(0o640), Some(0o700)));
    says(&copy(&["--replace", &from, &to]), 0, &["0 copied, 3 there already, 0 not copied"]);
    assert_eq!(modes(&to), modes(&from));
    let server = Server::memory();
    let cloud = format!("prefect-cloud:http://{}", server.address);
    let left = "owner, mode and times of 2 keys and 2 directories are left: the other store keeps none";
    says(&copy(&[&from, &cloud]), 0, &[left, "3 copied, 0 there already, 0 not copied"]);
}

#[test]
fn another_value_is_overwritten_only_when_asked() {
    let home = TempDir::new().unwrap();
    let from = database(home.path(), "a.db", &[("k", "1"), ("l", "2")]);
    let to = database(home.path(), "b.db", &[("k", "9")]);
    says(
        &copy(&[&from, &to]),
        1,
        &[
            "\"k\" not copied: there is another value of this key; --replace overwrites it",
            "1 copied, 0 there already, 1 not copied",
        ],
    );
    assert_eq!(text(&to, "k").as_deref(), Some("9"));
    says(&copy(&["--replace", &from, &to]), 0, &["1 copied, 1 there already, 0 not copied"]);
    assert_eq!(text(&to, "k").as_deref(), Some("1"));
}

#[test]
fn a_server_of_the_old_api_is_read_and_written() {
    let home = TempDir::new().unwrap();
    let server = Server::memory();
    server.set("team/k", json!({"n": 1}));
    let old = format!("prefect-cloud:http://{}", server.address);
    let to = database(home.path(), "b.db", &[]);
    says(&copy(&[&old, &to]), 0, &["1 copied, 0 there already, 0 not copied"]);
    assert_eq!(text(&to, "team/k").as_deref(), Some("{\n  \"n\": 1\n}\n"));
    // Values by the rule of Prefect 1.x: 10,000 characters, escapes counted.
    let long = json!("é".repeat(2_000)).to_string();
    let from = database(home.path(), "a.db", &[("new", "[true]"), ("long", &long), ("bytes", "\u{1}")]);
    let refused = copy(&[&from, &old]);
    let said = String::from_utf8_lossy(&refused.stdout);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("\"bytes\" not copied") && said.contains("\"long\" not copied"), "{said}");
    assert!(said.ends_with("1 copied, 0 there already, 2 not copied\n"), "{said}");
    assert_eq!(server.get("new"), Some(json!([true])));
    drop(server);
    let out = copy(&["--timeout", "2s", &old, &to]);
    assert_eq!(out.status.code(), Some(4), "{out:?}");
}
