//! Database files that are damaged: the right value, or an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use kvfs::store::{Error, Expect};
use tempfile::TempDir;

use super::{close, open, try_open};
use crate::suite::{Bench, block_on};

/// A closed database of some keys with values of many sizes, and what it holds.
fn database(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let values: BTreeMap<String, Vec<u8>> = (0..24_usize)
        .map(|number| {
            (format!("key {number}"), format!("[{number}]").repeat(number * number * 4).into_bytes())
        })
        .collect();
    let at = open(path);
    block_on(async {
        let mut sets = tokio::task::JoinSet::new();
        for (key, value) in values.clone() {
            let at = at.clone();
            sets.spawn(async move { at.set(&key, value).await });
        }
        sets.join_all().await;
    });
    close(at, path);
    values
}

/// The fault of the file as it is now, if there is one.
fn wrong(path: &Path, values: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let Ok(store) = try_open(path) else { return Vec::new() };
    let at = Bench(Arc::new(store));
    let mut results = Vec::new();
    block_on(async {
        for (key, value) in values {
            let result = at
                .get(key)
                .await
                .map(|entry| entry.text[..] == value[..] && entry.meta.size == value.len() as u64);
            results.push((key.as_str(), result));
        }
        results.push(("list", at.0.list_keys().await.map(|_| true)));
        results.push(("set", at.try_set("key 1", "1", Expect::Anything).await.map(|_| true)));
        results.push(("delete", at.delete("key 2").await.map(|_| true)));
    });
    close(at, path);
    let complaint = |(what, result): (&str, Result<bool, Error>)| match result {
        Ok(false) => Some(format!("{what}: not its value")),
        // Both would be told instead of a panic.
        Err(Error::Other(why)) if why.contains("a database read failed") || why.contains("has stopped") => {
            Some(format!("{what}: {why}"))
        }
        Ok(true) | Err(_) => None,
    };
    results.into_iter().filter_map(complaint).collect()
}

/// Changes a byte at each of `places`, one at a time; the wrong answers this led to.
fn flip(places: impl Fn(&[u8]) -> Vec<usize>) -> Vec<String> {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let values = database(&path);
    let sound = fs::read(&path).unwrap();
    assert_eq!(wrong(&path, &values), [""; 0]);
    let mut all = Vec::new();
    for place in places(&sound) {
        for file in fs::read_dir(home.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        let mut damaged = sound.clone();
        damaged[place] ^= 0x41;
        fs::write(&path, damaged).unwrap();
        all.extend(wrong(&path, &values).into_iter().map(|what| format!("byte {place}: {what}")));
    }
    all
}

#[track_caller]
fn no_lies(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong answers, such as {:?}", wrong.len(), &wrong[..wrong.len().min(3)]);
}

#[test]
fn a_changed_byte_in_the_structure_of_a_page_gives_no_wrong_value() {
    // Pages of a tree begin with its kind; what else there is holds parts of long values.
    let places = |file: &[u8]| {
        let trees = (4096..file.len()).step_by(4096).filter(|page| file[*page] != 0);
        (0..100).chain(trees.flat_map(|page| page..page + 12)).collect()
    };
    no_lies(&flip(places));
}

#[test]
fn a_changed_byte_anywhere_gives_no_wrong_value() {
    no_lies(&flip(|file| (100..file.len()).step_by(1_013).collect()));
}

#[test]
fn a_truncated_file_gives_no_wrong_value() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let values = database(&path);
    let sound = fs::read(&path).unwrap();
    for length in
        [1, 50, 99, 100, 512, 4095, 4096, 4097, 8192, sound.len() / 2, sound.len() - 4096, sound.len() - 1]
    {
        for file in fs::read_dir(home.path()).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        fs::write(&path, &sound[..length]).unwrap();
        assert_eq!(wrong(&path, &values), [""; 0], "cut to {length} of {} bytes", sound.len());
    }
}

#[test]
fn a_log_cut_at_any_place_gives_a_value_that_was_there() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("kv.db");
    let at = open(&path);
    block_on(async {
        for number in 0..5 {
            at.set("k", number.to_string().repeat(5_000)).await;
        }
    });
    let (file, log) = (fs::read(&path).unwrap(), fs::read(path.with_extension("db-wal")).unwrap());
    let other = home.path().join("cut/kv.db");
    fs::create_dir(home.path().join("cut")).unwrap();
    for length in (0..log.len()).step_by(2_477) {
        fs::write(&other, &file).unwrap();
        fs::write(other.with_extension("db-wal"), &log[..length]).unwrap();
        let Ok(store) = try_open(&other) else { continue };
        let at = Bench(Arc::new(store));
        block_on(async {
            match at.get("k").await {
                Ok(entry) => {
                    let numbers = (0..5_u32).map(|number| number.to_string().repeat(5_000).into_bytes());
                    assert!(numbers.into_iter().any(|value| value == entry.text[..]), "cut to {length}");
                }
                Err(error) => assert_eq!(error, Error::NotFound),
            }
            at.set("k", "1").await;
        });
        close(at, &other);
        fs::remove_dir_all(home.path().join("cut")).unwrap();
        fs::create_dir(home.path().join("cut")).unwrap();
    }
}
