//! Events that wait to be made.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::fs::rules::names::is_inside;
use crate::fs::types::{Caller, Fh, Ino};
use crate::store::{Key, Meta};

/// The relay's handle on every file.
pub(crate) const HANDLE: Fh = Fh(u64::MAX);

/// Most orders that wait.
const MOST: usize = 16_384;

/// What the relay shall make the kernel tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The file has a new value.
    Set,
    /// The file is new.
    Created,
    /// The file has a new value and a new inode: readers hold the old one.
    Replaced,
    /// The file is gone.
    Deleted,
    /// The directory is new.
    DirectoryMade,
    /// The directory is gone.
    DirectoryRemoved,
}

/// One event to be made.
#[derive(Clone, Debug)]
pub struct RelayEvent {
    /// Which.
    pub kind: Kind,
    /// The file name.
    pub name: String,
    pub(crate) key: Key,
    pub(crate) meta: Meta,
    /// The inode that the kernel knew under this name, which may be watched.
    pub(crate) old: Option<Ino>,
}

impl RelayEvent {
    /// Whether it is of this kind, and about `path`.
    pub(crate) fn is(&self, kind: Kind, path: &str) -> bool {
        self.kind == kind && self.name == path
    }

    /// The file that it is about.
    pub(crate) fn file(&self) -> (&str, &Key, &Meta) {
        (&self.name, &self.key, &self.meta)
    }
}

/// What was known of a file before a change of its key was taken in.
#[derive(Debug, Default)]
pub(crate) struct Before {
    pub(crate) ino: Option<Ino>,
    pub(crate) there: Option<bool>,
    /// The directories on the way to it, outermost first, and whether they are there.
    pub(crate) directories: Vec<(String, bool)>,
}

/// The orders, and who carries them out.
#[derive(Default)]
pub struct Relay {
    pub(crate) on: AtomicBool,
    process: AtomicU32,
    queue: Mutex<RelayQueue>,
    wake: Condvar,
}

#[derive(Default)]
struct RelayQueue {
    waiting: VecDeque<RelayEvent>,
    names: HashSet<(Kind, String)>,
    current: Option<RelayEvent>,
    dropped: bool,
}

impl Relay {
    /// Makes the process `id` the relay; 0 for none. To be called before it does anything, and after its end.
    pub fn set_pid(&self, id: u32) {
        self.queue.lock().current = None;
        self.process.store(id, Ordering::Release);
    }

    /// Waits for the next order, which is carried out from now on.
    pub fn next(&self) -> RelayEvent {
        let mut queue = self.queue.lock();
        queue.current = None;
        loop {
            if let Some(event) = queue.waiting.pop_front() {
                queue.names.remove(&(event.kind, event.name.clone()));
                queue.current = Some(event.clone());
                return event;
            }
            queue.dropped = false;
            self.wake.wait(&mut queue);
        }
    }

    /// Whether there are any who are told.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    pub(crate) fn is(&self, caller: Caller) -> bool {
        caller.thread != 0 && caller.thread == self.process.load(Ordering::Acquire)
    }

    /// Whether the event that is being made is about `path`, or about something in it.
    pub(crate) fn is_about(&self, path: &str) -> bool {
        let queue = self.queue.lock();
        queue.current.as_ref().is_some_and(|event| event.name == path || is_inside(&event.name, path))
    }

    pub(crate) fn current(&self) -> Option<RelayEvent> {
        self.queue.lock().current.clone()
    }

    pub(crate) fn add(&self, mut event: RelayEvent) {
        let mut queue = self.queue.lock();
        let is_waiting = |kind, name: &str| queue.names.contains(&(kind, name.to_owned()));
        if matches!(event.kind, Kind::Set | Kind::Replaced) && is_waiting(Kind::Deleted, &event.name) {
            event.kind = Kind::Created;
        }
        // Each order is about how things are when it is carried out: one of a kind is enough.
        if is_waiting(event.kind, &event.name) {
            return;
        }
        if queue.waiting.len() >= MOST {
            if !std::mem::replace(&mut queue.dropped, true) {
                tracing::warn!("too many changes at once: programs that watch files are not told of some");
            }
            return;
        }
        queue.names.insert((event.kind, event.name.clone()));
        queue.waiting.push_back(event);
        self.wake.notify_one();
    }
}
