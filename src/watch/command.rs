//! Runs a command for each change, one at a time.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::Change;
use crate::failure::Failure;
use crate::{logging, threads};

/// Most keys whose changes are queued, and most bytes that these take: with more, all are replaced by a `missed`.
const MOST: usize = 65_536;
const MOST_BYTES: usize = 16 << 20;

/// The queue of commands.
pub(super) struct Commands {
    queue: Arc<Queue>,
    runner: JoinHandle<()>,
}

impl Commands {
    pub(super) fn start(command: String, asked: PathBuf) -> Result<Self, Failure> {
        let queue = Arc::<Queue>::default();
        let taken = queue.clone();
        let run_all = move || {
            while let Some(change) = taken.next() {
                run(&command, &asked, &change);
            }
        };
        Ok(Self { queue, runner: threads::start("kvfs-commands", run_all)? })
    }

    pub(super) fn add(&self, change: Change) {
        self.queue.lock().add(change);
        self.queue.added.notify_one();
    }

    /// Runs the rest of the queue.
    pub(super) fn finish(self) {
        self.queue.lock().ended = true;
        self.queue.added.notify_one();
        _ = self.runner.join();
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    added: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next change; `None` at the end.
    fn next(&self) -> Option<Change> {
        let is_idle = |waiting: &mut Waiting| waiting.order.is_empty() && !waiting.ended;
        let waiting = self.added.wait_while(self.lock(), is_idle);
        waiting.unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// The queued changes, the newest of each key; no key if changes were missed.
#[derive(Default)]
struct Waiting {
    order: VecDeque<Option<String>>,
    newest: HashMap<Option<String>, Change>,
    bytes: usize,
    /// Nothing is added any more.
    ended: bool,
}

impl Waiting {
    fn add(&mut self, change: Change) {
        if self.order.len() == MOST || self.bytes + size(&change) > MOST_BYTES {
            let missed = Change::missed(change.time);
            *self = Self { ended: self.ended, ..Self::default() };
            self.put(missed);
        } else {
            self.put(change);
        }
    }

    fn put(&mut self, change: Change) {
        let key = change.key.clone();
        self.bytes += size(&change);
        match self.newest.insert(key.clone(), change) {
            Some(old) => self.bytes -= size(&old),
            None => self.order.push_back(key),
        }
    }

    fn next(&mut self) -> Option<Change> {
        let change = self.newest.remove(&self.order.pop_front()?)?;
        self.bytes -= size(&change);
        Some(change)
    }
}

/// The bytes of a change that have no bound of their own.
fn size(change: &Change) -> usize {
    [&change.key, &change.name].into_iter().flatten().map(String::len).sum()
}

fn run(command: &str, asked: &Path, change: &Change) {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).env("KVFS_EVENT", &change.event);
    for name in ["KVFS_KEY", "KVFS_FILE", "KVFS_REVISION"] {
        shell.env_remove(name);
    }
    // The environment cannot hold a NUL.
    if let Some(key) = change.key.as_ref().filter(|key| !key.contains('\0')) {
        shell.env("KVFS_KEY", key);
    }
    if let (Some(file), Some(revision)) = (change.file(asked), change.revision) {
        shell.env("KVFS_FILE", file).env("KVFS_REVISION", revision.to_string());
    }
    let shown = change.key.as_deref().unwrap_or_default();
    match shell.status() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            logging::report(&format!("the command for {} {shown:?} failed: {status}", change.event));
        }
        Err(error) => {
            logging::report(&format!("cannot run the command for {} {shown:?}: {error}", change.event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, revision: u64) -> Change {
        let (event, time) = ("set".to_owned(), "now".to_owned());
        Change { event, key: Some(key.into()), name: Some(key.into()), revision: Some(revision), time }
    }

    /// What waits, in order.
    fn rest(mut waiting: Waiting) -> Vec<(String, Option<u64>)> {
        let mut all = Vec::new();
        while let Some(change) = waiting.next() {
            all.push((change.key.unwrap_or(change.event), change.revision));
        }
        assert_eq!((waiting.bytes, waiting.newest.len()), (0, 0));
        all
    }

    #[test]
    fn of_each_key_the_newest_change_waits_in_the_place_of_its_first() {
        let mut waiting = Waiting::default();
        for (key, revision) in [("a", 1), ("b", 2), ("a", 3)] {
            waiting.add(set(key, revision));
        }
        assert_eq!(rest(waiting), [("a".into(), Some(3)), ("b".into(), Some(2))]);
    }

    #[test]
    fn changes_of_more_keys_than_can_wait_are_told_as_missed() {
        for (prefix, count) in [("", 2 * MOST + 1), (&"x".repeat(60_000)[..], 300)] {
            let mut waiting = Waiting::default();
            for number in 0..count {
                waiting.add(set(&format!("{prefix}{number}"), number as u64));
                assert!(waiting.order.len() <= MOST && waiting.bytes <= MOST_BYTES);
            }
            let rest = rest(waiting);
            assert_eq!(rest[0], ("missed".into(), None));
            let last = format!("{prefix}{}", count - 1);
            assert!(rest.len() == 1 || rest.last() == Some(&(last, Some(count as u64 - 1))));
        }
    }
}
