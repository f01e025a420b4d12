//! A disk without space.

use std::fs;
use std::path::Path;

use kvfs::store::{Change, Error, Expect};
use tempfile::TempDir;

use super::{create, open, try_open};
use crate::store::process;
use crate::suite::{Bench, block_on};

/// One megabyte in all.
pub(super) const SMALL_DISK: &str = "mount -t tmpfs -o size=1m none \"$D\"";

pub(super) fn value(number: usize) -> Vec<u8> {
    number.to_string().repeat(9_000 / number.to_string().len()).into_bytes()
}

/// Writes until nothing more fits.
pub(super) fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[b'x'; 512]).is_ok() {}
}

/// Sets keys until the disk is full; returns how many were kept.
pub(super) async fn set_until_full(at: &Bench, directory: &Path, first: usize) -> usize {
    for number in first.. {
        match at.try_set(&format!("{number:05}"), value(number), Expect::Absent).await {
            Ok(_) => assert!(number < 1_000, "{} is not full", directory.display()),
            Err(error) => {
                assert!(matches!(error, Error::NoSpace(_)), "{error:?}");
                return number;
            }
        }
    }
    unreachable!("numbers do not end")
}

pub(super) async fn has_exactly(at: &Bench, numbers: impl Iterator<Item = usize> + Clone) {
    assert_eq!(at.keys().await, numbers.clone().map(|number| format!("{number:05}")).collect::<Vec<_>>());
    for number in numbers {
        assert_eq!(at.text(&format!("{number:05}")).await, value(number));
    }
}

#[test]
fn a_full_disk_is_told_as_such_and_nothing_stored_is_lost() {
    const TEST: &str = "sqlite::full::a_full_disk_is_told_as_such_and_nothing_stored_is_lost";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(SMALL_DISK, TEST, TempDir::new().unwrap().path());
    };
    let path = directory.join("kv.db");
    let at = open(&path);
    block_on(async {
        fs::write(directory.join("ballast"), vec![b'x'; 200 << 10]).unwrap();
        let mut kept = set_until_full(&at, &directory, 0).await;
        assert!(kept > 10);
        for _ in 0..3 {
            assert_eq!(set_until_full(&at, &directory, kept).await, kept);
        }
        has_exactly(&at, 0..kept).await;
        // A set that takes no more space than before.
        at.set("00001", value(1)).await;
        at.delete("00000").await.unwrap();
        has_exactly(&at, 1..kept).await;

        fs::remove_file(directory.join("ballast")).unwrap();
        let more = set_until_full(&at, &directory, kept).await;
        assert!(more > kept);
        kept = more;
        has_exactly(&at, 1..kept).await;
        drop(at);
        has_exactly(&open(&path), 1..kept).await;
    });
}

#[test]
fn sets_that_shared_a_full_transaction_all_fail_and_change_nothing() {
    const TEST: &str = "sqlite::full::sets_that_shared_a_full_transaction_all_fail_and_change_nothing";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(SMALL_DISK, TEST, TempDir::new().unwrap().path());
    };
    let path = directory.join("kv.db");
    let at = open(&path);
    block_on(async {
        at.set("k", "1").await;
        fill(&directory.join("ballast"));
        set_until_full(&at, &directory, 0).await;
        let before = at.everything().await;
        let mut sets = tokio::task::JoinSet::new();
        for number in 0..40 {
            let at = at.clone();
            sets.spawn(async move { at.try_set("k", value(number), Expect::Anything).await });
        }
        for result in sets.join_all().await {
            assert!(matches!(result, Err(Error::NoSpace(_))), "{result:?}");
        }
        assert_eq!(at.everything().await, before);
        fs::remove_file(directory.join("ballast")).unwrap();
        at.set("k", "2").await;
        assert_eq!(at.text("k").await, b"2");
    });
}

/// The failed change had been given the revision that the next change gets, whoever makes it.
#[test]
fn a_change_made_elsewhere_after_a_failed_one_is_told() {
    const TEST: &str = "sqlite::full::a_change_made_elsewhere_after_a_failed_one_is_told";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(SMALL_DISK, TEST, TempDir::new().unwrap().path());
    };
    let path = directory.join("kv.db");
    let (at, elsewhere) = (open(&path), open(&path));
    block_on(async {
        at.set("k", "1").await;
        let mut feed = at.0.changes().unwrap();
        fill(&directory.join("ballast"));
        set_until_full(&at, &directory, 0).await;
        fs::remove_file(directory.join("ballast")).unwrap();
        let meta = elsewhere.set("k", "2").await;
        elsewhere.set("end", "1").await;
        assert_eq!(feed.recv().await, Some(Change::Set("k".into(), meta)));
    });
}

#[test]
fn a_database_that_has_no_space_to_begin_says_so_and_begins_later() {
    const TEST: &str = "sqlite::full::a_database_that_has_no_space_to_begin_says_so_and_begins_later";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(SMALL_DISK, TEST, TempDir::new().unwrap().path());
    };
    let path = directory.join("kv.db");
    fill(&directory.join("ballast"));
    let error = try_open(&path).err().unwrap();
    assert!(error.contains("full") || error.contains("space"), "{error}");
    fs::remove_file(directory.join("ballast")).unwrap();
    block_on(async { open(&path).set("k", "1").await });
}

#[test]
fn a_database_on_a_full_disk_can_be_opened_and_read() {
    const TEST: &str = "sqlite::full::a_database_on_a_full_disk_can_be_opened_and_read";
    let Some(directory) = process::given() else {
        return process::in_private_mounts(SMALL_DISK, TEST, TempDir::new().unwrap().path());
    };
    let path = directory.join("kv.db");
    create(&path, b"1");
    fill(&directory.join("ballast"));
    let at = open(&path);
    block_on(async {
        assert_eq!(at.text("k").await, b"1");
        assert_eq!(at.keys().await, ["k"]);
        let result = at.try_set("k", value(1), Expect::Anything).await;
        assert!(matches!(result, Err(Error::NoSpace(_))), "{result:?}");
        fs::remove_file(directory.join("ballast")).unwrap();
        at.set("k", "2").await;
        assert_eq!(at.text("k").await, b"2");
    });
}
