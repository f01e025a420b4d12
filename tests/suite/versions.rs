//! Ids, revisions and times.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use super::Bench;

pub(crate) async fn the_id_stays_until_the_key_is_deleted(at: Bench) {
    let id = at.set("k", "1").await.id;
    assert!(!id.is_empty());
    assert_eq!(at.set("k", "2").await.id, id);
    assert_eq!(at.rename("k", "renamed").await.unwrap().id, id);
    assert_eq!(at.set("renamed", "3").await.id, id);
    assert_ne!(at.set("k", "4").await.id, id);
    at.delete("renamed").await.unwrap();
    assert_ne!(at.set("renamed", "5").await.id, id);
    let ids: BTreeSet<_> = at.list().await.into_iter().map(|(_, meta)| meta.id).collect();
    assert_eq!(ids.len(), 2);
}

pub(crate) async fn the_id_stays_across_overwrites(at: Bench) {
    let id = at.set("k", "1").await.id;
    assert!(!id.is_empty());
    assert_eq!(at.set("k", "2").await.id, id);
    assert_eq!(at.rename("k", "k").await.unwrap().id, id);
    assert_eq!(at.get("k").await.unwrap().meta.id, id);
    at.delete("k").await.unwrap();
    let new = at.set("k", "3").await.id;
    assert_ne!(new, id);
    assert_ne!(at.set("other", "1").await.id, new);
}

pub(crate) async fn revisions_grow_across_the_store(at: Bench) {
    let mut given = vec![at.set("a", "1").await.revision];
    given.push(at.set("b", "1").await.revision);
    given.push(at.set("a", "1").await.revision);
    given.push(at.rename("a", "c").await.unwrap().revision);
    given.push(at.delete("c").await.unwrap());
    given.push(at.set("c", "1").await.revision);
    given.push(at.rename("c", "b").await.unwrap().revision);
    given.push(at.rename("b", "b").await.unwrap().revision);
    given.push(at.delete("b").await.unwrap());
    given.push(at.set("a", "1").await.revision);
    assert!(given.is_sorted_by(|one, next| one < next), "{given:?}");
}

pub(crate) async fn modified_grows_and_created_stays(at: Bench) {
    let second = Duration::from_secs(1);
    let start = SystemTime::now() - second;
    let first = at.set("k", "[1]").await;
    assert!(first.created >= start && first.created <= SystemTime::now() + second);
    assert!(first.modified >= first.created);
    let mut last = first.clone();
    for number in 0..40 {
        let meta = at.set("k", format!("[{}]", number % 2)).await;
        assert!(meta.modified > last.modified, "version {number}");
        assert_eq!(meta.created, first.created);
        assert_eq!(at.get("k").await.unwrap().meta, meta);
        last = meta;
    }
    assert_eq!(at.list().await, [("k".to_owned(), last)]);
}

pub(crate) async fn versions_set_at_once_differ_in_revision_and_time(at: Bench) {
    let mut sets = JoinSet::new();
    for _ in 0..64 {
        let at = at.clone();
        sets.spawn(async move { at.set("k", "1").await });
    }
    let mut versions = sets.join_all().await;
    versions.sort_by_key(|meta| meta.revision);
    assert!(versions.is_sorted_by(|one, next| one.revision < next.revision));
    assert!(versions.is_sorted_by(|one, next| one.modified < next.modified));
    assert!(versions.iter().all(|meta| (&meta.id, meta.created) == (&versions[0].id, versions[0].created)));
    assert_eq!(at.get("k").await.unwrap().meta, versions[63]);
}
