//! Attributes: kept with a key, and with a prefix of keys.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kvfs::store::{
    Attributes, Change, Error, Expect, Given, Key, Meta, MovedPrefix, Rename, with_attributes,
    with_moved_prefix,
};

use super::{Bench, PATIENCE};

fn mode(mode: u32) -> Attributes {
    Attributes { mode: Some(mode), ..Attributes::default() }
}

fn given(mode: u32) -> Given {
    Given { attributes: self::mode(mode), replaces: true }
}

fn old() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

fn set(meta: &Meta) -> Attributes {
    meta.attributes.as_deref().cloned().unwrap_or_default()
}

impl Bench {
    async fn chmod(&self, key: &str, changes: &Attributes) -> Meta {
        self.0.set_attributes(&key.into(), changes).await.unwrap()
    }

    async fn prefixes(&self) -> Vec<(String, Option<u32>)> {
        let kept = self.0.list_prefixes().await.unwrap();
        kept.into_iter().map(|(key, kept)| (key.as_str().to_owned(), kept.mode)).collect()
    }
}

pub(crate) async fn attributes_are_kept_with_the_key(at: Bench, elsewhere: Bench) {
    assert!(at.0.keeps_attributes());
    let before = at.set("k", "1").await;
    assert_eq!(before.attributes, None);
    at.chmod("k", &mode(0o600)).await;
    let meta = at.chmod("k", &Attributes { uid: Some(7), ..Attributes::default() }).await;
    assert_eq!(Meta { attributes: None, ..meta }, before);
    let entry = elsewhere.get("k").await.unwrap();
    assert_eq!(
        (set(&entry.meta).mode, set(&entry.meta).uid, set(&entry.meta).gid),
        (Some(0o600), Some(7), None)
    );
    assert_eq!(elsewhere.list().await, [("k".to_owned(), entry.meta)]);
    assert_eq!(at.0.set_attributes(&"none".into(), &mode(0o600)).await, Err(Error::NotFound));
}

pub(crate) async fn a_set_keeps_attributes_but_its_time_is_its_own(at: Bench, _: Bench) {
    let first = at.set("k", "1").await;
    let meta = at.chmod("k", &Attributes { modified: Some(old()), ..mode(0o600) }).await;
    assert_eq!((set(&meta).modified, set(&meta).version), (Some(old()), first.revision));
    let meta = at.set("k", "2").await;
    assert_eq!((set(&meta).mode, set(&meta).modified), (Some(0o600), None));
    assert_eq!(at.get("k").await.unwrap().meta, meta);
    let replaced = with_attributes(Some(given(0o640)), at.set("k", "3")).await;
    assert_eq!((set(&replaced).mode, set(&replaced).modified), (Some(0o640), None));
    let none = Given { attributes: Attributes::default(), replaces: true };
    assert_eq!(with_attributes(Some(none), at.set("k", "4")).await.attributes, None);
    at.delete("k").await.unwrap();
    assert_eq!(at.set("k", "5").await.attributes, None);
}

pub(crate) async fn a_rename_takes_attributes_along(at: Bench, elsewhere: Bench) {
    at.set("from", "1").await;
    at.chmod("from", &Attributes { modified: Some(old()), ..mode(0o600) }).await;
    at.set("to", "2").await;
    at.chmod("to", &mode(0o777)).await;
    at.rename("from", "to").await.unwrap();
    let meta = elsewhere.get("to").await.unwrap().meta;
    assert_eq!(
        (set(&meta).mode, set(&meta).modified, set(&meta).version),
        (Some(0o600), Some(old()), meta.revision)
    );
    let rename = Rename { from: "to".into(), to: "all".into(), at: meta.revision };
    at.0.rename_keys(&[rename]).await.unwrap();
    let meta = elsewhere.get("all").await.unwrap().meta;
    assert_eq!((set(&meta).mode, set(&meta).version), (Some(0o600), meta.revision));
}

pub(crate) async fn a_change_of_attributes_is_told(at: Bench, elsewhere: Bench) {
    at.set("k", "1").await;
    let mut feed = elsewhere.0.changes().unwrap();
    let key = at.chmod("k", &mode(0o600)).await;
    let kept = at.0.set_prefix(&"d/".into(), &given(0o2775)).await.unwrap();
    at.0.set_prefix(&"d/".into(), &Given { replaces: true, ..Given::default() }).await.unwrap();
    at.set("end", "1").await;
    let mut told = Vec::new();
    loop {
        let change = tokio::time::timeout(PATIENCE, feed.recv()).await.unwrap().unwrap();
        match &change {
            Change::Set(end, _) if end.as_str() == "end" => break,
            // The table is new.
            Change::Everything => {
                assert_eq!(elsewhere.get("k").await.unwrap().meta, key);
                assert_eq!(elsewhere.prefixes().await, []);
                at.set("end", "2").await;
                told = vec![
                    Change::Set("k".into(), key.clone()),
                    Change::Prefix("d/".into(), None, key.revision),
                ];
            }
            _ => told.push(change),
        }
    }
    assert_eq!(told[0], Change::Set("k".into(), key));
    let prefixes = told[1..].iter().map(|change| match change {
        Change::Prefix(prefix, kept, _) if prefix.as_str() == "d/" => kept.clone(),
        other => panic!("{other:?}"),
    });
    let prefixes: Vec<Option<Arc<Attributes>>> = prefixes.collect();
    assert!(prefixes.last().unwrap().is_none(), "{prefixes:?}");
    assert!(prefixes.iter().flatten().all(|told| Some(told) == kept.as_ref()), "{prefixes:?}");
}

pub(crate) async fn attributes_are_kept_of_prefixes(at: Bench, elsewhere: Bench) {
    let with = async |prefix: &str, given: Given| at.0.set_prefix(&prefix.into(), &given).await.unwrap();
    assert_eq!(at.prefixes().await, []);
    assert_eq!(with("none/", Given { replaces: true, ..Given::default() }).await, None);
    for prefix in ["", "a/", "a/b/", "a/b/c/", "ab/", "é/"] {
        assert_eq!(with(prefix, given(0o700)).await.unwrap().mode, Some(0o700));
    }
    let more = Attributes { gid: Some(9), ..Attributes::default() };
    let merged = with("ab/", Given { attributes: more, replaces: false }).await.unwrap();
    assert_eq!((merged.mode, merged.gid), (Some(0o700), Some(9)));
    // They are none of keys.
    assert_eq!(elsewhere.keys().await, [""; 0]);
    // What is replaced has nothing below it.
    with("a/b/", given(0o2775)).await;
    let names = ["", "a/", "a/b/", "ab/", "é/"];
    let modes = [0o700, 0o700, 0o2775, 0o700, 0o700];
    let all: Vec<_> = names.iter().zip(modes).map(|(name, mode)| ((*name).to_owned(), Some(mode))).collect();
    assert_eq!(elsewhere.prefixes().await, all);
    with("a/", Given { replaces: true, ..Given::default() }).await;
    assert_eq!(elsewhere.prefixes().await.len(), 3);
    at.set("a/", "1").await;
    assert_eq!(at.keys().await, ["a/"]);
}

pub(crate) async fn a_rename_takes_those_of_a_prefix_along(at: Bench, elsewhere: Bench) {
    let at_key = at.set("a/k", "1").await.revision;
    for prefix in ["", "a/", "a/b/", "ab/", "to/", "to/old/"] {
        at.0.set_prefix(&prefix.into(), &given(0o700)).await.unwrap();
    }
    at.0.set_prefix(&"a/".into(), &given(0o2775)).await.unwrap();
    at.0.set_prefix(&"a/b/".into(), &given(0o711)).await.unwrap();
    let moved = Some(MovedPrefix { from: "a/".into(), to: "to/".into() });
    let rename = |at| [Rename { from: Key::from("a/k"), to: "to/k".into(), at }];
    let refused = with_moved_prefix(moved.clone(), at.0.rename_keys(&rename(kvfs::store::Revision(0)))).await;
    assert_eq!(refused, Err(Error::Changed));
    assert_eq!(at.prefixes().await.len(), 6);
    with_moved_prefix(moved, at.0.rename_keys(&rename(at_key))).await.unwrap();
    let expected = [("", 0o700), ("ab/", 0o700), ("to/", 0o2775), ("to/b/", 0o711)];
    let expected: Vec<_> = expected.map(|(prefix, mode)| (prefix.to_owned(), Some(mode))).into();
    assert_eq!(elsewhere.prefixes().await, expected);
    // Also where there are no keys in it.
    let moved = Some(MovedPrefix { from: "to/".into(), to: "end/".into() });
    at.try_delete("to/k", Expect::Anything).await.unwrap();
    with_moved_prefix(moved, at.0.rename_keys(&[])).await.unwrap();
    assert_eq!(elsewhere.prefixes().await[2], ("end/".to_owned(), Some(0o2775)));
}
