//! A change that was refused, and one of which only the store knows whether it was made.

use kvfs::store::{Error, Expect, Result};

use super::{Bench, block_on, down, forgetful, text};

fn refusals() -> [Error; 6] {
    [
        Error::Busy("HTTP 429".into()),
        Error::Denied("read-only role".into()),
        Error::ReadOnly("role".into()),
        Error::Quota("plan".into()),
        Error::NoSpace("disk".into()),
        Error::Invalid("not kept here".into()),
    ]
}

/// Sets, deletes and renames `k`.
async fn change(at: &Bench, which: usize) -> Result<()> {
    let any = Expect::Anything;
    match which {
        0 => at.set("k", "2").await.map(drop),
        1 => at.delete("k").await.map(drop),
        _ => at.cache.rename_key(&"k".into(), &"new".into(), any, any).await.map(drop),
    }
}

#[test]
fn a_refused_change_leaves_the_last_known_value_readable() {
    let at = Bench::new(forgetful());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        for (error, which) in refusals().iter().flat_map(|error| [(error, 0), (error, 1), (error, 2)]) {
            at.double.fail(None);
            at.get("k").await.unwrap();
            at.listed().await;
            at.double.fail(error.clone());
            assert_eq!(change(&at, which).await.unwrap_err(), *error);
            at.double.fail(Error::Busy("HTTP 429".into()));
            let known = at.get("k").await.map(|answer| text(&answer));
            assert_eq!(known, Ok(Some("1".into())), "{error}, change {which}");
            assert_eq!(at.listed().await, ["k"], "{error}, change {which}");
        }
    });
}

#[test]
fn a_change_that_may_have_been_made_leaves_no_value_to_be_shown() {
    let at = Bench::new(forgetful());
    let errors = [Error::Busy("HTTP 503".into()), down(), Error::Denied("401".into())].map(Error::unsure);
    block_on(async {
        at.set_elsewhere("k", "1").await;
        for (error, which) in errors.iter().flat_map(|error| [(error, 0), (error, 1), (error, 2)]) {
            at.double.fail(None);
            at.get("k").await.unwrap();
            at.double.fail(error.clone());
            assert_eq!(change(&at, which).await.unwrap_err(), *error);
            assert_eq!(at.get("k").await.unwrap_err(), *error, "change {which}");
        }
    });
}

#[test]
fn a_change_that_somebody_else_overtook_leaves_what_was_known_for_when_the_store_is_down() {
    let at = Bench::new(super::roomy());
    block_on(async {
        at.set_elsewhere("k", "1").await;
        at.get("k").await.unwrap();
        at.double.fail(Error::Changed);
        assert_eq!(change(&at, 0).await.unwrap_err(), Error::Changed);
        at.double.fail(down());
        assert_eq!(at.text("k").await.as_deref(), Some("1"));
        at.double.fail(None);
        at.set_elsewhere("k", "2").await;
        assert_eq!(at.text("k").await.as_deref(), Some("2"), "it is asked for again, although it is not old");
    });
}
