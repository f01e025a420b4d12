//! The bytes of a draft: what they are, since when, and how they were judged so far.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::fs::rules::document::{Prefix, is_blank};
use crate::fs::rules::error::FsResult;

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
    /// As of when they were before they changed, or what utimes(2) said since.
    unchanged: SystemTime,
    /// utimes(2) was called after the last write; the time outlives the publish.
    time_set: bool,
    /// When they last changed, for promotion.
    touched: Instant,
    /// How many of them are saved, as long as only appends (`O_APPEND`) followed.
    appended_at: Option<usize>,
    /// As long as they are written from the start to the end.
    sequence: Option<Sequence>,
    /// Since they were last published, white space was added at the end, if anything.
    blank_since: bool,
    /// How many were written from the start on in order, whatever is behind them; 0 where something else was written last.
    rewritten: usize,
    /// How many from the start on are saved without those behind them, if nothing has changed since.
    beginning_saved: Option<usize>,
}

/// The bytes at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    generation: u64,
    length: usize,
}

/// Bytes that are written from the start to the end.
#[derive(Clone, Debug)]
struct Sequence {
    /// There were none where it began.
    from_nothing: bool,
    /// The document so far.
    document: Prefix,
}

impl Sequence {
    /// One that goes on from `text`.
    fn from(text: &[u8]) -> Self {
        Self { from_nothing: text.is_empty(), document: Prefix::new() }
    }
}

impl Buffer {
    /// Bytes that are saved already, as of `modified`.
    pub(super) fn new(text: Vec<u8>, modified: SystemTime) -> Self {
        Self {
            appended_at: Some(text.len()),
            sequence: Some(Sequence::from(&text)),
            text,
            changed: false,
            generation: 0,
            modified,
            unchanged: modified,
            time_set: false,
            touched: Instant::now(),
            blank_since: false,
            rewritten: 0,
            beginning_saved: None,
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(crate) const fn is_changed(&self) -> bool {
        self.changed
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// The bytes as they are now.
    pub(crate) fn moment(&self) -> Moment {
        Moment { generation: self.generation, length: self.text.len() }
    }

    /// What was written from the start on in order, over bytes of which more are left behind it.
    pub(super) fn rewritten(&self) -> Option<(&[u8], Moment)> {
        let written = 0 < self.rewritten && self.rewritten < self.text.len();
        let moment = Moment { generation: self.generation, length: self.rewritten };
        written.then(|| (&self.text[..self.rewritten], moment))
    }

    /// When the bytes last changed, or what utimes(2) said since.
    pub(crate) const fn modified(&self) -> SystemTime {
        self.modified
    }

    /// The same of the bytes before they changed.
    pub(crate) const fn unchanged(&self) -> SystemTime {
        self.unchanged
    }

    /// Whether that is what utimes(2) said.
    pub(crate) const fn is_time_set(&self) -> bool {
        self.time_set
    }

    /// utimes(2).
    pub(crate) const fn set_modified(&mut self, modified: SystemTime) {
        self.modified = modified;
        self.unchanged = modified;
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
        self.begin();
        self.leave_append();
        self.touch(now);
    }

    /// Replaces the bytes by saved ones, as of `modified`.
    pub(super) fn reset(&mut self, text: &[u8], modified: SystemTime) {
        self.text = text.to_vec();
        self.begin();
        self.touch(modified);
        self.changed = false;
        self.unchanged = modified;
    }

    fn begin(&mut self) {
        self.sequence = Some(Sequence::from(&self.text));
        self.appended_at = Some(self.text.len());
        self.blank_since = false;
        self.rewritten = 0;
    }

    /// The bytes were saved as they were at this moment.
    pub(super) const fn saved(&mut self, Moment { generation, length }: Moment) {
        if self.generation == generation && length < self.text.len() {
            self.beginning_saved = Some(length);
        } else if self.generation == generation {
            self.changed = false;
            self.blank_since = true;
            self.appended_at = Some(length);
        } else if self.appended_at.is_some() {
            self.appended_at = Some(length);
        }
    }

    /// What follows is no append.
    pub(crate) const fn leave_append(&mut self) {
        self.appended_at = None;
    }

    /// What was appended since they were saved, if nothing else was done to them.
    pub(crate) fn appended(&self) -> Option<&[u8]> {
        self.text.get(self.appended_at?..)
    }

    /// Whether they are what was published and white space after it.
    pub(crate) const fn is_blank_since(&self) -> bool {
        self.blank_since
    }

    /// Writes `data` at `offset`; what is between it and the end becomes zeros.
    pub(super) fn write(&mut self, offset: usize, data: &[u8], now: SystemTime) {
        let end = offset + data.len();
        self.blank_since &= offset == self.text.len() && is_blank(data);
        if end > self.text.len() {
            self.text.resize(end, 0);
        }
        self.text[offset..end].copy_from_slice(data);
        self.rewritten = if offset == 0 || offset == self.rewritten { end } else { 0 };
        self.touch(now);
    }

    /// Sets the size; new bytes are zero.
    pub(super) fn resize(&mut self, size: usize, now: SystemTime) {
        let (saved, modified) = (self.beginning_saved == Some(size), self.modified);
        self.text.resize(size, 0);
        self.leave_order();
        self.leave_append();
        self.blank_since = false;
        self.rewritten = 0;
        self.touch(if saved { modified } else { now });
        if saved {
            self.saved(self.moment());
        }
    }

    /// They are not written from the start to the end any more.
    pub(crate) fn leave_order(&mut self) {
        self.sequence = None;
    }

    /// Refuses bytes after which no continuation is a document, as long as they are written in order. Tells whether they
    /// complete one that was begun with nothing.
    pub(super) fn check_prefix(&mut self, offset: usize, data: &[u8]) -> FsResult<bool> {
        let Some((next, completes)) = self.extended(offset, data)? else {
            self.leave_order();
            return Ok(false);
        };
        self.sequence = Some(next);
        Ok(completes)
    }

    /// Whether `data` would complete a document that was begun with nothing.
    pub(crate) fn would_complete(&self, offset: usize, data: &[u8]) -> bool {
        matches!(self.extended(offset, data), Ok(Some((_, true))))
    }

    /// The document so far with `data` at its end, and whether that completes it; `None` where it is not written in order.
    fn extended(&self, offset: usize, data: &[u8]) -> FsResult<Option<(Sequence, bool)>> {
        let in_order = self.sequence.as_ref().filter(|_| offset == self.text.len());
        let Some(mut next) = in_order.cloned() else { return Ok(None) };
        next.document.feed(&self.text[next.document.seen()..])?;
        let was_closed = next.document.is_closed();
        next.document.feed(data)?;
        let completes = next.from_nothing && !was_closed && next.document.is_closed();
        Ok(Some((next, completes)))
    }

    /// Takes back what was written beyond `size`, unless they changed since `generation`.
    pub(crate) fn take_back(&mut self, size: usize, generation: u64) -> Option<Vec<u8>> {
        if self.generation != generation {
            return None;
        }
        let taken = self.text.split_off(size);
        // It was begun with nothing.
        self.sequence = Some(Sequence::from(&[]));
        self.generation += 1;
        Some(taken)
    }

    fn touch(&mut self, now: SystemTime) {
        self.changed = true;
        self.beginning_saved = None;
        self.generation += 1;
        self.modified = now;
        self.time_set = false;
        self.touched = Instant::now();
    }
}
