//! Keys that are on a lease of their owner: a value goes with it, whoever set it last.

use std::fs;
use std::process::Command;

use kvfs::store::{Error, Expect, Rename};
use serde_json::json;
use tempfile::TempDir;

use super::common::{Mount, can_mount, errno, wait_for};
use super::server::{Shared, base64};
use super::suite::{Bench, block_on};
use super::{PATIENCE, store};

/// Longer than any test.
const LONG: u64 = 3_600;

/// Grants a lease of so many seconds.
fn grant(cluster: &Shared, seconds: u64) -> String {
    let (status, answer) = cluster.members[0].ask("lease/grant", &json!({"TTL": seconds.to_string()}));
    assert_eq!(status, 200, "{answer}");
    answer["ID"].as_str().unwrap().to_owned()
}

fn put(cluster: &Shared, key: &str, lease: &str) {
    let key = base64(format!("{}{key}", cluster.prefix()));
    let body = json!({"key": key, "value": base64("1"), "lease": lease});
    assert_eq!(cluster.members[0].ask("kv/put", &body).0, 200);
}

/// The lease that a key is on.
fn lease_of(cluster: &Shared, key: &str) -> Option<String> {
    let key = base64(format!("{}{key}", cluster.prefix()));
    let (_, answer) = cluster.members[0].ask("kv/range", &json!({"key": key}));
    Some(answer["kvs"][0]["lease"].as_str()?.to_owned())
}

fn revoke(cluster: &Shared, lease: &str) {
    assert_eq!(cluster.members[0].ask("lease/revoke", &json!({"ID": lease})).0, 200);
}

#[test]
fn a_set_leaves_a_key_on_its_lease() {
    let Some(cluster) = Shared::one() else { return };
    let at = Bench(store(&cluster.argument()));
    let lease = grant(&cluster, LONG);
    put(&cluster, "k", &lease);
    block_on(async {
        let set = at.set("k", "2").await;
        assert_eq!(lease_of(&cluster, "k").as_ref(), Some(&lease));
        let set = at.try_set("k", "3", Expect::At(set.revision)).await.unwrap();
        assert_eq!(lease_of(&cluster, "k").as_ref(), Some(&lease));
        assert_eq!(at.get("k").await.unwrap().meta, set);
        // Onto itself.
        at.rename("k", "k").await.unwrap();
        assert_eq!(lease_of(&cluster, "k").as_ref(), Some(&lease));
        at.set("free", "1").await;
        assert_eq!(at.try_set("new", "1", Expect::Absent).await.unwrap().size, 1);
        revoke(&cluster, &lease);
        assert_eq!(at.keys().await, ["free", "new"]);
        assert_eq!(at.try_set("k", "4", Expect::At(set.revision)).await, Err(Error::Changed));
    });
}

#[test]
fn a_key_that_is_renamed_stays_on_its_lease_and_one_that_is_replaced_keeps_its_own() {
    let Some(cluster) = Shared::one() else { return };
    let at = Bench(store(&cluster.argument()));
    let [one, other] = [grant(&cluster, LONG), grant(&cluster, LONG)];
    block_on(async {
        put(&cluster, "from", &one);
        at.rename("from", "moved").await.unwrap();
        assert_eq!(lease_of(&cluster, "moved").as_ref(), Some(&one));
        at.try_rename("moved", "again", Expect::Absent).await.unwrap();
        assert_eq!(lease_of(&cluster, "again").as_ref(), Some(&one));
        put(&cluster, "target", &other);
        at.set("plain", "5").await;
        at.rename("plain", "target").await.unwrap();
        assert_eq!(lease_of(&cluster, "target").as_ref(), Some(&other));
        at.set("plain", "6").await;
        let there = at.get("target").await.unwrap().meta.revision;
        at.try_rename("plain", "target", Expect::At(there)).await.unwrap();
        assert_eq!(lease_of(&cluster, "target").as_ref(), Some(&other));
        at.rename("again", "target").await.unwrap();
        assert_eq!(lease_of(&cluster, "target").as_ref(), Some(&other));
        // A target without one takes none.
        at.set("free", "7").await;
        at.rename("target", "free").await.unwrap();
        assert_eq!(lease_of(&cluster, "free"), None);
        assert_eq!((at.keys().await, at.text("free").await), (vec!["free".to_owned()], b"1".to_vec()));
    });
}

#[test]
fn keys_that_are_renamed_together_stay_on_their_leases() {
    let Some(cluster) = Shared::one() else { return };
    let at = Bench(store(&cluster.argument()));
    let lease = grant(&cluster, LONG);
    put(&cluster, "d/leased", &lease);
    block_on(async {
        at.set("d/plain", "1").await;
        let renames: Vec<Rename> = at
            .list()
            .await
            .into_iter()
            .map(|(from, meta)| Rename {
                to: from.replace("d/", "e/").into(),
                from: from.into(),
                at: meta.revision,
            })
            .collect();
        at.0.rename_keys(&renames).await.unwrap();
    });
    assert_eq!(lease_of(&cluster, "e/leased"), Some(lease));
    assert_eq!(lease_of(&cluster, "e/plain"), None);
}

#[test]
fn how_long_a_value_has_left_is_an_attribute() {
    let Some(cluster) = can_mount().then(Shared::one).flatten() else { return };
    let mount = Mount::start_in(TempDir::new().unwrap(), &cluster.argument(), &[]);
    let lease = grant(&cluster, LONG);
    put(&cluster, "k", &lease);
    fs::write(mount.path("plain"), "1").unwrap();
    wait_for(PATIENCE, || mount.text("k").is_some());
    fs::write(mount.path("k"), "{\"set\": \"here\"}").unwrap();
    let left = |name: &str| {
        let mut command = Command::new("getfattr");
        command.args(["--absolute-names", "--only-values", "-n", "user.kvfs.ttl"]).arg(mount.path(name));
        let out = command.output().unwrap();
        (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let seconds: u64 = left("k").0.parse().unwrap();
    assert!((1..=LONG).contains(&seconds), "{seconds}");
    let (none, said) = left("plain");
    assert!(none.is_empty() && said.contains("No such attribute"), "{none} {said}");
    revoke(&cluster, &lease);
    wait_for(PATIENCE, || errno(fs::metadata(mount.path("k"))) == libc::ENOENT);
}
