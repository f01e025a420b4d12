//! Deadlines, and a store known to be down.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use kvfs::cache::Cache;
use kvfs::store::{Counted, Counters, Deadline, Error, Expect, Guarded, Key, Store, Text};

use super::double::Double;
use super::double::When::Before;
use super::{HOUR, PATIENCE, block_on, down, roomy};

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(4);

struct Bench {
    store: Guarded,
    double: Arc<Double>,
    counters: Arc<Counters>,
}

fn guarded(timeout: Duration) -> Bench {
    let (double, counters) = (Arc::new(Double::default()), Arc::new(Counters::default()));
    let counted = Counted::new(double.clone(), counters.clone());
    Bench { store: Guarded::new(Arc::new(counted), timeout), double, counters }
}

impl Bench {
    async fn get(&self, key: &str) -> Result<Text, Error> {
        self.store.get_key_value(&Key::from(key)).await.map(|entry| entry.text)
    }

    async fn set(&self, key: &str) -> Result<(), Error> {
        self.store.set_key_value(&Key::from(key), Arc::from(&b"1"[..]), Expect::Anything).await.map(drop)
    }

    fn calls(&self) -> u64 {
        self.counters.snapshot().values().sum()
    }
}

#[test]
fn answers_and_refusals_pass_unchanged() {
    let at = guarded(HOUR);
    block_on(async {
        at.set("k").await.unwrap();
        assert_eq!(at.get("k").await.unwrap()[..], *b"1");
        assert_eq!(at.get("missing").await, Err(Error::NotFound));
        assert_eq!(at.store.list_keys().await.unwrap().len(), 1);
        at.store.rename_key(&"k".into(), &"moved".into(), Expect::Anything, Expect::Absent).await.unwrap();
        at.store.delete_key(&"moved".into(), Expect::Anything).await.unwrap();
        for error in [Error::Denied("401".into()), Error::Busy("overload".into())] {
            at.double.fail(error.clone());
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(at.get("k").await, Err(error.clone()));
            assert_eq!(at.set("k").await, Err(error));
        }
        at.double.fail(None);
        // A store that is overloaded is left alone for a while.
        assert_eq!(at.get("k").await, Err(Error::Busy("overload".into())));
        assert_eq!(at.set("k").await, Err(Error::Busy("overload".into())));
        tokio::time::advance(Duration::from_secs(1)).await;
        at.set("k").await.unwrap();
        at.get("k").await.unwrap();
        assert_eq!(at.store.limits(), at.double.limits());
        assert_eq!(at.store.name(), at.double.name());
    });
}

#[test]
fn a_call_without_an_answer_ends_at_the_deadline() {
    for method in ["list_keys", "get_key_value", "set_key_value", "delete_key", "rename_key"] {
        let at = guarded(SHORT);
        let (k, to) = (Key::from("k"), Key::from("to"));
        block_on(async {
            at.double.hold(method, if method == "list_keys" { "" } else { "k" }, Before);
            let result = match method {
                "list_keys" => at.store.list_keys().await.map(drop),
                "get_key_value" => at.store.get_key_value(&k).await.map(drop),
                "set_key_value" => at.set("k").await,
                "delete_key" => at.store.delete_key(&k, Expect::Anything).await.map(drop),
                _ => at.store.rename_key(&k, &to, Expect::Anything, Expect::Anything).await.map(drop),
            };
            assert_eq!(result, Err(Error::TimedOut(50)), "{method}");
        });
    }
}

#[test]
fn a_store_known_to_be_down_is_not_asked() {
    let at = guarded(HOUR);
    block_on(async {
        at.double.fail(down());
        assert_eq!(at.get("k").await, Err(down()));
        let mut refused = 0;
        for _ in 0..100 {
            let error = at.get("k").await.unwrap_err();
            assert!(matches!(error, Error::Unreachable(_)));
            assert!(matches!(at.set("k").await, Err(Error::Unreachable(_))));
            assert!(matches!(at.store.list_keys().await, Err(Error::Unreachable(_))));
            refused += u64::from(error != down());
        }
        assert!(refused > 0);
        // One caller is let through now and then, to see whether it answers again.
        assert!(at.calls() < 50, "{} of 301 calls reached a store that is down", at.calls());
    });
}

#[test]
fn a_store_that_hangs_is_not_waited_for_again_and_again() {
    let at = guarded(SHORT);
    block_on(async {
        at.double.hold("get_key_value", "k", Before);
        assert_eq!(at.get("k").await, Err(Error::TimedOut(50)));
        for _ in 0..100 {
            let error = at.get("k").await.unwrap_err();
            assert!(matches!(error, Error::Unreachable(_) | Error::TimedOut(_)));
        }
        assert!(at.calls() < 50, "{} of 101 calls reached a store that hangs", at.calls());
    });
}

#[test]
fn a_store_that_answers_again_is_used_again() {
    let at = guarded(HOUR);
    block_on(async {
        at.set("k").await.unwrap();
        at.double.fail(down());
        at.get("k").await.unwrap_err();
        at.set("k").await.unwrap_err();
        at.double.fail(None);
        while at.get("k").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while at.set("k").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..10 {
            at.get("k").await.unwrap();
            at.set("k").await.unwrap();
        }
    });
}

#[test]
fn one_stuck_key_does_not_hold_up_another() {
    let at = guarded(HOUR);
    block_on(async {
        at.double.hold("get_key_value", "stuck", Before);
        let mut stuck = pin!(at.get("stuck"));
        assert!(matches!(stuck.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        at.set("k").await.unwrap();
        at.get("k").await.unwrap();
        assert_eq!(at.store.list_keys().await.unwrap().len(), 1);
        assert!(matches!(stuck.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    });
}

#[test]
fn one_stuck_key_does_not_make_the_store_down_for_another_that_was_answered_meanwhile() {
    let at = guarded(SHORT);
    block_on(async {
        at.set("k").await.unwrap();
        at.double.hold("get_key_value", "stuck", Before);
        let mut stuck = pin!(at.get("stuck"));
        assert!(matches!(stuck.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
        at.get("k").await.unwrap();
        assert_eq!(stuck.await, Err(Error::TimedOut(50)));
        assert_eq!(at.get("k").await.unwrap()[..], *b"1");
    });
}

#[test]
fn a_late_write_does_not_keep_reads_from_the_store() {
    let at = guarded(SHORT);
    block_on(async {
        at.set("k").await.unwrap();
        at.double.hold("set_key_value", "stuck", Before);
        assert_eq!(at.set("stuck").await, Err(Error::TimedOut(50)));
        assert_eq!(at.get("k").await.unwrap()[..], *b"1");
        assert_eq!(at.store.list_keys().await.unwrap().len(), 1);
    });
}

#[test]
fn a_store_that_was_busy_for_a_whole_deadline_is_tried_once_a_second_until_it_takes_a_change() {
    let at = guarded(HOUR);
    let (k, busy) = (Key::from("k"), Error::Busy("database is locked".into()));
    block_on(async {
        at.set("k").await.unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        at.double.fail(busy.clone());
        assert_eq!(at.set("k").await, Err(busy.clone()));
        let calls = at.calls();
        for _ in 0..8 {
            assert_eq!(at.set("k").await, Err(busy.clone()));
            assert_eq!(at.store.delete_key(&k, Expect::Anything).await, Err(busy.clone()));
            let renamed = at.store.rename_key(&k, &"to".into(), Expect::Anything, Expect::Anything).await;
            assert_eq!(renamed, Err(busy.clone()));
        }
        assert_eq!(at.calls(), calls);
        // Who opens a file to write it hears of it then, and the store is not down.
        assert_eq!(at.store.outage(), Some(busy.clone()));
        assert!(at.store.down().is_none());
        at.double.fail(None);
        assert_eq!(at.get("k").await.unwrap()[..], *b"1");
        assert_eq!(at.set("k").await, Err(busy.clone()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(at.store.outage(), None);
        at.set("k").await.unwrap();
        at.store.delete_key(&k, Expect::Anything).await.unwrap();
    });
}

#[test]
fn a_key_that_others_keep_changing_says_nothing_of_other_keys() {
    let at = guarded(HOUR);
    block_on(async {
        at.double.fail(Error::Contended("others change the key all the time".into()));
        assert!(matches!(at.set("k").await, Err(Error::Contended(_))));
        at.double.fail(None);
        at.set("k").await.unwrap();
    });
}

#[test]
fn a_call_with_the_rest_of_a_deadline_ends_by_it_and_says_nothing_of_the_store() {
    for method in ["get_key_value", "set_key_value"] {
        let at = guarded(LONG);
        block_on(async {
            at.double.hold(method, "stuck", Before);
            let rest = async {
                tokio::time::sleep(LONG / 2).await;
                let began = tokio::time::Instant::now();
                let late = match method {
                    "get_key_value" => at.get("stuck").await.map(drop),
                    _ => at.set("stuck").await,
                };
                (late, began.elapsed())
            };
            let (late, took) = Deadline::after(LONG).scope(rest).await;
            assert_eq!((late, took), (Err(Error::TimedOut(LONG.as_millis())), LONG / 2));
            at.set("k").await.unwrap();
            at.get("k").await.unwrap();
        });
    }
}

#[test]
fn a_call_after_the_deadline_does_not_reach_the_store() {
    let at = guarded(LONG);
    block_on(async {
        let late = async {
            tokio::time::sleep(LONG).await;
            (at.set("k").await, at.get("k").await)
        };
        let expired = Error::Expired(LONG.as_millis());
        assert!(!expired.may_have_changed());
        assert_eq!(Deadline::after(LONG).scope(late).await, (Err(expired.clone()), Err(expired)));
        assert_eq!(at.calls(), 0);
    });
}

#[test]
fn calls_that_block_their_threads_end_at_the_deadline() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let Bench { store, double, .. } = guarded(SHORT);
    let store = Arc::new(store);
    let cache = Arc::new(Cache::new(store.clone(), roomy()));
    let disk = double.disk.lock();
    let (sender, ends) = std::sync::mpsc::channel();
    for _ in 0..8 {
        let (cache, sender) = (cache.clone(), sender.clone());
        runtime.spawn(async move {
            _ = sender.send(cache.get_key_value(&"shared".into()).await.map(drop));
        });
    }
    let set = async move {
        _ = sender
            .send(store.set_key_value(&"k".into(), Arc::from(&b"1"[..]), Expect::Anything).await.map(drop));
    };
    runtime.spawn(set);
    for _ in 0..9 {
        // One that began when another had already timed out is told that the store is down.
        let end = ends.recv_timeout(PATIENCE / 6);
        assert!(matches!(end, Ok(Err(Error::TimedOut(50) | Error::Unreachable(_)))), "{end:?}");
    }
    drop(disk);
}
