//! Rows of values that are lost or damaged: an error that names itself, and a key that can be had again.

use std::path::Path;

use kvfs::store::{Error, Expect, Key};
use tempfile::TempDir;

use super::commit::is_pending;
use super::{close, create, open, raw};
use crate::suite::{Bench, block_on};

/// Damages to the row of the value of `k`, the last one inserted.
const DAMAGES: [&str; 5] = [
    "DELETE FROM value WHERE id = (SELECT value_id FROM entry WHERE key = 'k')",
    "UPDATE value SET bytes = x'39' WHERE id = (SELECT value_id FROM entry WHERE key = 'k')",
    "UPDATE value SET bytes = x'' WHERE id = (SELECT value_id FROM entry WHERE key = 'k')",
    "UPDATE value SET bytes = 12 WHERE id = (SELECT value_id FROM entry WHERE key = 'k')",
    "UPDATE entry SET value_id = 1 WHERE key = 'k'",
];

/// For each damage of the value of `k`: the store, beside an unharmed key `first` that was there before, and one that
/// is set `after` it.
fn each(check: &impl AsyncFn(&Bench)) {
    for damage in DAMAGES {
        let home = TempDir::new().unwrap();
        let path = home.path().join("kv.db");
        create(&path, b"1");
        let at = open(&path);
        block_on(async {
            at.delete("k").await.unwrap();
            at.set("first", "\"first\"").await;
            at.set("k", "1").await;
        });
        assert_eq!(raw(&path).execute(damage, []), Ok(1));
        block_on(async {
            at.set("after", "\"after\"").await;
            check(&at).await;
            assert_eq!(at.text("first").await, b"\"first\"", "{damage}");
            assert_eq!(at.text("after").await, b"\"after\"", "{damage}");
        });
        close(at, &path);
        let lost = "SELECT count(*) FROM entry LEFT JOIN value ON value.id = value_id WHERE value.id IS NULL";
        let lost: i64 = raw(&path).query_row(lost, [], |row| row.get(0)).unwrap();
        assert_eq!(lost, 0, "{damage}");
    }
}

fn is_damaged<T: std::fmt::Debug>(result: &Result<T, Error>) {
    assert!(matches!(result, Err(Error::Damaged(_))), "{result:?}");
}

#[test]
fn a_lost_or_damaged_value_is_told_and_can_be_overwritten() {
    each(&async |at: &Bench| {
        is_damaged(&at.get("k").await);
        let before = at.list().await.into_iter().find(|(key, _)| key == "k").unwrap().1;
        is_damaged(&at.get("k").await);
        let after = at.set("k", "2").await;
        assert_eq!(after.id, before.id);
        assert_eq!(at.text("k").await, b"2");
    });
}

#[test]
fn a_lost_or_damaged_value_can_be_deleted() {
    each(&async |at: &Bench| {
        at.delete("k").await.unwrap();
        assert_eq!(at.get("k").await, Err(Error::NotFound));
        at.set("k", "2").await;
        assert_eq!(at.text("k").await, b"2");
    });
}

#[test]
fn a_lost_or_damaged_value_can_be_renamed_over_and_is_not_renamed_itself() {
    each(&async |at: &Bench| {
        let (k, new, free) = (Key::from("k"), Key::from("new"), Key::from("free"));
        at.set("new", "2").await;
        is_damaged(&at.0.rename_key(&k, &free, Expect::Anything, Expect::Anything).await);
        assert_eq!(at.get("free").await, Err(Error::NotFound));
        is_damaged(&at.get("k").await);
        at.0.rename_key(&new, &k, Expect::Anything, Expect::Anything).await.unwrap();
        assert_eq!(at.text("k").await, b"2");
    });
}

#[test]
fn a_rename_of_a_damaged_value_takes_no_other_change_along() {
    let home = TempDir::new().unwrap();
    let path: &Path = &home.path().join("kv.db");
    create(path, b"1");
    let at = open(path);
    raw(path).execute("DELETE FROM value", []).unwrap();
    let lock = raw(path);
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    block_on(async {
        let (k, free) = (Key::from("k"), Key::from("free"));
        let mut rename = Box::pin(at.0.rename_key(&k, &free, Expect::Anything, Expect::Anything));
        let mut set = Box::pin(at.set("other", "2"));
        assert!(is_pending(rename.as_mut()) && is_pending(set.as_mut()));
        drop(lock);
        is_damaged(&rename.await);
        set.await;
        assert_eq!(at.text("other").await, b"2");
    });
}
