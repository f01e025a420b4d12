//! Fetches that meet other fetches and changes on their way.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use kvfs::store::{Change, Deadline, Error, Meta};
use tokio::task::JoinSet;

use super::Remembered::Value;
use super::double::When::{After, Before};
use super::{Bench, block_on, down, forgetful, roomy};

const SECOND: Duration = Duration::from_secs(1);

/// Polls `future` once; it must not be done yet.
macro_rules! start {
    ($future:expr) => {
        assert!(matches!($future.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending))
    };
}

#[test]
fn fifty_gets_at_once_are_one_call_and_one_answer() {
    let at = Bench::new(roomy());
    block_on(async {
        for key in ["k", "missing"] {
            let meta = (key == "k").then_some(at.set_elsewhere("k", "1").await);
            let hold = at.double.hold("get_key_value", key, Before);
            let before = at.gets();
            let mut gets = JoinSet::new();
            for _ in 0..50 {
                let at = at.clone();
                gets.spawn(async move { at.get(key).await.unwrap().value });
            }
            hold.reached().await;
            hold.release();
            for value in gets.join_all().await {
                assert_eq!(value.map(|entry| entry.meta), meta);
            }
            assert_eq!(at.gets() - before, 1);
        }
    });
}

#[test]
fn a_failed_fetch_fails_all_that_waited_and_is_not_remembered() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.double.fail(down());
        let hold = at.double.hold("get_key_value", "k", Before);
        let mut gets = JoinSet::new();
        for _ in 0..10 {
            let at = at.clone();
            gets.spawn(async move { at.get("k").await.map(|answer| super::text(&answer)) });
        }
        hold.reached().await;
        hold.release();
        assert!(gets.join_all().await.into_iter().all(|result| result == Err(down())));
        assert_eq!(at.gets(), 1);
        at.double.fail(None);
        assert_eq!(at.text("k").await.unwrap(), "1");
    });
}

#[test]
fn a_caller_that_gives_up_leaves_the_fetch_to_the_others() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        let hold = at.double.hold("get_key_value", "k", Before);
        {
            let mut gives_up = pin!(at.get("k"));
            start!(gives_up);
        }
        let mut stays = pin!(at.get("k"));
        start!(stays);
        hold.release();
        assert_eq!(super::text(&stays.await.unwrap()).unwrap(), "1");
        assert_eq!(at.remembered("k"), Value("1".into()));
    });
}

#[test]
fn the_deadline_of_one_caller_is_none_of_the_others() {
    for listing in [false, true] {
        let at = Bench::new(roomy());
        block_on(async {
            at.set_elsewhere("k", "1").await;
            let (near, far) = (Deadline::after(SECOND), Deadline::after(3 * SECOND));
            let (method, key) = if listing { ("list_keys", "") } else { ("get_key_value", "k") };
            let hold = at.double.hold(method, key, Before);
            let ask = async || {
                if listing { at.cache.list_keys().await.map(drop) } else { at.get("k").await.map(drop) }
            };
            let (mut hasty, mut patient) = (pin!(near.scope(ask())), pin!(far.scope(ask())));
            start!(hasty);
            start!(patient);
            assert_eq!(hasty.await, Err(Error::TimedOut(SECOND.as_millis())));
            // Who has time left asks anew, and who comes now waits for the same answer.
            start!(patient);
            let mut another = pin!(ask());
            start!(another);
            hold.release();
            assert_eq!((patient.await, another.await), (Ok(()), Ok(())));
            assert_eq!(at.calls(method), 2);
            assert_eq!(ask().await, Ok(()));
            assert_eq!(at.calls(method), 2);
        });
    }
}

#[test]
fn a_fetch_of_one_key_does_not_wait_for_another() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.double.hold("get_key_value", "stuck", Before);
        let mut stuck = pin!(at.get("stuck"));
        start!(stuck);
        assert_eq!(at.text("k").await.unwrap(), "1");
        at.set("k", "2").await.unwrap();
        assert_eq!(at.listed().await, ["k"]);
        start!(stuck);
    });
}

#[test]
fn a_set_during_a_fetch_is_not_hidden_by_the_older_answer() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("k", "old").await;
        let hold = at.double.hold("get_key_value", "k", After);
        let mut get = pin!(at.get("k"));
        start!(get);
        at.set("k", "new").await.unwrap();
        hold.release();
        get.await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "new");
    });
}

#[test]
fn a_delete_during_a_fetch_is_not_hidden_by_the_older_answer() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("k", "old").await;
        let hold = at.double.hold("get_key_value", "k", After);
        let mut get = pin!(at.get("k"));
        start!(get);
        at.delete("k").await.unwrap();
        hold.release();
        get.await.unwrap();
        assert_eq!(at.text("k").await, None);
    });
}

#[test]
fn a_set_during_the_fetch_of_a_missing_key_is_not_hidden_by_its_absence() {
    let at = Bench::new(roomy());
    block_on(async {
        let hold = at.double.hold("get_key_value", "k", After);
        let mut get = pin!(at.get("k"));
        start!(get);
        at.set("k", "new").await.unwrap();
        hold.release();
        get.await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "new");
    });
}

#[test]
fn news_during_a_fetch_make_it_ask_again() {
    for everything in [false, true] {
        let at = Bench::new(roomy());
        block_on(async {
            at.set_elsewhere("k", "old").await;
            let hold = at.double.hold("get_key_value", "k", After);
            let mut get = pin!(at.get("k"));
            start!(get);
            let meta = at.set_elsewhere("k", "new").await;
            at.cache.apply(vec![if everything { Change::Everything } else { Change::Set("k".into(), meta) }]);
            hold.release();
            assert_eq!(super::text(&get.await.unwrap()).unwrap(), "new");
            assert_eq!(at.remembered("k"), Value("new".into()));
        });
    }
}

#[test]
fn news_of_a_store_that_counts_anew_make_a_fetch_ask_again() {
    let at = Bench::new(roomy());
    block_on(async {
        at.cache.apply(vec![Change::Resumed]);
        at.set_elsewhere("k", "undone").await;
        let undone = at.get("k").await.unwrap().value.unwrap().meta;
        at.cache.apply(vec![Change::Everything]);
        let hold = at.double.hold("get_key_value", "k", After);
        let mut get = pin!(at.get("k"));
        start!(get);
        let meta = Meta { revision: undone.revision, ..at.set_elsewhere("k", "new").await };
        at.cache.apply(vec![Change::Set("k".into(), meta)]);
        hold.release();
        assert_eq!(super::text(&get.await.unwrap()).unwrap(), "new");
        assert_eq!(at.remembered("k"), Value("new".into()));
    });
}

#[test]
fn news_of_a_deletion_make_the_fetch_of_a_key_that_was_absent_ask_again() {
    let at = Bench::new(forgetful());
    block_on(async {
        at.get("k").await.unwrap();
        at.set_elsewhere("k", "short-lived").await;
        let hold = at.double.hold("get_key_value", "k", After);
        let mut get = pin!(at.get("k"));
        start!(get);
        let revision = at.delete_elsewhere("k").await;
        at.cache.apply(vec![Change::Deleted("k".into(), revision)]);
        hold.release();
        get.await.unwrap();
        at.cache.apply(vec![Change::Resumed]);
        assert_eq!(at.text("k").await, None);
    });
}

#[test]
fn an_absence_from_before_a_key_was_listed_does_not_hide_it() {
    let at = Bench::new(roomy());
    at.double.lists_texts.store(true, Ordering::Relaxed);
    block_on(async {
        at.cache.apply(vec![Change::Resumed]);
        let hold = at.double.hold("get_key_value", "k", After);
        let mut get = pin!(at.get("k"));
        start!(get);
        let meta = at.set_elsewhere("k", "1").await;
        at.listed().await;
        at.cache.apply(vec![Change::Set("k".into(), meta)]);
        hold.release();
        get.await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "1");
    });
}

#[test]
fn a_caller_that_wakes_late_does_not_bring_an_old_answer_back() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("k", "old").await;
        at.cache.apply(vec![Change::Resumed]);
        let hold = at.double.hold("get_key_value", "k", After);
        let (mut first, mut late) = (pin!(at.get("k")), pin!(at.get("k")));
        start!(first);
        start!(late);
        hold.release();
        first.await.unwrap();
        let meta = at.set_elsewhere("k", "new").await;
        at.cache.apply(vec![Change::Set("k".into(), meta)]);
        late.await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "new");
    });
}

#[test]
fn a_caller_that_wakes_late_does_not_bring_a_deleted_key_back() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("k", "old").await;
        let hold = at.double.hold("get_key_value", "k", After);
        let (mut first, mut late) = (pin!(at.get("k")), pin!(at.get("k")));
        start!(first);
        start!(late);
        hold.release();
        first.await.unwrap();
        at.delete("k").await.unwrap();
        late.await.unwrap();
        assert_eq!(at.text("k").await, None);
    });
}

#[test]
fn the_later_of_two_sets_is_remembered_whichever_answer_comes_first() {
    let at = Bench::new(roomy());
    block_on(async {
        let hold = at.double.hold("set_key_value", "k", After);
        let mut slow = pin!(at.set("k", "1"));
        start!(slow);
        at.set_elsewhere("k", "2").await;
        assert_eq!(at.text("k").await.unwrap(), "2");
        hold.release();
        slow.await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "2");
    });
}

#[test]
fn a_slow_answer_to_a_set_does_not_bring_a_deleted_key_back() {
    let at = Bench::new(roomy());
    block_on(async {
        let hold = at.double.hold("set_key_value", "k", After);
        let mut slow = pin!(at.set("k", "1"));
        start!(slow);
        at.delete("k").await.unwrap();
        hold.release();
        slow.await.unwrap();
        assert_eq!(at.text("k").await, None);
    });
}

#[test]
fn a_slow_answer_to_a_set_does_not_hide_a_newer_value_that_was_told_meanwhile() {
    let at = Bench::new(roomy());
    block_on(async {
        at.cache.apply(vec![Change::Resumed]);
        let hold = at.double.hold("set_key_value", "k", After);
        let mut slow = pin!(at.set("k", "ours"));
        start!(slow);
        let meta = at.set_elsewhere("k", "theirs").await;
        at.cache.apply(vec![Change::Set("k".into(), meta)]);
        hold.release();
        slow.await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "theirs");
    });
}

#[test]
fn a_slow_answer_to_a_set_does_not_hide_a_newer_value_among_changes_that_were_missed() {
    let at = Bench::new(roomy());
    block_on(async {
        at.cache.apply(vec![Change::Resumed]);
        let hold = at.double.hold("set_key_value", "k", After);
        let mut slow = pin!(at.set("k", "ours"));
        start!(slow);
        at.set_elsewhere("k", "theirs").await;
        at.cache.apply(vec![Change::Everything]);
        hold.release();
        slow.await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "theirs");
    });
}

#[test]
fn a_slow_answer_to_a_delete_does_not_hide_a_key_that_was_set_meanwhile() {
    let at = Bench::new(roomy());
    block_on(async {
        at.cache.apply(vec![Change::Resumed]);
        at.set("k", "1").await.unwrap();
        let hold = at.double.hold("delete_key", "k", After);
        let mut slow = pin!(at.delete("k"));
        start!(slow);
        let meta = at.set_elsewhere("k", "theirs").await;
        at.cache.apply(vec![Change::Set("k".into(), meta)]);
        hold.release();
        slow.await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "theirs");
    });
}

#[test]
fn a_failed_set_leaves_the_value_of_the_store() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set("k", "1").await.unwrap();
        at.set_elsewhere("k", "2").await;
        let absent = kvfs::store::Expect::Absent;
        let result = at.cache.set_key_value(&"k".into(), std::sync::Arc::from(&b"3"[..]), absent).await;
        assert_eq!(result, Err(Error::Exists));
        assert_eq!(at.text("k").await.unwrap(), "2");
    });
}
