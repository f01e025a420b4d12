//! Runs a command for each change, one at a time.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::Change;
use crate::logging;

/// The queue of commands.
pub(super) struct Commands {
    changes: Sender<Change>,
    runner: JoinHandle<()>,
}

impl Commands {
    pub(super) fn start(command: String, asked: PathBuf) -> Self {
        let (changes, queue) = channel();
        let runner = std::thread::spawn(move || run_all(&command, &asked, &queue));
        Self { changes, runner }
    }

    pub(super) fn add(&self, change: Change) {
        // Fails only if the runner is gone by a panic.
        _ = self.changes.send(change);
    }

    /// Runs the rest of the queue.
    pub(super) fn finish(self) {
        drop(self.changes);
        _ = self.runner.join();
    }
}

/// The queued changes, the newest of each key; no key if changes were missed.
#[derive(Default)]
struct Waiting {
    order: VecDeque<Option<String>>,
    newest: HashMap<Option<String>, Change>,
}

impl Waiting {
    fn add(&mut self, change: Change) {
        let key = change.key.clone();
        if self.newest.insert(key.clone(), change).is_none() {
            self.order.push_back(key);
        }
    }

    fn next(&mut self) -> Option<Change> {
        self.newest.remove(&self.order.pop_front()?)
    }
}

fn run_all(command: &str, asked: &Path, queue: &Receiver<Change>) {
    let mut waiting = Waiting::default();
    loop {
        for change in queue.try_iter() {
            waiting.add(change);
        }
        let Some(change) = waiting.next().or_else(|| queue.recv().ok()) else { return };
        run(command, asked, &change);
    }
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
