//! The values that readers see while writers write and the cluster loses members. Each key has one writer, whose values count up: so
//! what may be seen is known. `KVFS_CLUSTER_SECONDS` says for how long; the default is short.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::{Raise, wait_for};
use super::pipe::Pipe;
use super::{Fleet, PATIENCE, extent, save};

const WRITERS: usize = 4;
const READERS: usize = 4;

/// A document that shows by itself whether it is whole.
fn document(count: u64) -> String {
    format!("{{\"n\":{count},\"pad\":\"{}\",\"again\":{count}}}\n", "x".repeat((count % 3_000) as usize))
}

/// The count of a whole document; panics on any other text.
#[track_caller]
fn count_of(text: &str) -> u64 {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("torn: {error}: {text:?}"));
    let count = value["n"].as_u64().unwrap();
    assert_eq!(text, document(count), "torn");
    count
}

/// The results of one writer's sets, in their order.
#[derive(Default)]
struct Told {
    /// The last set that was acknowledged.
    acknowledged: AtomicU64,
    /// The last set that was begun.
    begun: AtomicU64,
    failed: AtomicU64,
}

/// The values that all readers see and have seen.
struct Run {
    over: AtomicBool,
    told: Vec<Told>,
    reads: AtomicU64,
    unread: AtomicU64,
    /// Looks at what the mount itself has acknowledged.
    same_mount: AtomicU64,
}

impl Run {
    fn write(&self, mount: &Path, writer: usize) {
        let (told, path) = (&self.told[writer], mount.join(format!("w{writer}")));
        for count in 1.. {
            told.begun.store(count, Ordering::SeqCst);
            // The same value until it is acknowledged: whether an attempt was carried out may not be known.
            while !self.over.load(Ordering::SeqCst) {
                match save(&path, &document(count)) {
                    Ok(()) => {
                        told.acknowledged.store(count, Ordering::SeqCst);
                        break;
                    }
                    Err(error) => {
                        told.failed.fetch_add(1, Ordering::SeqCst);
                        let errno = error.raw_os_error().unwrap_or(0);
                        let outage =
                            [libc::EHOSTUNREACH, libc::ETIMEDOUT, libc::EIO, libc::EBUSY, libc::ESTALE];
                        assert!(outage.contains(&errno), "{error}");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Reads all keys again and again; what was seen of a key is never older than what was seen before.
    fn read(&self, mount: &Path, own: impl Fn(usize) -> bool) {
        let mut seen: HashMap<usize, u64> = HashMap::new();
        while !self.over.load(Ordering::SeqCst) {
            for (writer, told) in self.told.iter().enumerate() {
                let floor = told.acknowledged.load(Ordering::SeqCst);
                let Ok(text) = fs::read_to_string(mount.join(format!("w{writer}"))) else {
                    self.unread.fetch_add(1, Ordering::SeqCst);
                    continue;
                };
                let (count, ceiling) = (count_of(&text), told.begun.load(Ordering::SeqCst));
                assert!(count <= ceiling, "w{writer}: {count} was never written, only up to {ceiling}");
                let before = seen.insert(writer, count).unwrap_or(0);
                assert!(count >= before, "w{writer}: {before} was seen, then {count}");
                if own(writer) {
                    // On one mount a set that was acknowledged is what is read from then on.
                    assert!(count >= floor, "w{writer}: {floor} was acknowledged here, {count} is read");
                    self.same_mount.fetch_add(1, Ordering::SeqCst);
                }
                self.reads.fetch_add(1, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn no_acknowledged_set_is_lost_and_no_reader_goes_back_in_time() {
    let Some(mut fleet) = Fleet::start(3, 1, &["--timeout", "2s"]) else { return };
    let pipes: Vec<Pipe> = fleet.cluster.addresses().iter().map(|address| Pipe::before(address)).collect();
    let through: Vec<String> = pipes.iter().map(|pipe| pipe.address.clone()).collect();
    fleet.mounts.push(Fleet::mount(&format!("etcd:{}/app", through.join(",")), &["--timeout", "2s"]));
    let paths: Vec<PathBuf> = fleet.mounts.iter().map(|mount| mount.dir.clone()).collect();
    for writer in 0..WRITERS {
        fleet.cluster.put(format!("app/w{writer}"), document(0));
    }
    let run = Run {
        over: AtomicBool::new(false),
        told: (0..WRITERS).map(|_| Told::default()).collect(),
        reads: AtomicU64::new(0),
        unread: AtomicU64::new(0),
        same_mount: AtomicU64::new(0),
    };
    let run = &run;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let path = &paths[writer % 2];
            scope.spawn(move || {
                let over = Raise(&run.over);
                run.write(path, writer);
                drop(over);
            });
        }
        for reader in 0..READERS {
            let path = &paths[reader % 2];
            scope.spawn(move || {
                let over = Raise(&run.over);
                run.read(path, |writer| writer % 2 == reader % 2);
                drop(over);
            });
        }
        let _over = Raise(&run.over);
        disturb(&fleet, &pipes, &run.over, Duration::from_secs(extent("KVFS_CLUSTER_SECONDS", 15)));
    });
    check_end(&fleet, &paths, run);
}

/// In the end all have the last acknowledged value, or one that was begun after it.
fn check_end(fleet: &Fleet, paths: &[PathBuf], run: &Run) {
    let told: Vec<[u64; 3]> = run
        .told
        .iter()
        .map(|told| [&told.acknowledged, &told.begun, &told.failed].map(|count| count.load(Ordering::SeqCst)))
        .collect();
    for (writer, [acknowledged, begun, _]) in told.iter().enumerate() {
        for path in paths {
            wait_for(PATIENCE, || {
                let text = fs::read_to_string(path.join(format!("w{writer}")));
                text.is_ok_and(|text| (*acknowledged..=*begun).contains(&count_of(&text)))
            });
        }
        let kept = fleet.cluster.members[0].get(format!("app/w{writer}")).unwrap();
        let kept = count_of(&String::from_utf8(kept).unwrap());
        assert!((*acknowledged..=*begun).contains(&kept), "w{writer}: {kept}, told {acknowledged}..={begun}");
        assert!(*acknowledged > 10, "w{writer}: {acknowledged} acknowledged");
    }
    let (reads, unread) = (run.reads.load(Ordering::SeqCst), run.unread.load(Ordering::SeqCst));
    eprintln!("acknowledged, begun, failed: {told:?}; reads: {reads}, without an answer: {unread}");
    assert!(reads > 100 && run.same_mount.load(Ordering::SeqCst) > 50);
}

/// In turns: the leader is killed and started again, another member is, the connections of one mount are cut, then hang.
fn disturb(fleet: &Fleet, pipes: &[Pipe], over: &AtomicBool, time: Duration) {
    let (start, cluster) = (Instant::now(), &fleet.cluster);
    let rest = |time: Duration| std::thread::sleep(time);
    for round in 0.. {
        if start.elapsed() > time || over.load(Ordering::SeqCst) {
            return;
        }
        match round % 4 {
            turn @ (0 | 1) => {
                let member = &cluster.members[(cluster.leader() + turn) % 3];
                member.kill();
                rest(Duration::from_secs(2));
                member.start();
            }
            2 => {
                pipes.iter().for_each(Pipe::cut);
                rest(Duration::from_millis(300));
                pipes.iter().for_each(Pipe::mend);
            }
            _ => {
                pipes.iter().for_each(Pipe::hold);
                rest(Duration::from_secs(1));
                pipes.iter().for_each(Pipe::mend);
            }
        }
        rest(Duration::from_secs(1));
    }
}
