//! The number of the kernel's messages for each operation, which is the cost of this filesystem. The daemon counts them, so it is
//! the same on any machine.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};

use crate::common;
use common::{Mount, PATIENCE, can_mount, wait_for};

/// Messages since `before`, those of the counting itself and FORGET left out.
fn since(mount: &Mount, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let now = counts(mount);
    let delta = |(name, count): (&String, &u64)| {
        let delta = count - before.get(name).copied().unwrap_or(0);
        (delta > 0).then(|| (name.clone(), delta))
    };
    now.iter().filter_map(delta).collect()
}

fn counts(mount: &Mount) -> BTreeMap<String, u64> {
    let status = mount.status();
    let messages = status["messages"].as_object().unwrap();
    let wanted = messages.iter().filter(|(name, _)| !matches!(name.as_str(), "FORGET" | "GETXATTR"));
    wanted.map(|(name, count)| (name.clone(), count.as_u64().unwrap())).collect()
}

fn expected(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
    list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn cat(mount: &Mount, name: &str) -> String {
    let mut text = String::new();
    let mut file = File::open(mount.path(name)).unwrap();
    file.metadata().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_hot_read_is_one_open_and_a_hot_stat_is_nothing() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    let asked = mount.calls("get_key_value");
    fs::write(mount.path("db"), "{\"a\":1}").unwrap();
    // The first look fills the kernel's caches; a read makes the kernel ask for the access time once.
    for _ in 0..2 {
        cat(&mount, "db");
        fs::metadata(mount.path("db")).unwrap();
    }
    wait_for(PATIENCE, || mount.messages("RELEASE") == 3);
    let before = counts(&mount);
    for _ in 0..10 {
        assert_eq!(cat(&mount, "db"), "{\"a\":1}");
    }
    wait_for(PATIENCE, || mount.messages("RELEASE") == 13);
    assert_eq!(since(&mount, &before), expected(&[("OPEN", 10), ("RELEASE", 10)]));
    let before = counts(&mount);
    for _ in 0..10 {
        fs::metadata(mount.path("db")).unwrap();
        assert!(!mount.path("absent").exists() || before.is_empty());
    }
    // One lookup of the absent name; after that the kernel remembers.
    assert_eq!(since(&mount, &before), expected(&[("LOOKUP", 1)]));
    assert_eq!(mount.calls("get_key_value") - asked, 2);
}

#[test]
fn a_listing_with_attributes_costs_pages_and_not_keys() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    for number in 0..500 {
        fs::write(mount.path(format!("key{number:03}")), "1").unwrap();
    }
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let mount = Mount::start_in(mount.unmount(), &store, &[]);
    let asked = mount.calls("get_key_value");
    let list = || {
        let entries = fs::read_dir(&mount.dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        assert_eq!(entries.collect::<Vec<_>>(), vec![1; 500]);
    };
    list();
    let cold = counts(&mount);
    assert_eq!(cold.get("LOOKUP"), None, "{cold:?}");
    assert!(cold.values().sum::<u64>() < 40, "{cold:?}");
    assert_eq!(mount.calls("list_keys"), 1);
    assert_eq!(mount.calls("get_key_value"), asked);
    list();
    let before = counts(&mount);
    list();
    let hot = since(&mount, &before);
    let pages =
        |(name, _): (&String, &u64)| name.ends_with("DIR") || name == "READDIRPLUS" || name == "GETATTR";
    assert!(hot.iter().all(pages) && hot.values().sum::<u64>() < 20, "{hot:?}");
    assert_eq!(mount.calls("list_keys"), 1);
}

#[test]
fn an_overwrite_is_one_set_and_few_messages() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&[]);
    fs::write(mount.path("db"), "1").unwrap();
    let before = counts(&mount);
    fs::write(mount.path("db"), "2").unwrap();
    wait_for(PATIENCE, || mount.messages("RELEASE") == 2);
    let messages = since(&mount, &before);
    // The name, which the creation gave no life; the kernel takes the root for changed by the notice.
    let wanted = [("FLUSH", 1), ("GETATTR", 1), ("LOOKUP", 1), ("OPEN", 1), ("RELEASE", 1), ("WRITE", 1)];
    assert_eq!(messages, expected(&wanted));
    assert_eq!(mount.calls("set_key_value"), 2);
}

/// An operation, and the most messages that one may take of those that somebody waits for.
struct Cost {
    operation: &'static str,
    limit: u64,
    run: fn(&Mount, usize),
}

const COSTS: [Cost; 5] = [
    Cost { operation: "create", limit: 4, run: |mount, round| write(mount, &format!("d/new{round}")) },
    Cost { operation: "overwrite", limit: 6, run: |mount, _| write(mount, "d/db") },
    Cost { operation: "append", limit: 6, run: |mount, _| append(mount, "d/db") },
    Cost { operation: "unlink", limit: 1, run: |mount, round| remove(mount, &format!("d/new{round}")) },
    Cost { operation: "read", limit: 1, run: |mount, _| drop(cat(mount, "d/db")) },
];

fn write(mount: &Mount, name: &str) {
    fs::write(mount.path(name), "{\"a\":1}").unwrap();
}

fn append(mount: &Mount, name: &str) {
    File::options().append(true).open(mount.path(name)).unwrap().write_all(b"\n").unwrap();
}

fn remove(mount: &Mount, name: &str) {
    fs::remove_file(mount.path(name)).unwrap();
}

/// `work` with this many files, and the kernel has said that each is closed.
fn closing(mount: &Mount, files: u64, work: impl FnOnce()) {
    let closed = mount.messages("RELEASE");
    work();
    wait_for(PATIENCE, || mount.messages("RELEASE") == closed + files);
}

/// The most messages that the operation took, of several times, each after somebody has looked at the names and read the file.
fn most(mount: &Mount, cost: &Cost) -> BTreeMap<String, u64> {
    let once = |round: usize| {
        // The second look finds what the kernel keeps; the access time is asked for once.
        closing(mount, 2, || {
            for _ in 0..2 {
                assert!(fs::read_dir(mount.path("d")).unwrap().count() > 0);
                cat(mount, "d/db");
            }
        });
        let before = counts(mount);
        closing(mount, u64::from(cost.operation != "unlink"), || (cost.run)(mount, round));
        let mut messages = since(mount, &before);
        messages.remove("RELEASE");
        messages
    };
    (0..5).map(once).max_by_key(|messages| messages.values().sum::<u64>()).unwrap()
}

#[test]
fn no_operation_takes_more_messages_than_it_needs() {
    if !can_mount() {
        return;
    }
    // Below the root: to count looks at the root, which the kernel asks about when a name in it has changed.
    let mount = Mount::sqlite(&["--separator", "/"]);
    fs::create_dir(mount.path("d")).unwrap();
    write(&mount, "d/db");
    let most: Vec<_> = COSTS.iter().map(|cost| (cost, most(&mount, cost))).collect();
    for (cost, messages) in &most {
        let total: u64 = messages.values().sum();
        eprintln!("{:10} {total} of {}: {messages:?}", cost.operation, cost.limit);
    }
    let within =
        |(cost, messages): &(&Cost, BTreeMap<String, u64>)| messages.values().sum::<u64>() <= cost.limit;
    assert!(most.iter().all(within), "see above");
}
