//! The bytes of a draft: what they are, since when, and how they were judged so far.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::fs::rules::document::Prefix;
use crate::fs::rules::error::{FsError, FsResult};

/// Unsaved bytes.
#[derive(Debug)]
pub(crate) struct Buffer {
    text: Vec<u8>,
    /// They were written, or the size changed, since they were last published.
    changed: bool,
    /// Counts changes: a publish that ends at another count than it began does not make the draft clean.
    generation: u64,
    /// When they last changed, or what utimes(2) said since.
    modified: SystemTime,
    /// utimes(2) was called after the last write; the time outlives the publish.
    time_set: bool,
    /// When they last changed, for promotion.
    touched: Instant,
    /// The document so far, as long as it is written from the start to the end.
    prefix: Option<Prefix>,
}

impl Buffer {
    /// Bytes that are saved already, as of `modified`.
    pub(super) fn new(text: Vec<u8>, modified: SystemTime) -> Self {
        Self {
            text,
            changed: false,
            generation: 0,
            modified,
            time_set: false,
            touched: Instant::now(),
            prefix: Some(Prefix::new()),
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(crate) const fn is_changed(&self) -> bool {
        self.changed
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// When the bytes last changed, or what utimes(2) said since.
    pub(crate) const fn modified(&self) -> SystemTime {
        self.modified
    }

    /// Whether that is what utimes(2) said.
    pub(crate) const fn is_time_set(&self) -> bool {
        self.time_set
    }

    /// utimes(2).
    pub(crate) const fn set_modified(&mut self, modified: SystemTime) {
        self.modified = modified;
        self.time_set = true;
    }

    /// For how long they have been left alone.
    pub(crate) fn idle(&self) -> Duration {
        self.touched.elapsed()
    }

    /// They count as left alone from now on.
    pub(crate) fn wait_anew(&mut self) {
        self.touched = Instant::now();
    }

    /// Starts over with nothing, as `O_TRUNC` does.
    pub(super) fn clear(&mut self, now: SystemTime) {
        self.text.clear();
        self.prefix = Some(Prefix::new());
        self.touch(now);
    }

    /// Replaces the bytes by saved ones, as of `modified`.
    pub(super) fn reset(&mut self, text: &[u8], modified: SystemTime) {
        self.text = text.to_vec();
        self.prefix = Some(Prefix::new());
        self.touch(modified);
        self.changed = false;
    }

    /// The bytes were saved as they were at `generation`.
    pub(super) const fn saved(&mut self, generation: u64) {
        if self.generation == generation {
            self.changed = false;
        }
    }

    /// Writes `data` at `offset`; what is between it and the end becomes zeros.
    pub(super) fn write(&mut self, offset: usize, data: &[u8], now: SystemTime) {
        let end = offset + data.len();
        if end > self.text.len() {
            self.text.resize(end, 0);
        }
        self.text[offset..end].copy_from_slice(data);
        self.touch(now);
    }

    /// Sets the size; new bytes are zero.
    pub(super) fn resize(&mut self, size: usize, now: SystemTime) {
        self.text.resize(size, 0);
        self.prefix = None;
        self.touch(now);
    }

    /// Refuses bytes after which no continuation is a document, as long as they are written in order.
    pub(super) fn check_prefix(&mut self, offset: usize, data: &[u8]) -> FsResult<()> {
        let Some(prefix) = self.prefix.as_mut().filter(|_| offset == self.text.len()) else {
            self.prefix = None;
            return Ok(());
        };
        let mut next = prefix.clone();
        let seen = next.seen();
        next.feed(&self.text[seen..]).and_then(|()| next.feed(data)).map_err(FsError::from)?;
        self.prefix = Some(next);
        Ok(())
    }

    fn touch(&mut self, now: SystemTime) {
        self.changed = true;
        self.generation += 1;
        self.modified = now;
        self.time_set = false;
        self.touched = Instant::now();
    }
}
