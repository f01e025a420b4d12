//! A store known to have no room.

use std::sync::Arc;
use std::time::Duration;

use kvfs::store::{Counted, Counters, Error, Expect, Guarded, Key, Result, Store};

use super::double::Double;
use super::{HOUR, block_on};

struct Bench {
    store: Guarded,
    double: Arc<Double>,
    counters: Arc<Counters>,
}

fn bench() -> Bench {
    let (double, counters) = (Arc::new(Double::default()), Arc::new(Counters::default()));
    let counted = Counted::new(double.clone(), counters.clone());
    Bench { store: Guarded::new(Arc::new(counted), HOUR), double, counters }
}

impl Bench {
    async fn set(&self, key: &str, expect: Expect) -> Result<()> {
        self.store.set_key_value(&Key::from(key), Arc::from(&b"1"[..]), expect).await.map(drop)
    }

    /// Sets fail with `error`, and one has.
    async fn fill(&self, error: &Error) {
        self.set("old", Expect::Anything).await.unwrap();
        self.set("other", Expect::Anything).await.unwrap();
        self.double.fail(error.clone());
        assert_eq!(self.set("new", Expect::Absent).await, Err(error.clone()));
    }

    fn sets(&self) -> u64 {
        self.counters.snapshot()["set_key_value"]
    }
}

fn full() -> Error {
    Error::NoSpace("full".into())
}

#[test]
fn sets_of_a_full_store_are_refused_without_asking_it() {
    let at = bench();
    block_on(async {
        at.fill(&full()).await;
        for _ in 0..1_000 {
            assert_eq!(at.set("old", Expect::Anything).await, Err(full()));
        }
        assert!(at.sets() < 500, "{} of 1,000 sets reached a full store", at.sets());
        at.double.fail(None);
        at.store.get_key_value(&"old".into()).await.unwrap();
        at.store.rename_key(&"old".into(), &"moved".into(), Expect::Anything, Expect::Absent).await.unwrap();
    });
}

#[test]
fn a_delete_makes_room_at_once() {
    let at = bench();
    block_on(async {
        at.fill(&full()).await;
        at.double.fail(None);
        at.store.delete_key(&"other".into(), Expect::Anything).await.unwrap();
        assert_eq!(at.store.outage(), None);
        at.set("new", Expect::Absent).await.unwrap();
    });
}

#[test]
fn a_full_store_is_tried_again() {
    let at = bench();
    block_on(async {
        at.fill(&full()).await;
        at.double.fail(None);
        while at.set("new", Expect::Absent).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(at.store.outage(), None);
    });
}

#[test]
fn a_quota_keeps_new_keys_out_only() {
    let at = bench();
    block_on(async {
        let quota = Error::Quota("as many keys as the plan has".into());
        at.fill(&quota).await;
        at.double.fail(None);
        at.set("old", Expect::Anything).await.unwrap();
        let outage = at.store.outage();
        assert!(outage.is_none_or(|error| error == quota));
    });
}
