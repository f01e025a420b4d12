//! What could not be published, and what was just deleted, as files that a person can find.
//!
//! `rejected/` holds at most 1,000 files and 64 MiB of rejected texts, and as much of deleted values; the oldest go
//! first. A deleted value goes after a minute.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::store::Text;

/// Most files kept.
const FILES: usize = 1_000;
/// Most bytes kept.
const BYTES: u64 = 64 << 20;
/// How long a deleted value is kept.
const DELETED: Duration = Duration::from_mins(1);
/// How many deleted values are written at a time.
const DELETED_AT_ONCE: usize = 64;
/// Every file name ends in one of these, after the name of the key, which may end so too.
const REJECTED_SUFFIX: &str = "rejected";
const REASON_SUFFIX: &str = "reason";
const DELETED_SUFFIX: &str = "deleted";

struct Kept {
    path: PathBuf,
    bytes: u64,
    at: SystemTime,
}

/// Texts that were neither published nor kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub count: u64,
    /// Why the last one could not be kept, and where it was to be.
    pub why: String,
}

/// The directory of rejected and deleted values.
pub(super) struct Rejected {
    directory: PathBuf,
    store: String,
    /// Apart, so that a thousand deletions push out no rejected text.
    texts: Mutex<VecDeque<Kept>>,
    deleted: Mutex<VecDeque<Kept>>,
    /// Deleted values on their way to the disk.
    pending: Mutex<VecDeque<(String, Text)>>,
    sequence: std::sync::atomic::AtomicU64,
    /// Texts rejected since the start.
    count: std::sync::atomic::AtomicU64,
    lost: Mutex<Option<Lost>>,
}

impl Rejected {
    /// Uses `directory`, which is created when it is needed, for what the store called `store` did not take.
    pub(super) fn new(directory: PathBuf, store: &str) -> Self {
        let mut kept: Vec<Kept> = read(&directory).unwrap_or_default();
        kept.sort_by_key(|kept| kept.at);
        let (deleted, rejected): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|kept| is_deleted_value(&kept.path));
        let (rejected, deleted) = (Mutex::new(rejected.into()), Mutex::new(deleted.into()));
        let rejected = Self {
            directory,
            store: store.to_owned(),
            texts: rejected,
            deleted,
            pending: Mutex::default(),
            sequence: 0.into(),
            count: 0.into(),
            lost: Mutex::default(),
        };
        rejected.prune();
        rejected
    }

    /// Keeps `text`, which could not become the value of `name`, and beside it why; or says why it is lost, and where it was to
    /// be.
    pub(super) fn keep_rejected(&self, name: &str, text: &[u8], why: &str) -> Result<PathBuf, String> {
        self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.path(name, REJECTED_SUFFIX);
        if let Err(error) = self.keep(&self.texts, &path, text) {
            let why = format!("{}: {error}", self.directory.display());
            let mut lost = self.lost.lock();
            let count = lost.as_ref().map_or(0, |lost| lost.count) + 1;
            *lost = Some(Lost { count, why: why.clone() });
            return Err(why);
        }
        let (store, now) = (&self.store, jiff::Timestamp::now());
        let reason = format!("key: {name:?}\nstore: {store}\ntime: {now:.0}\nreason: {why}\n");
        if let Err(error) = self.keep(&self.texts, &path.with_extension(REASON_SUFFIX), reason.as_bytes()) {
            tracing::warn!("the reason could not be kept beside {}: {error}", path.display());
        }
        Ok(path)
    }

    /// The texts that could not be kept since the start.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.lost.lock().clone()
    }

    /// How many texts have been rejected since the start.
    pub(super) fn rejected(&self) -> u64 {
        self.count.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Keeps the value of a deleted key; [`Rejected::write_deleted`] writes it. A file made at once would make the
    /// next commit of a database on the same disk several times slower.
    pub(super) fn keep_deleted(&self, name: &str, text: Text) {
        let mut pending = self.pending.lock();
        pending.push_back((name.to_owned(), text));
        if pending.len() > FILES {
            pending.pop_front();
        }
    }

    /// Writes up to `most` deleted values.
    pub(super) fn write_deleted(&self, most: usize) {
        for _ in 0..most {
            let Some((name, text)) = self.pending.lock().pop_front() else { return };
            if let Err(error) = self.keep(&self.deleted, &self.path(&name, DELETED_SUFFIX), &text) {
                tracing::warn!(
                    "the value of the deleted key {name:?} could not be kept for a minute: {error}"
                );
            }
        }
    }

    /// To be called now and then: writes some deleted values, and removes what is too old or too much.
    pub(super) fn tend(&self) {
        self.write_deleted(DELETED_AT_ONCE);
        self.prune();
    }

    /// Removes what is too old or too much.
    pub(super) fn prune(&self) {
        prune(&mut self.texts.lock(), Duration::MAX);
        prune(&mut self.deleted.lock(), DELETED);
    }

    fn keep(&self, list: &Mutex<VecDeque<Kept>>, path: &Path, text: &[u8]) -> io::Result<()> {
        crate::sys::create_private_dir_all(&self.directory)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if let Err(error) = file.write_all(text) {
            // What is cut is nobody's text.
            _ = fs::remove_file(path);
            return Err(error);
        }
        list.lock().push_back(Kept {
            path: path.to_owned(),
            bytes: text.len() as u64,
            at: SystemTime::now(),
        });
        Ok(())
    }

    /// A new path whose name tells the time and the file.
    fn path(&self, name: &str, suffix: &str) -> PathBuf {
        let sequence = self.sequence.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // The file of a key in a directory is called by its path.
        let name = name.replace('/', "%2F");
        let mut end = name.len().min(120);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let now = seconds(SystemTime::now());
        self.directory.join(format!("{now}-{}-{sequence}-{}.{suffix}", std::process::id(), &name[..end]))
    }
}

/// Removes what is older than `life`, and the oldest of what is too much.
fn prune(kept: &mut VecDeque<Kept>, life: Duration) {
    let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
    while let Some(oldest) = kept.front() {
        let expired = oldest.at.elapsed().is_ok_and(|age| age > life);
        if !expired && kept.len() <= FILES && bytes <= BYTES {
            return;
        }
        bytes -= oldest.bytes;
        // Another mount may have removed it already.
        _ = fs::remove_file(&oldest.path);
        kept.pop_front();
    }
}

fn is_deleted_value(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == DELETED_SUFFIX)
}

fn read(directory: &Path) -> io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue };
        kept.push(Kept { path: entry.path(), bytes: meta.len(), at: meta.modified()? });
    }
    Ok(kept)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_text_is_kept_with_its_reason_and_both_kinds_are_bounded() {
        let home = tempfile::TempDir::new().unwrap();
        let rejected = Rejected::new(home.path().join("rejected"), "memory:");
        let path = rejected.keep_rejected("b", b"{bad", "not JSON").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"{bad");
        let reason = fs::read_to_string(path.with_extension("reason")).unwrap();
        let lines: Vec<&str> = reason.lines().collect();
        let [key, store, time, why] = lines[..] else { panic!("{reason}") };
        assert_eq!((key, store, why), ("key: \"b\"", "store: memory:", "reason: not JSON"));
        assert!(time["time: ".len()..].parse::<jiff::Timestamp>().is_ok(), "{time}");
        for _ in 0..FILES + 5 {
            rejected.keep_deleted("k", Text::from(&b"1"[..]));
            rejected.write_deleted(1);
        }
        rejected.prune();
        assert_eq!(fs::read_dir(home.path().join("rejected")).unwrap().count(), FILES + 2);
        for _ in 0..FILES / 2 {
            rejected.keep_rejected("c", b"2", "not JSON either").unwrap();
        }
        Rejected::new(home.path().join("rejected"), "memory:");
        assert_eq!(fs::read_dir(home.path().join("rejected")).unwrap().count(), 2 * FILES);
        assert!(!path.exists());
    }

    #[test]
    fn the_name_of_a_key_does_not_decide_how_long_its_text_is_kept() {
        let home = tempfile::TempDir::new().unwrap();
        let names = ["k.deleted", "k.reason", "k.rejected", ".deleted", "deleted"];
        let rejected = Rejected::new(home.path().to_owned(), "memory:");
        let kept: Vec<PathBuf> =
            names.iter().map(|name| rejected.keep_rejected(name, b"{bad", "not JSON").unwrap()).collect();
        for name in names {
            rejected.keep_deleted(name, Text::from(&b"1"[..]));
        }
        rejected.write_deleted(names.len());
        let old = SystemTime::now() - 2 * DELETED;
        for kept in read(home.path()).unwrap() {
            fs::File::options().write(true).open(kept.path).unwrap().set_modified(old).unwrap();
        }
        Rejected::new(home.path().to_owned(), "memory:");
        assert!(kept.iter().all(|path| path.exists()));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2 * names.len());
    }
}
