//! The memory of a mount: what `--cache-size` bounds, and what comes on top.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::thread;

use crate::common;
use common::{Mount, can_mount, peak_memory};

const CACHE: u64 = 32 << 20;
/// On top of it: docs/stores.md says so.
const FIXED: u64 = 48 << 20;
const PER_FILE: u64 = 2 << 10;

const KEYS: u64 = 5_000;
const CLIENTS: u64 = 16;

/// Does something with each file, many at once.
fn each(mount: &Mount, does: impl Fn(&std::path::Path, u64) + Sync) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let does = &does;
            scope.spawn(move || {
                (client..KEYS)
                    .step_by(CLIENTS as usize)
                    .for_each(|key| does(&mount.path(format!("k{key}")), key));
            });
        }
    });
}

#[test]
fn memory_stays_below_the_size_of_the_cache_and_a_sum() {
    if !can_mount() {
        return;
    }
    let mount = Mount::sqlite(&["--cache-size", "32M", "--timeout", "1m"]);
    let pid = u32::try_from(mount.pid).unwrap();
    let before = peak_memory(pid);
    for round in 0..2 {
        each(&mount, |path, key| {
            // Of another length each time, so that no value fits where the last one was.
            let text = format!("\"{}\"\n", "x".repeat(8_000 + (key * 7 + round * 501) as usize % 1_900));
            File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
        });
        each(&mount, |path, _| assert!(fs::read(path).unwrap().len() > 8_000));
    }
    for entry in fs::read_dir(&mount.dir).unwrap() {
        assert!(entry.unwrap().metadata().unwrap().len() > 0);
    }
    let used = peak_memory(pid) - before;
    let most = CACHE + FIXED + KEYS * PER_FILE;
    assert!(used < most, "{} of {} MiB", used >> 20, most >> 20);
}
