//! One durable set of the embedded store against a raw append and fdatasync of the same size on the same disk,
//! without a mount: `cargo bench --bench store [-- DIRECTORY]` prints a table. Medians over rounds; a round measures
//! both, one after the other, and a ratio is the median of the ratios within the rounds.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvfs::store::{Expect, Key, SqliteStore, Store, Text};
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 21;
const SETS: usize = 50;

struct Bench {
    runtime: Runtime,
    store: Arc<SqliteStore>,
    raw: File,
}

impl Bench {
    /// Microseconds per set of `writers` appends that share one fdatasync.
    fn raw(&mut self, writers: usize, size: usize) -> f64 {
        let batch = text(0, size).repeat(writers);
        let start = Instant::now();
        for _ in 0..SETS {
            self.raw.write_all(&batch).unwrap();
            self.raw.sync_data().unwrap();
        }
        per_set(start, writers)
    }

    /// Microseconds per set with as many writers at once, each waiting for its set.
    fn sets(&self, writers: usize, size: usize) -> f64 {
        let start = Instant::now();
        let write = |writer: usize| {
            let store = self.store.clone();
            async move {
                for number in 0..SETS {
                    let key = Key::from(format!("{writer}-{}", number % 10).as_str());
                    store.set_key_value(&key, text(number, size), Expect::Anything).await.unwrap();
                }
            }
        };
        let tasks: Vec<_> = (1..writers).map(|writer| self.runtime.spawn(write(writer))).collect();
        self.runtime.block_on(write(0));
        for task in tasks {
            self.runtime.block_on(task).unwrap();
        }
        per_set(start, writers)
    }
}

fn text(number: usize, size: usize) -> Text {
    format!("\"{number:0>width$}\"", width = size - 2).into_bytes().into()
}

fn per_set(start: Instant, writers: usize) -> f64 {
    start.elapsed().as_secs_f64() * 1e6 / (SETS * writers) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // cargo adds --bench.
    let parent = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let parent = parent.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let home = tempfile::TempDir::new_in(parent).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Arc::new(SqliteStore::open(&home.path().join("kv.db"), Duration::from_secs(5)).unwrap());
    // A mount follows it too.
    let _feed = store.changes();
    let raw = OpenOptions::new().create(true).append(true).open(home.path().join("raw")).unwrap();
    let mut bench = Bench { runtime, store, raw };
    println!("| writers | bytes | raw, us per set | sqlite, us per set | ratio |\n|---|---|---|---|---|");
    for (writers, size) in [(1, 100), (1, 1_000), (1, 8_000), (16, 100), (16, 1_000), (16, 8_000)] {
        let rounds: Vec<(f64, f64)> =
            (0..ROUNDS).map(|_| (bench.raw(writers, size), bench.sets(writers, size))).collect();
        let of = |value: fn(&(f64, f64)) -> f64| median(rounds.iter().map(value).collect());
        let (raw, sqlite, ratio) = (of(|round| round.0), of(|round| round.1), of(|round| round.1 / round.0));
        println!("| {writers} | {size} | {raw:.0} | {sqlite:.0} | {ratio:.2} |");
    }
}
