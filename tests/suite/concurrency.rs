//! Many callers at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvfs::store::{Error, Expect};
use tokio::task::JoinSet;

use super::Bench;

const CALLERS: usize = 32;

pub(crate) async fn setters_of_different_keys_all_arrive(at: Bench) {
    let mut setters = JoinSet::new();
    for number in 0..CALLERS {
        let at = at.clone();
        setters.spawn(async move {
            for version in 0..3 {
                at.set(&number.to_string(), format!("[{number},{version}]")).await;
            }
        });
    }
    setters.join_all().await;
    assert_eq!(at.list().await.len(), CALLERS);
    for number in 0..CALLERS {
        assert_eq!(at.text(&number.to_string()).await, format!("[{number},2]").as_bytes());
    }
}

/// Adds one to the number in `key`, however often somebody else is faster.
pub(crate) async fn increment(at: &Bench, key: &str) {
    loop {
        let entry = at.get(key).await.unwrap();
        let number: u64 = std::str::from_utf8(&entry.text).unwrap().parse().unwrap();
        match at.try_set(key, (number + 1).to_string(), Expect::At(entry.meta.revision)).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error, Error::Changed),
        }
    }
}

pub(crate) async fn no_update_of_a_counter_is_lost(at: Bench) {
    at.set("counter", "0").await;
    let mut setters = JoinSet::new();
    for _ in 0..CALLERS {
        let at = at.clone();
        setters.spawn(async move { increment(&at, "counter").await });
    }
    setters.join_all().await;
    assert_eq!(at.text("counter").await, CALLERS.to_string().as_bytes());
}

pub(crate) async fn one_of_many_creators_wins(at: Bench) {
    let mut creators = JoinSet::new();
    for number in 0..CALLERS {
        let at = at.clone();
        creators.spawn(async move {
            let text = number.to_string();
            at.try_set("k", &text, Expect::Absent).await.map(|_| text)
        });
    }
    let (won, lost): (Vec<_>, Vec<_>) = creators.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|result| *result == Err(Error::Exists)));
    assert_eq!(at.text("k").await, won[0].as_ref().unwrap().as_bytes());
}

/// Runs `change` in a task of its own and `look` again and again until it is done, at least once.
async fn while_changing<F: Future<Output = ()>>(
    change: impl Future<Output = ()> + Send + 'static,
    look: impl Fn() -> F,
) {
    let done = Arc::new(AtomicBool::new(false));
    let flag = done.clone();
    let changes = tokio::spawn(async move {
        change.await;
        flag.store(true, Ordering::Release);
    });
    loop {
        let last = changes.is_finished() || done.load(Ordering::Acquire);
        look().await;
        if last {
            break;
        }
        tokio::task::yield_now().await;
    }
    changes.await.unwrap();
}

/// Versions differ in length and in every byte.
fn version(number: usize) -> String {
    format!("\"{}\"", number.to_string().repeat(number * 40))
}

pub(crate) async fn a_reader_sees_whole_versions_only(at: Bench) {
    at.set("k", "0").await;
    let writer = at.clone();
    let change = async move {
        for number in 1..=60_usize {
            writer.set("k", version(number)).await;
        }
    };
    while_changing(change, || async {
        let entry = at.get("k").await.unwrap();
        assert_eq!(entry.meta.size, entry.text.len() as u64);
        let number = (0..=60_usize).find(|number| match number {
            0 => &entry.text[..] == b"0",
            _ => entry.text[..] == *version(*number).as_bytes(),
        });
        assert!(number.is_some(), "a mix of versions: {:?}", String::from_utf8_lossy(&entry.text));
    })
    .await;
}

pub(crate) async fn a_renamed_key_is_never_missing(at: Bench) {
    at.set("a", "1").await;
    let mover = at.clone();
    let change = async move {
        for _ in 0..30 {
            mover.rename("a", "b").await.unwrap();
            mover.rename("b", "a").await.unwrap();
        }
    };
    while_changing(change, || async {
        assert!(!at.keys().await.is_empty());
    })
    .await;
    assert_eq!(at.keys().await, ["a"]);
}
