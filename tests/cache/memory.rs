//! What is remembered, how much of it, and for how long.

use std::num::NonZeroUsize;
use std::time::Duration;

use kvfs::cache::{ENTRY_BYTES, FOREVER, Settings};
use kvfs::store::{Change, Expect, Key};

use super::Remembered::{Absence, Nothing, Value};
use super::{Bench, HOUR, block_on, forgetful, roomy};

#[test]
fn a_value_is_fetched_once() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        for _ in 0..3 {
            let answer = at.get("k").await.unwrap();
            assert_eq!(super::text(&answer).unwrap(), "1");
            assert!(!answer.ttl.is_zero() && answer.ttl <= HOUR);
        }
        assert_eq!(at.gets(), 1);
    });
}

#[test]
fn an_absent_key_is_asked_for_once() {
    let at = Bench::new(roomy());
    block_on(async {
        assert_eq!(at.remembered("missing"), Nothing);
        for _ in 0..3 {
            assert_eq!(at.text("missing").await, None);
        }
        assert_eq!(at.remembered("missing"), Absence);
        assert_eq!(at.gets(), 1);
    });
}

#[test]
fn what_was_set_or_deleted_here_is_not_asked_for() {
    let at = Bench::new(roomy());
    block_on(async {
        let meta = at.set("k", "1").await.unwrap();
        assert_eq!(at.get("k").await.unwrap().value.unwrap().meta, meta);
        at.set("k", "2").await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "2");
        at.delete("k").await.unwrap();
        assert_eq!(at.text("k").await, None);
        at.set("k", "3").await.unwrap();
        assert_eq!(at.text("k").await.unwrap(), "3");
        assert_eq!(at.gets(), 0);
    });
}

#[test]
fn a_rename_is_seen_at_both_ends() {
    let at = Bench::new(roomy());
    block_on(async {
        at.set("from", "1").await.unwrap();
        at.set("to", "2").await.unwrap();
        let (from, to) = (Key::from("from"), Key::from("to"));
        let meta = at.cache.rename_key(&from, &to, Expect::Anything, Expect::Anything).await.unwrap();
        assert_eq!(at.text("from").await, None);
        assert_eq!(at.text("to").await.unwrap(), "1");
        assert_eq!(at.get("to").await.unwrap().value.unwrap().meta, meta);
    });
}

#[test]
fn the_keys_used_last_are_remembered() {
    let at = Bench::new(Settings { entries: NonZeroUsize::new(3).unwrap(), ..roomy() });
    block_on(async {
        at.set_elsewhere("a", "1").await;
        for key in ["a", "b", "c", "a", "d"] {
            at.get(key).await.unwrap();
        }
        assert_eq!(at.remembered("b"), Nothing);
        assert_eq!(at.remembered("a"), Value("1".into()));
        assert_eq!((at.remembered("c"), at.remembered("d")), (Absence, Absence));
    });
}

#[test]
fn values_are_remembered_up_to_a_number_of_bytes() {
    let at = Bench::new(Settings { bytes: 4 * (ENTRY_BYTES + 1) + 100, ..roomy() });
    let (half, third) = ("x".repeat(50), "x".repeat(30));
    block_on(async {
        at.set_elsewhere("a", &half).await;
        at.set_elsewhere("b", &half).await;
        at.set_elsewhere("c", "1").await;
        for key in ["a", "b", "n"] {
            at.get(key).await.unwrap();
        }
        assert_eq!(at.gets(), 3);
        at.get("c").await.unwrap();
        assert_eq!(at.remembered("a"), Nothing);
        assert!(["b", "n", "c"].iter().all(|key| at.remembered(key) != Nothing));
        at.set("b", &third).await.unwrap();
        at.set("d", &third).await.unwrap();
        at.set("e", &third).await.unwrap();
        assert!(["b", "c", "d", "e"].iter().all(|key| at.remembered(key) != Nothing));
    });
}

#[test]
fn absences_and_long_keys_take_no_more_memory_than_values_may() {
    let at = Bench::new(Settings { bytes: 1 << 20, ..roomy() });
    block_on(async {
        let keys: Vec<String> = (0..200).map(|number| format!("{number}{}", "k".repeat(64 << 10))).collect();
        for key in &keys {
            at.get(key).await.unwrap();
        }
        let remembered = keys.iter().filter(|key| at.remembered(key) != Nothing).count();
        assert!((1..=16).contains(&remembered), "{remembered}");
    });
}

#[test]
fn bytes_are_counted_right_after_many_changes() {
    let room = 4 * (ENTRY_BYTES + 26);
    let at = Bench::new(Settings { bytes: room, ..roomy() });
    block_on(async {
        for round in 0..50 {
            let meta = at.set("k", &"x".repeat(round)).await.unwrap();
            at.cache.apply(vec![Change::Set("k".into(), meta)]);
            match round % 5 {
                0 => _ = at.delete("k").await.unwrap(),
                1 => {
                    _ = at
                        .cache
                        .rename_key(&"k".into(), &"moved".into(), Expect::Anything, Expect::Anything)
                        .await
                        .unwrap();
                }
                2 => drop(at.cache.apply(vec![Change::Everything])),
                3 => _ = at.set("a value larger than all room", &"x".repeat(room)).await.unwrap(),
                _ => _ = at.get("moved").await.unwrap(),
            }
        }
        for key in ["a", "b", "c", "d"] {
            at.set(key, &"x".repeat(25)).await.unwrap();
        }
        assert!(["a", "b", "c", "d"].iter().all(|key| at.remembered(key) != Nothing));
        at.set("e", "1").await.unwrap();
        assert_eq!(at.remembered("a"), Nothing);
    });
}

#[test]
fn an_answer_is_asked_for_again_when_it_is_old() {
    let at = Bench::new(Settings { max_age: Duration::from_millis(20), ..roomy() });
    block_on(async {
        at.set_elsewhere("k", "1").await;
        assert_eq!(at.text("k").await.unwrap(), "1");
        at.set_elsewhere("k", "2").await;
        assert_eq!(at.text("k").await.unwrap(), "1");
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(at.text("k").await.unwrap(), "2");
        assert_eq!(at.gets(), 2);
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(at.remembered("k"), Nothing);
    });
}

#[test]
fn without_an_age_every_get_asks_the_store() {
    let at = Bench::new(forgetful());
    block_on(async {
        for value in ["1", "2", "3"] {
            at.set_elsewhere("k", value).await;
            assert_eq!(at.text("k").await.unwrap(), value);
        }
        assert_eq!(at.gets(), 3);
    });
}

#[test]
fn an_answer_of_a_store_that_pushes_changes_does_not_age() {
    let at = Bench::new(forgetful());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.cache.apply(vec![Change::Resumed]);
        for key in ["k", "missing", "k", "missing"] {
            assert_eq!(at.get(key).await.unwrap().ttl, FOREVER);
        }
        at.listed().await;
        assert_eq!(at.listed().await, ["k"]);
        assert_eq!((at.gets(), at.calls("list_keys")), (2, 1));
        at.cache.apply(vec![Change::Paused]);
        assert_eq!(at.remembered("k"), Nothing);
        assert_eq!(at.get("k").await.unwrap().ttl, Duration::ZERO);
        at.listed().await;
        assert_eq!((at.gets(), at.calls("list_keys")), (3, 2));
    });
}
