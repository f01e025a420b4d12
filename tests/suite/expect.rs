//! The preconditions of changes.

use kvfs::store::{Error, Expect, Revision};

use super::Bench;

const NEVER: Expect = Expect::At(Revision(u64::MAX >> 1));

pub(crate) async fn absent_sets_only_a_new_key(at: Bench) {
    at.try_set("k", "1", Expect::Absent).await.unwrap();
    let before = at.everything().await;
    assert_eq!(at.try_set("k", "2", Expect::Absent).await, Err(Error::Exists));
    assert_eq!(at.everything().await, before);
    at.delete("k").await.unwrap();
    at.try_set("k", "3", Expect::Absent).await.unwrap();
    assert_eq!(at.text("k").await, b"3");
}

pub(crate) async fn at_sets_only_the_version_it_names(at: Bench) {
    assert_eq!(at.try_set("k", "0", NEVER).await, Err(Error::Changed));
    let first = at.set("k", "1").await;
    let second = at.try_set("k", "2", Expect::At(first.revision)).await.unwrap();
    let other = at.set("other", "1").await;
    let before = at.everything().await;
    for revision in [first.revision, other.revision, Revision(second.revision.0 + 1), Revision(0)] {
        assert_eq!(at.try_set("k", "3", Expect::At(revision)).await, Err(Error::Changed));
    }
    assert_eq!(at.everything().await, before);
    at.delete("k").await.unwrap();
    assert_eq!(at.try_set("k", "4", Expect::At(second.revision)).await, Err(Error::Changed));
    assert!(at.is_missing("k").await);
}

pub(crate) async fn a_delete_obeys_its_expectation(at: Bench) {
    let first = at.set("k", "1").await;
    let second = at.set("k", "2").await;
    let before = at.everything().await;
    assert_eq!(at.try_delete("k", Expect::At(first.revision)).await, Err(Error::Changed));
    assert_eq!(at.try_delete("k", Expect::Absent).await, Err(Error::Exists));
    assert_eq!(at.everything().await, before);
    at.try_delete("k", Expect::At(second.revision)).await.unwrap();
    for expect in [Expect::Anything, Expect::Absent, Expect::At(second.revision)] {
        assert_eq!(at.try_delete("k", expect).await, Err(Error::NotFound));
    }
}

pub(crate) async fn a_rename_obeys_its_expectation(at: Bench) {
    let from = at.set("from", "1").await;
    assert_eq!(at.try_rename("from", "to", NEVER).await, Err(Error::Changed));
    let to = at.set("to", "2").await;
    let before = at.everything().await;
    assert_eq!(at.try_rename("from", "to", Expect::Absent).await, Err(Error::Exists));
    assert_eq!(at.try_rename("from", "to", Expect::At(from.revision)).await, Err(Error::Changed));
    assert_eq!(at.everything().await, before);
    let moved =
        at.0.rename_key(&"from".into(), &"new".into(), Expect::At(to.revision), Expect::Anything).await;
    assert_eq!(moved, Err(Error::Changed));
    assert_eq!(at.everything().await, before);
    at.try_rename("from", "to", Expect::At(to.revision)).await.unwrap();
    at.try_rename("to", "new", Expect::Absent).await.unwrap();
    assert_eq!(at.text("new").await, b"1");
    assert_eq!(at.keys().await, ["new"]);
}
