//! Many changes at once, while the mount is used.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::common::{Mount, Raise, can_mount, close, wait_for};
use super::{PATIENCE, Watch, mounted, text};

#[test]
fn a_storm_of_changes_delays_nobody_and_its_end_is_told() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    let watch = Watch::new(&mount.dir, &["-e", "close_write"]);
    let slowest = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = Raise(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                fs::write(mount.path("own"), "1").unwrap();
                assert_eq!(text(mount.path("own")), "1");
                fs::read_dir(&mount.dir).unwrap().count();
                slowest.fetch_max(start.elapsed().as_millis() as u64, Ordering::Relaxed);
            }
        });
        std::thread::scope(|scope| {
            for thread in 0..20 {
                let elsewhere = &elsewhere;
                scope.spawn(move || {
                    for number in 0..500 {
                        elsewhere.set(&format!("key{}", (thread * 500 + number) % 2_000), "1");
                    }
                });
            }
        });
    });
    elsewhere.set("end", "1");
    watch.until("CLOSE_WRITE,CLOSE end");
    let slowest = slowest.into_inner();
    assert!(slowest < 5_000, "{slowest} ms");
}

#[test]
fn readers_and_writers_and_remote_changes_never_stop_each_other() {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    (0..8).for_each(|number| elsewhere.set(&format!("k{number}"), "\"0\""));
    wait_for(PATIENCE, || mount.names().len() == 8);
    let watch = Watch::new(&mount.dir, &["-e", "close_write"]);
    let over = AtomicBool::new(false);
    let (rounds, made) = (AtomicU64::new(0), AtomicU64::new(0));
    let while_busy = |work: &dyn Fn(u64)| {
        let mut round = 0;
        while !over.load(Ordering::Relaxed) {
            round += 1;
            work(round);
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let _end = Raise(&over);
        scope.spawn(|| {
            while_busy(&|round| {
                elsewhere.set(&format!("k{}", round % 8), &format!("\"{round}\""));
                elsewhere.set("comes", "1");
                elsewhere.delete("comes");
                made.fetch_add(3, Ordering::Relaxed);
            });
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while_busy(&|round| {
                    let text = text(mount.path(format!("k{}", round % 8)));
                    assert!(text.starts_with('"') && text.ends_with('"'), "{text}");
                    _ = fs::read(mount.path("comes"));
                });
            });
        }
        scope.spawn(|| while_busy(&|_| assert!(fs::read_dir(&mount.dir).unwrap().count() >= 8)));
        scope.spawn(|| {
            while_busy(&|round| {
                save_and_remove(&mount, round);
                // One for the set, two for the rename, one for the removal.
                made.fetch_add(4, Ordering::Relaxed);
            });
        });
        for _ in 0..seconds() {
            let before = rounds.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_secs(1));
            wait_for(PATIENCE, || rounds.load(Ordering::Relaxed) > before + 10);
        }
    });
    elsewhere.set("end", "1");
    watch.until("CLOSE_WRITE,CLOSE end");
    for number in 0..8 {
        let key = format!("k{number}");
        assert_eq!(Some(text(mount.path(&key))), elsewhere.get(&key), "{key}");
    }
    let made = 8 + made.into_inner() + 1;
    assert_eq!(last_revision(&mount), made, "the relay changes nothing in the store");
}

/// Reads a key that is set elsewhere again and again, with large steps between the sizes: a reader that takes the size of
/// another version sees too little, or NULs. Meanwhile `disturb` is done to the file.
fn each_read_gives_one_value_whole(disturb: impl Fn(&Path) + Sync) {
    if !can_mount() {
        return;
    }
    let (mount, elsewhere) = mounted();
    elsewhere.set("k", "\"0\"");
    wait_for(PATIENCE, || mount.names().len() == 1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = Raise(&over);
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut text = [0; 100];
                    let size = fs::File::open(mount.path("k")).unwrap().read(&mut text).unwrap();
                    let inner = text[..size].strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
                    let whole = inner.is_some_and(|inner| inner.iter().all(|byte| *byte == inner[0]));
                    assert!(whole, "{:?}", String::from_utf8_lossy(&text[..size]));
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                disturb(&mount.path("k"));
            }
        });
        let start = Instant::now();
        for round in 0.. {
            elsewhere.set("k", &format!("\"{}\"", "x".repeat(1 + round * 7 % 29)));
            std::thread::sleep(Duration::from_micros(round as u64 * 131 % 2_000));
            if start.elapsed() > Duration::from_secs(seconds()) {
                break;
            }
        }
    });
}

#[test]
fn one_read_gives_one_value_whole_however_often_it_is_set_elsewhere() {
    each_read_gives_one_value_whole(|_| std::thread::sleep(Duration::from_millis(1)));
}

#[test]
fn one_read_gives_one_value_whole_while_the_attributes_of_the_file_change() {
    each_read_gives_one_value_whole(|file| fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap());
}

#[test]
fn one_read_gives_one_value_whole_while_the_file_is_replaced() {
    each_read_gives_one_value_whole(|file| {
        let temporary = file.with_extension("tmp");
        fs::write(&temporary, format!("\"{}\"", "y".repeat(50))).unwrap();
        fs::rename(&temporary, file).unwrap();
    });
}

/// How long a test goes on that has no other end.
fn seconds() -> u64 {
    std::env::var("KVFS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

fn save_and_remove(mount: &Mount, round: u64) {
    // Unlike `fs::write`, which does not look at what close(2) says.
    let mut own = fs::File::create(mount.path("own")).unwrap();
    own.write_all(round.to_string().as_bytes()).unwrap();
    assert_eq!(close(own), 0);
    assert_eq!(text(mount.path("own")), round.to_string());
    fs::rename(mount.path("own"), mount.path("moved")).unwrap();
    fs::remove_file(mount.path("moved")).unwrap();
}

fn last_revision(mount: &Mount) -> u64 {
    let database = rusqlite::Connection::open(mount.home.path().join("kv.db")).unwrap();
    let last: i64 = database.query_row("SELECT max(revision) FROM change", [], |row| row.get(0)).unwrap();
    last.unsigned_abs()
}
