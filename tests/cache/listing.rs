//! The remembered listing.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use kvfs::cache::Settings;
use kvfs::store::{Change, Expect};
use tokio::task::JoinSet;

use super::double::When::{After, Before};
use super::{Bench, block_on, roomy};

#[test]
fn a_listing_is_fetched_once() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("a", "1").await;
        at.set_elsewhere("b", "[1]").await;
        assert_eq!(at.cache.known_keys(), None);
        assert_eq!(at.listed().await, ["a", "b"]);
        let sizes: Vec<u64> =
            at.cache.list_keys().await.unwrap().value.iter().map(|(_, meta)| meta.size).collect();
        assert_eq!(sizes, [1, 3]);
        assert_eq!(at.cache.known_keys(), Some(2));
        assert_eq!((at.calls("list_keys"), at.gets()), (1, 0));
    });
}

#[test]
fn listings_at_once_are_one_call() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        let hold = at.double.hold("list_keys", "", Before);
        let mut lists = JoinSet::new();
        for _ in 0..50 {
            let at = at.clone();
            lists.spawn(async move { at.listed().await });
        }
        hold.reached().await;
        hold.release();
        assert!(lists.join_all().await.into_iter().all(|keys| keys == ["k"]));
        assert_eq!(at.calls("list_keys"), 1);
    });
}

#[test]
fn each_change_made_here_is_in_the_next_listing() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set("a", "1").await.unwrap();
        assert_eq!(at.listed().await, ["a"]);
        at.set("a", "[1, 2]").await.unwrap();
        assert_eq!(at.cache.list_keys().await.unwrap().value.at(0).unwrap().1.size, 6);
        at.cache.rename_key(&"a".into(), &"b".into(), Expect::Anything, Expect::Anything).await.unwrap();
        assert_eq!(at.listed().await, ["b"]);
        at.delete("b").await.unwrap();
        assert_eq!(at.listed().await, [""; 0]);
    });
}

#[test]
fn each_change_made_elsewhere_is_in_the_next_listing() {
    let at = Bench::new(roomy());
    at.cache.apply(vec![Change::Resumed]);
    block_on(async {
        assert_eq!(at.listed().await, [""; 0]);
        let meta = at.set_elsewhere("k", "1").await;
        at.cache.apply(vec![Change::Set("k".into(), meta)]);
        assert_eq!(at.listed().await, ["k"]);
        let revision = at.delete_elsewhere("k").await;
        at.cache.apply(vec![Change::Deleted("k".into(), revision)]);
        assert_eq!(at.listed().await, [""; 0]);
    });
}

#[test]
fn a_listing_fetched_while_something_changed_is_remembered_as_it_is_now() {
    let at = Bench::new(roomy());
    block_on(async {
        for change in 0..4 {
            at.set("k", "1").await.unwrap();
            let hold = at.double.hold("list_keys", "", After);
            let mut list = pin!(at.listed());
            assert!(matches!(list.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
            let expected: &[&str] = match change {
                0 => at.set("new", "1").await.map(|_| &["k", "new"][..]).unwrap(),
                1 => at.delete("k").await.map(|_| &["new"][..]).unwrap(),
                2 => {
                    let meta = at.set_elsewhere("theirs", "1").await;
                    at.cache.apply(vec![Change::Set("theirs".into(), meta)]);
                    &["k", "new", "theirs"]
                }
                _ => {
                    at.set_elsewhere("missed", "1").await;
                    at.cache.apply(vec![Change::Everything]);
                    &["k", "missed", "new", "theirs"]
                }
            };
            hold.release();
            let calls = at.calls("list_keys");
            assert_eq!(list.await, expected, "change {change}");
            assert_eq!(at.listed().await, expected);
            // Only where changes were missed it was listed again.
            assert_eq!(at.calls("list_keys") - calls, u64::from(change == 3), "change {change}");
            at.cache.apply(vec![Change::Everything]);
        }
    });
}

#[test]
fn changes_cost_no_new_listing() {
    let at = Bench::new(roomy());
    at.cache.apply(vec![Change::Resumed]);
    block_on(async {
        assert_eq!(at.listed().await, [""; 0]);
        at.set("b", "1").await.unwrap();
        let meta = at.set_elsewhere("a", "1").await;
        at.cache.apply(vec![Change::Set("a".into(), meta.clone())]);
        at.cache.rename_key(&"b".into(), &"c".into(), Expect::Anything, Expect::Anything).await.unwrap();
        assert_eq!(at.listed().await, ["a", "c"]);
        assert_eq!(at.cache.list_keys().await.unwrap().value.meta(&"a".into()), Some(&meta));
        at.delete("c").await.unwrap();
        let revision = at.delete_elsewhere("a").await;
        at.cache.apply(vec![Change::Deleted("a".into(), revision)]);
        assert_eq!(at.listed().await, [""; 0]);
        assert_eq!(at.calls("list_keys"), 1);
    });
}

#[test]
fn late_news_of_a_key_that_was_deleted_since_do_not_bring_it_back() {
    let at = Bench::new(roomy());
    at.cache.apply(vec![Change::Resumed]);
    block_on(async {
        assert_eq!(at.listed().await, [""; 0]);
        let old = at.set_elsewhere("k", "1").await;
        at.delete("k").await.unwrap();
        at.cache.apply(vec![Change::Set("k".into(), old)]);
        assert_eq!(at.listed().await, [""; 0]);
        // Of more deletions than are remembered the first are asked for.
        let old = at.set_elsewhere("k", "1").await;
        at.delete("k").await.unwrap();
        for number in 0..10_001 {
            let key = number.to_string();
            at.set_elsewhere(&key, "1").await;
            let revision = at.delete_elsewhere(&key).await;
            at.cache.apply(vec![Change::Deleted(key.as_str().into(), revision)]);
        }
        assert_eq!(at.calls("list_keys"), 1);
        at.cache.apply(vec![Change::Set("k".into(), old)]);
        assert_eq!(at.listed().await, [""; 0]);
        assert_eq!(at.calls("list_keys"), 2);
    });
}

#[test]
fn a_slow_answer_to_a_rename_brings_no_key_back_that_was_deleted_among_changes_that_were_missed() {
    let at = Bench::new(roomy());
    at.cache.apply(vec![Change::Resumed]);
    block_on(async {
        at.set("a", "1").await.unwrap();
        let hold = at.double.hold("rename_key", "a", After);
        let (a, b) = ("a".into(), "b".into());
        let mut slow = pin!(at.cache.rename_key(&a, &b, Expect::Anything, Expect::Anything));
        assert!(matches!(slow.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        at.delete_elsewhere("b").await;
        at.cache.apply(vec![Change::Everything]);
        assert_eq!(at.listed().await, [""; 0]);
        hold.release();
        slow.await.unwrap();
        assert_eq!(at.listed().await, [""; 0]);
    });
}

#[test]
fn a_listing_asked_for_after_a_change_shows_it_although_another_one_is_under_way() {
    let at = Bench::new(roomy());
    block_on(async {
        let hold = at.double.hold("list_keys", "", After);
        let mut before = pin!(at.listed());
        assert!(matches!(before.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        at.set("k", "1").await.unwrap();
        let mut after = pin!(at.listed());
        assert!(matches!(after.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        hold.release();
        let (after, _) = tokio::join!(after, before);
        assert_eq!(after, ["k"]);
        assert_eq!(at.listed().await, ["k"]);
    });
}

#[test]
fn a_caller_that_wakes_late_does_not_bring_an_old_listing_back() {
    let at = Bench::new(roomy());
    block_on(async {
        let hold = at.double.hold("list_keys", "", After);
        let (mut first, mut late) = (pin!(at.listed()), pin!(at.listed()));
        assert!(matches!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        assert!(matches!(late.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        hold.release();
        first.await;
        at.set("k", "1").await.unwrap();
        late.await;
        assert_eq!(at.listed().await, ["k"]);
    });
}

#[test]
fn a_listing_is_asked_for_again_when_it_is_old() {
    let at = Bench::new(Settings { max_age: Duration::from_millis(20), ..roomy() });
    block_on(async {
        assert_eq!(at.listed().await, [""; 0]);
        at.set_elsewhere("k", "1").await;
        assert_eq!(at.listed().await, [""; 0]);
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(at.listed().await, ["k"]);
        assert_eq!(at.calls("list_keys"), 2);
    });
}
