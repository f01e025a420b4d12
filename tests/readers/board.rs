//! What writers and readers, each a process of its own, tell each other: when each write began to be published, and when that was
//! done. It lies in a file that all of them map.
#![allow(unsafe_code, reason = "shared memory")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use super::document::{LINE, Number};

/// More writes than a long run makes; the file has holes where there are none.
const WRITES: usize = 1 << 22;

/// How many writes back a size is looked for.
const RECENT: Number = 64;

/// So many lines may be appended to one text: what was appended beside another change goes to that.
const MOST_LINES: u64 = 12;

/// Nanoseconds of a clock that all processes share.
type Time = u64;

#[repr(C)]
struct Write {
    /// The size of the whole file with it.
    size: AtomicU32,
    /// 0 until its publication begins.
    begun: AtomicU64,
    /// 0 until its publication is done; then it is not new, but may be what a reader finds.
    done: AtomicU64,
    /// 0 until its publication failed.
    refused: AtomicU64,
}

/// All zeros at first.
#[repr(C)]
struct Notes {
    next: AtomicU32,
    stop: AtomicBool,
    /// The latest beginning of a publication that is done: what was done before it is old.
    old_before: AtomicU64,
    /// Beginnings and ends of renames over the name and of removals: what is written meanwhile may have lost its name.
    turns: AtomicU64,
    removals_under_way: AtomicU64,
    last_removal: AtomicU64,
    writes: [Write; WRITES],
}

pub(super) struct Board(&'static Notes);

/// What a reader knows before it looks.
#[derive(Clone, Copy)]
pub(super) struct Look {
    at: Time,
    old_before: Time,
    next: Number,
}

/// A write that is being made.
pub(super) struct Making<'a> {
    board: &'a Board,
    turns: u64,
    pub(super) number: Number,
}

impl Board {
    /// Makes the file, in which the first text of `size` bytes is published.
    pub(super) fn create(path: &Path, size: usize) -> Self {
        let file = File::create_new(path).unwrap();
        file.set_len(size_of::<Notes>() as u64).unwrap();
        let board = Self::open(path);
        board.0.next.store(1, SeqCst);
        board.set_size(0, size);
        board.0.writes[0].begun.store(1, SeqCst);
        board.0.writes[0].done.store(1, SeqCst);
        board
    }

    pub(super) fn open(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let (length, protection) = (size_of::<Notes>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping of a whole file of this length.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: it is never unmapped; zeros are notes, and all of them are atomic.
        Self(unsafe { &*start.cast() })
    }

    pub(super) fn stop(&self) {
        self.0.stop.store(true, SeqCst);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.0.stop.load(SeqCst)
    }

    /// Another write, of which nothing is published yet.
    pub(super) fn make(&self) -> Making<'_> {
        let number = self.0.next.fetch_add(1, SeqCst);
        if number as usize + 64 > WRITES {
            self.stop();
        }
        Making { board: self, turns: self.0.turns.load(SeqCst), number }
    }

    /// Removes the name; what it had is old from then on.
    pub(super) fn remove<E>(&self, remove: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.0.turns.fetch_add(1, SeqCst);
        self.0.removals_under_way.fetch_add(1, SeqCst);
        let begun = now();
        let removed = remove();
        if removed.is_ok() {
            self.0.last_removal.store(now(), SeqCst);
            self.0.old_before.fetch_max(begun, SeqCst);
        }
        self.0.removals_under_way.fetch_sub(1, SeqCst);
        self.0.turns.fetch_add(1, SeqCst);
        removed
    }

    pub(super) fn look(&self) -> Look {
        let next = self.0.next.load(SeqCst);
        Look { at: now(), old_before: self.0.old_before.load(SeqCst), next }
    }

    /// True if a name that was looked for may be absent, or be there without a value.
    pub(super) fn may_be_absent(&self, look: Look) -> bool {
        self.0.removals_under_way.load(SeqCst) > 0
            || self.0.last_removal.load(SeqCst) >= look.old_before.max(1)
    }

    /// What is wrong with finding the text of this write, which is whole.
    pub(super) fn fault_of(&self, number: Number, look: Look) -> Option<&'static str> {
        let write = &self.0.writes[number as usize];
        let (done, refused) = (write.done.load(SeqCst), write.refused.load(SeqCst));
        if write.begun.load(SeqCst) == 0 {
            Some("unpublished")
        } else if refused != 0 && refused < look.at {
            Some("refused")
        } else if done != 0 && done < look.old_before {
            Some("stale")
        } else {
            None
        }
    }

    /// True if a text of this size has been published of late, or one to which lines were appended since.
    pub(super) fn has_size(&self, size: u64, look: Look) -> bool {
        let recent = look.next.saturating_sub(RECENT)..self.0.next.load(SeqCst);
        let published = recent
            .map(|number| &self.0.writes[number as usize])
            .filter(|write| write.begun.load(SeqCst) != 0)
            .map(|write| u64::from(write.size.load(SeqCst)))
            .collect::<Vec<_>>();
        (0..=MOST_LINES).any(|lines| published.contains(&size.wrapping_sub(lines * LINE as u64)))
    }

    fn set_size(&self, number: Number, size: usize) {
        self.0.writes[number as usize].size.store(size as u32, SeqCst);
    }
}

impl Making<'_> {
    /// Publishes a text of `size` bytes on the mount that the readers use.
    pub(super) fn publish<E>(&self, size: usize, publish: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let (begun, published) = self.attempt(size, publish);
        // Who held a file whose name went to another meanwhile may have published nothing.
        if published.is_ok() && self.board.0.turns.load(SeqCst) == self.turns {
            self.board.0.old_before.fetch_max(begun, SeqCst);
        }
        published
    }

    /// Publishes by a rename over the name.
    pub(super) fn replace<E>(&self, size: usize, rename: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.board.0.turns.fetch_add(1, SeqCst);
        let (begun, published) = self.attempt(size, rename);
        if published.is_ok() {
            self.board.0.old_before.fetch_max(begun, SeqCst);
        }
        self.board.0.turns.fetch_add(1, SeqCst);
        published
    }

    /// Publishes on another mount: the readers' mount hears of it some time later.
    pub(super) fn publish_elsewhere<E>(
        &self,
        size: usize,
        publish: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        self.attempt(size, publish).1
    }

    fn attempt<E>(&self, size: usize, publish: impl FnOnce() -> Result<(), E>) -> (Time, Result<(), E>) {
        let write = &self.board.0.writes[self.number as usize];
        self.board.set_size(self.number, size);
        let begun = now();
        write.begun.store(begun, SeqCst);
        let published = publish();
        let ended = if published.is_ok() { &write.done } else { &write.refused };
        ended.store(now(), SeqCst);
        (begun, published)
    }
}

fn now() -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
