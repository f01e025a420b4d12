//! Changes the store tells of.

use std::sync::Arc;

use kvfs::store::Change;

use super::Remembered::{Absence, Nothing, Value};
use super::{Bench, block_on, roomy};

fn pushed() -> Bench {
    let at = Bench::new(roomy());
    at.cache.apply(vec![Change::Resumed]);
    at
}

#[test]
fn a_newer_value_is_asked_for() {
    let at = pushed();
    block_on(async {
        at.set("k", "1").await.unwrap();
        at.get("missing").await.unwrap();
        let news =
            [("k", at.set_elsewhere("k", "2").await), ("missing", at.set_elsewhere("missing", "2").await)];
        for (key, meta) in news {
            at.cache.apply(vec![Change::Set(key.into(), meta)]);
            assert_eq!(at.text(key).await.unwrap(), "2");
        }
    });
}

#[test]
fn a_deletion_elsewhere_is_seen() {
    let at = pushed();
    block_on(async {
        at.set("k", "1").await.unwrap();
        let revision = at.delete_elsewhere("k").await;
        at.cache.apply(vec![Change::Deleted("k".into(), revision)]);
        assert_eq!(at.text("k").await, None);
    });
}

#[test]
fn news_of_what_is_known_already_cost_no_call() {
    let at = pushed();
    block_on(async {
        let old = at.set("k", "1").await.unwrap();
        let new = at.set("k", "2").await.unwrap();
        for change in [
            Change::Set("k".into(), old.clone()),
            Change::Set("k".into(), new.clone()),
            Change::Deleted("k".into(), old.revision),
        ] {
            at.cache.apply(vec![change.clone()]);
            assert_eq!(at.remembered("k"), Value("2".into()), "{change:?}");
        }
        let revision = at.delete("k").await.unwrap();
        at.cache.apply(vec![Change::Deleted("k".into(), revision)]);
        assert_eq!(at.remembered("k"), Absence);
        assert_eq!(at.gets(), 0);
    });
}

#[test]
fn late_news_of_a_key_that_was_deleted_since_do_not_bring_its_value_back() {
    let at = pushed();
    block_on(async {
        let old = at.set("k", "1").await.unwrap();
        at.delete("k").await.unwrap();
        *at.double.told.lock() = Some((old.revision, Arc::from(&b"1"[..])));
        at.cache.apply(vec![Change::Set("k".into(), old)]);
        assert_eq!(at.remembered("k"), Absence);
        let new = at.set_elsewhere("k", "2").await;
        at.cache.apply(vec![Change::Set("k".into(), new)]);
        assert_eq!(at.text("k").await.unwrap(), "2");
    });
}

#[test]
fn whether_news_of_a_key_that_was_found_absent_are_late_is_asked() {
    let at = pushed();
    block_on(async {
        let old = at.set_elsewhere("k", "1").await;
        at.delete_elsewhere("k").await;
        assert_eq!(at.text("k").await, None);
        *at.double.told.lock() = Some((old.revision, Arc::from(&b"1"[..])));
        at.cache.apply(vec![Change::Set("k".into(), old)]);
        assert_eq!(at.text("k").await, None);
    });
}

#[test]
fn everything_is_forgotten_when_changes_were_missed() {
    let at = pushed();
    block_on(async {
        at.set("a", "1").await.unwrap();
        at.set("b", "1").await.unwrap();
        at.get("missing").await.unwrap();
        at.listed().await;
        at.cache.apply(vec![Change::Everything]);
        for key in ["a", "b", "missing"] {
            assert_eq!(at.remembered(key), Nothing);
        }
        assert_eq!(at.cache.known_keys(), None);
        at.set_elsewhere("a", "2").await;
        assert_eq!(at.text("a").await.unwrap(), "2");
        assert_eq!(at.listed().await, ["a", "b"]);
    });
}

#[test]
fn what_is_known_stands_in_when_changes_were_missed_and_the_store_is_down() {
    let at = pushed();
    block_on(async {
        at.set("a", "1").await.unwrap();
        at.listed().await;
        at.cache.apply(vec![Change::Everything]);
        at.double.fail(kvfs::store::Error::Unreachable("down".into()));
        let answer = at.get("a").await.unwrap();
        assert_eq!((super::text(&answer).unwrap(), answer.ttl), ("1".into(), std::time::Duration::ZERO));
        assert_eq!(at.listed().await, ["a"]);
        at.double.fail(None);
        at.set_elsewhere("a", "2").await;
        assert_eq!(at.text("a").await.unwrap(), "2");
    });
}

#[test]
fn a_feed_that_resumes_confirms_what_is_known() {
    let at = pushed();
    block_on(async {
        at.set("a", "1").await.unwrap();
        at.set("b", "1").await.unwrap();
        at.cache.apply(vec![Change::Paused]);
        let meta = at.set_elsewhere("b", "2").await;
        at.cache.apply(vec![Change::Set("b".into(), meta)]);
        at.cache.apply(vec![Change::Resumed]);
        assert_eq!(at.remembered("a"), Value("1".into()));
        assert_eq!(at.text("b").await.unwrap(), "2");
        assert_eq!(at.gets(), 1);
    });
}

#[test]
fn a_key_seen_before_its_news_is_in_the_listing() {
    let at = pushed();
    block_on(async {
        assert_eq!(at.listed().await, [""; 0]);
        let meta = at.set_elsewhere("k", "1").await;
        assert_eq!(at.text("k").await.unwrap(), "1");
        at.cache.apply(vec![Change::Set("k".into(), meta)]);
        assert_eq!(at.listed().await, ["k"]);
    });
}

#[test]
fn an_absence_seen_before_its_news_is_in_the_listing() {
    let at = pushed();
    block_on(async {
        at.set_elsewhere("k", "1").await;
        assert_eq!(at.listed().await, ["k"]);
        let revision = at.delete_elsewhere("k").await;
        assert_eq!(at.text("k").await, None);
        at.cache.apply(vec![Change::Deleted("k".into(), revision)]);
        assert_eq!(at.listed().await, [""; 0]);
    });
}
