//! Reads and writes while the store is down.

use std::time::Duration;

use kvfs::cache::Settings;
use kvfs::store::{Error, Expect};

use super::{Bench, block_on, down, forgetful};

fn outages() -> [Error; 4] {
    [down(), Error::TimedOut(5_000), Error::Busy("overload".into()), Error::Other("broken".into())]
}

#[test]
fn the_last_known_value_is_shown_while_the_store_is_down() {
    let at = Bench::new(forgetful());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.get("k").await.unwrap();
        at.get("missing").await.unwrap();
        at.listed().await;
        at.set_elsewhere("k", "2").await;
        at.set_elsewhere("missing", "2").await;
        for (passed, error) in outages().into_iter().enumerate() {
            at.double.fail(error.clone());
            tokio::time::advance(Duration::from_secs(1)).await;
            let answer = at.get("k").await.unwrap();
            assert_eq!(super::text(&answer).unwrap(), "1", "{error}");
            assert_eq!(answer.ttl, Duration::ZERO);
            assert_eq!(answer.age.as_secs(), passed as u64 + 1);
            assert_eq!(at.text("missing").await, None);
            assert_eq!(at.listed().await, ["k"]);
            assert_eq!(at.get("never seen").await.unwrap_err(), error);
        }
        at.double.fail(None);
        assert_eq!(at.text("k").await.unwrap(), "2");
        assert_eq!(at.listed().await, ["k", "missing"]);
    });
}

#[test]
fn a_refusal_is_told_and_not_covered_by_what_was_known() {
    let at = Bench::new(forgetful());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.get("k").await.unwrap();
        at.listed().await;
        let error = Error::Quota("plan".into());
        at.double.fail(error.clone());
        assert_eq!(at.get("k").await.unwrap_err(), error);
        assert_eq!(at.cache.list_keys().await.unwrap_err(), error);
    });
}

#[test]
fn nothing_old_is_shown_when_that_is_turned_off() {
    let at = Bench::new(Settings { max_stale: Duration::ZERO, ..forgetful() });
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.get("k").await.unwrap();
        at.listed().await;
        at.double.fail(down());
        assert_eq!(at.get("k").await.unwrap_err(), down());
        assert_eq!(at.cache.list_keys().await.unwrap_err(), down());
    });
}

#[test]
fn nothing_is_shown_once_it_is_too_old() {
    let at = Bench::new(Settings { max_stale: Duration::from_millis(20), ..forgetful() });
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.get("k").await.unwrap();
        at.listed().await;
        at.double.fail(down());
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(super::text(&at.get("k").await.unwrap()).unwrap(), "1");
        assert_eq!(at.listed().await, ["k"]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(at.get("k").await.unwrap_err(), down());
        assert_eq!(at.cache.list_keys().await.unwrap_err(), down());
        at.double.fail(None);
        assert_eq!(at.text("k").await.unwrap(), "1");
    });
}

#[test]
fn changes_fail_with_the_reason_and_change_nothing() {
    let at = Bench::new(forgetful());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.double.fail(down());
        assert_eq!(at.set("k", "2").await, Err(down()));
        assert_eq!(at.set("new", "2").await, Err(down()));
        assert_eq!(at.delete("k").await, Err(down()));
        assert_eq!(
            at.cache.rename_key(&"k".into(), &"new".into(), Expect::Anything, Expect::Anything).await,
            Err(down())
        );
        at.double.fail(None);
        assert_eq!(at.text("k").await.unwrap(), "1");
        assert_eq!(at.listed().await, ["k"]);
    });
}

#[test]
fn a_change_that_never_reached_the_store_leaves_the_last_known_value() {
    let at = Bench::new(forgetful());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.get("k").await.unwrap();
        at.listed().await;
        at.double.fail(down());
        at.set("k", "2").await.unwrap_err();
        at.delete("k").await.unwrap_err();
        at.cache
            .rename_key(&"k".into(), &"new".into(), Expect::Anything, Expect::Anything)
            .await
            .unwrap_err();
        assert_eq!(at.get("k").await.map(|answer| super::text(&answer)), Ok(Some("1".into())));
        assert_eq!(at.cache.list_keys().await.map(|answer| answer.value.len()), Ok(1));
    });
}

#[test]
fn after_a_change_without_an_answer_only_the_store_knows() {
    let at = Bench::new(forgetful());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        for change in 0..3 {
            at.double.fail(None);
            at.get("k").await.unwrap();
            at.double.fail(Error::TimedOut(5_000));
            let result = match change {
                0 => at.set("k", "2").await.map(drop),
                1 => at.delete("k").await.map(drop),
                _ => at
                    .cache
                    .rename_key(&"k".into(), &"new".into(), Expect::Anything, Expect::Anything)
                    .await
                    .map(drop),
            };
            assert_eq!(result, Err(Error::TimedOut(5_000)));
            assert_eq!(at.get("k").await.unwrap_err(), Error::TimedOut(5_000), "change {change}");
        }
    });
}
