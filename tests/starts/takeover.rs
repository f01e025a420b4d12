//! Take-overs from a dead mount.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kvfs::sys::moving::can_go_beneath;

use super::{kill_daemon, mounts_at, said, start};
use crate::common::{Mount, can_mount, status_of, unmount};

const TAKE_OVERS: usize = 5;

/// Sets the key `name` to one number after the other until it is `over`. The last one that was acknowledged.
fn write(dir: &Path, name: &str, over: &AtomicBool) -> u64 {
    let (path, mut acknowledged) = (dir.join(name), 0);
    for number in 1.. {
        let set =
            fs::File::create(&path).and_then(|mut file| file.write_all(format!("{number}\n").as_bytes()));
        match set {
            Ok(()) => acknowledged = number,
            Err(_) if over.load(Ordering::Relaxed) => break,
            Err(_) => {}
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

#[test]
fn nothing_is_written_below_a_mount_while_another_takes_over() {
    // Else there is a moment without a mount.
    if !can_mount() || !can_go_beneath() {
        return;
    }
    let mut mount = Mount::sqlite(&[]);
    let (dir, over) = (mount.dir.clone(), AtomicBool::new(false));
    let store = format!("sqlite:{}", mount.home.path().join("kv.db").display());
    let acknowledged = thread::scope(|scope| {
        let writers = ["a", "b"].map(|name| {
            let (dir, over) = (&dir, &over);
            scope.spawn(move || (name, write(dir, name, over)))
        });
        let taken_over = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..TAKE_OVERS {
                kill_daemon(&mount);
                let (text, code) = said(&start(&mount.home, &store, &dir).wait_with_output().unwrap());
                assert_eq!((code, mounts_at(&dir)), (0, 1), "{text}");
                mount.pid = i32::try_from(status_of(&dir)["pid"].as_i64().unwrap()).unwrap();
            }
        }));
        over.store(true, Ordering::Relaxed);
        assert!(taken_over.is_ok());
        writers.map(|writer| writer.join().unwrap())
    });
    for (name, number) in acknowledged {
        let found: u64 = fs::read_to_string(dir.join(name)).unwrap().trim().parse().unwrap();
        assert!(number > 0 && found >= number, "{name}: {found} of {number}");
    }
    let left = fs::read_dir(mount.home.path().join("state/kvfs")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("mount-")), "{left:?}");
    unmount(&dir);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
