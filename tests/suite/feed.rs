//! The change feed, for stores that have one: what is changed elsewhere is told here.

use std::collections::BTreeMap;

use kvfs::store::{Change, Feed, Key, Rename, Revision};
use tokio::task::JoinSet;

use super::Bench;

async fn next(feed: &mut Feed) -> Change {
    feed.recv().await.expect("the feed goes on while the store is open")
}

/// The key of a change and the revision it is about.
fn about(change: &Change) -> (String, Revision) {
    match change {
        Change::Set(key, meta) => (key.as_str().to_owned(), meta.revision),
        Change::Deleted(key, revision) => (key.as_str().to_owned(), *revision),
        Change::Prefix(..) => panic!("nothing is said of a prefix"),
        Change::Everything | Change::Paused | Change::Resumed => panic!("the feed lost track"),
    }
}

pub(crate) async fn each_change_is_told(at: Bench, elsewhere: Bench) {
    let Some(mut feed) = at.0.changes() else { return };
    for key in ["k", "", "a/b\n🔑"] {
        for text in ["1", "2", "2"] {
            let meta = elsewhere.set(key, text).await;
            assert_eq!(next(&mut feed).await, Change::Set(Key::from(key), meta));
        }
        let revision = elsewhere.delete(key).await.unwrap();
        assert_eq!(next(&mut feed).await, Change::Deleted(Key::from(key), revision));
        let meta = elsewhere.set(key, "3").await;
        assert_eq!(next(&mut feed).await, Change::Set(Key::from(key), meta));
    }
}

pub(crate) async fn a_rename_is_told_at_both_ends(at: Bench, elsewhere: Bench) {
    let Some(mut feed) = at.0.changes() else { return };
    let old = elsewhere.set("from", "1").await;
    next(&mut feed).await;
    for replaced in [false, true] {
        let (from, to) = if replaced { ("to", "third") } else { ("from", "to") };
        if replaced {
            elsewhere.set("third", "3").await;
            next(&mut feed).await;
        }
        let meta = elsewhere.rename(from, to).await.unwrap();
        let mut told = [next(&mut feed).await, next(&mut feed).await];
        told.sort_by_key(|change| matches!(change, Change::Set(..)));
        assert_eq!(told[1], Change::Set(Key::from(to), meta.clone()));
        let Change::Deleted(key, revision) = &told[0] else { panic!("{:?} is no deletion", told[0]) };
        assert_eq!(key.as_str(), from);
        assert!(*revision > old.revision);
    }
}

pub(crate) async fn renames_of_many_keys_are_told_at_both_ends(at: Bench, elsewhere: Bench) {
    let Some(mut feed) = at.0.changes() else { return };
    let mut renames = Vec::new();
    for (from, to) in [("a", "x"), ("b", "y"), ("c", "z")] {
        let revision = elsewhere.set(from, "1").await.revision;
        next(&mut feed).await;
        renames.push(Rename { from: from.into(), to: to.into(), at: revision });
    }
    let metas = elsewhere.0.rename_keys(&renames).await.unwrap();
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(next(&mut feed).await);
    }
    for (Rename { from, to, .. }, meta) in renames.into_iter().zip(metas) {
        assert!(told.contains(&Change::Set(to, meta)));
        assert!(told.iter().any(|change| matches!(change, Change::Deleted(key, _) if *key == from)));
    }
}

pub(crate) async fn a_key_renamed_to_itself_is_told_as_set(at: Bench, elsewhere: Bench) {
    let Some(mut feed) = at.0.changes() else { return };
    elsewhere.set("k", "1").await;
    let meta = elsewhere.rename("k", "k").await.unwrap();
    elsewhere.set("end", "1").await;
    let mut last = None;
    loop {
        match next(&mut feed).await {
            Change::Set(key, _) if key.as_str() == "end" => break,
            change => last = Some(change),
        }
    }
    assert_eq!(last, Some(Change::Set("k".into(), meta)));
}

/// Changes one key many times, and says what the feed must end with.
async fn churn(at: Bench, key: String) -> Change {
    for round in 0..8 {
        at.set(&key, format!("[{round}]")).await;
        at.rename(&key, &format!("{key}-moved")).await.unwrap();
        at.rename(&format!("{key}-moved"), &key).await.unwrap();
        if round % 3 == 0 {
            at.delete(&key).await.unwrap();
        }
    }
    let revision = at.set(&key, "last").await;
    if key.ends_with('5') {
        return Change::Deleted(Key::from(key.as_str()), at.delete(&key).await.unwrap());
    }
    Change::Set(Key::from(key), revision)
}

pub(crate) async fn a_burst_is_told_in_order_and_to_its_end(at: Bench, elsewhere: Bench) {
    let Some(mut feed) = at.0.changes() else { return };
    let mut churns = JoinSet::new();
    for number in 0..10 {
        churns.spawn(churn(elsewhere.clone(), format!("key-{number}")));
    }
    let mut awaited: Vec<Change> = churns.join_all().await;
    let mut seen: BTreeMap<String, Revision> = BTreeMap::new();
    while !awaited.is_empty() {
        let change = next(&mut feed).await;
        let (key, revision) = about(&change);
        let before = seen.insert(key.clone(), revision);
        assert!(before.is_none_or(|before| before <= revision), "{key}: {before:?} after {revision:?}");
        awaited.retain(|last| *last != change);
    }
    for change in feed.take_waiting() {
        let (key, revision) = about(&change);
        assert!(seen[&key] <= revision, "{key} goes back to {revision:?}");
    }
}

pub(crate) async fn changes_made_here_do_not_hide_those_made_elsewhere(at: Bench, elsewhere: Bench) {
    let Some(mut feed) = at.0.changes() else { return };
    for round in 0..20 {
        at.set("ours", round.to_string()).await;
        let theirs = elsewhere.set("theirs", round.to_string()).await;
        at.set("k", "1").await;
        let common = elsewhere.set("k", "2").await;
        if round % 2 == 0 {
            at.delete("ours").await.unwrap();
        }
        let mut awaited = vec![Change::Set("theirs".into(), theirs), Change::Set("k".into(), common)];
        while !awaited.is_empty() {
            let change = next(&mut feed).await;
            awaited.retain(|one| *one != change);
        }
    }
    let mut here = JoinSet::new();
    let mut there = JoinSet::new();
    for number in 0..8 {
        here.spawn(churn(at.clone(), format!("here-{number}")));
        there.spawn(churn(elsewhere.clone(), format!("there-{number}")));
    }
    here.join_all().await;
    let mut awaited = there.join_all().await;
    while !awaited.is_empty() {
        let change = next(&mut feed).await;
        awaited.retain(|one| *one != change);
    }
}

pub(crate) async fn every_follower_is_told(at: Bench, elsewhere: Bench) {
    let Some(first) = at.0.changes() else { return };
    let mut feeds = [first, at.0.changes().unwrap(), at.0.changes().unwrap()];
    drop(at.0.changes());
    let meta = elsewhere.set("k", "1").await;
    let revision = elsewhere.delete("k").await.unwrap();
    for feed in &mut feeds {
        let (first, last) = (next(feed).await, next(feed).await);
        // A set whose key is gone when it is told may be told as the deletion it led to.
        assert!(first == Change::Set("k".into(), meta.clone()) || matches!(first, Change::Deleted(..)));
        assert_eq!(last, Change::Deleted("k".into(), revision));
    }
}

pub(crate) async fn only_what_changed_since_the_start_is_told(at: Bench, elsewhere: Bench) {
    elsewhere.set("before", "1").await;
    elsewhere.set("gone", "1").await;
    elsewhere.delete("gone").await.unwrap();
    let Some(mut feed) = at.0.changes() else { return };
    let meta = elsewhere.set("after", "1").await;
    assert_eq!(next(&mut feed).await, Change::Set("after".into(), meta));
}

pub(crate) async fn a_refused_change_is_not_told(at: Bench, elsewhere: Bench) {
    elsewhere.set("k", "1").await;
    let Some(mut feed) = at.0.changes() else { return };
    let absent = kvfs::store::Expect::Absent;
    elsewhere.try_set("k", "2", absent).await.unwrap_err();
    elsewhere.try_delete("k", absent).await.unwrap_err();
    elsewhere.rename("missing", "k").await.unwrap_err();
    elsewhere.delete("missing").await.unwrap_err();
    elsewhere
        .try_set("k", vec![b'1'; at.0.limits().value + 1], kvfs::store::Expect::Anything)
        .await
        .unwrap_err();
    let meta = elsewhere.set("next", "1").await;
    assert_eq!(next(&mut feed).await, Change::Set("next".into(), meta));
}

pub(crate) async fn the_feed_ends_with_the_store(at: Bench, elsewhere: Bench) {
    let Some(mut feed) = at.0.changes() else { return };
    let meta = elsewhere.set("k", "1").await;
    assert_eq!(next(&mut feed).await, Change::Set("k".into(), meta));
    drop((at, elsewhere));
    assert_eq!(feed.recv().await, None);
}
