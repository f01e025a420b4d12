//! A draft: the unsaved bytes of a file open for writing, and whether and how they are published.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;

use crate::fs::rules::document::Validate;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::scratch;
use crate::fs::state::buffer::{Buffer, Moment};
use crate::fs::state::predecessors::Predecessor;
use crate::fs::types::{DraftId, Ino, ROOT};
use crate::store::{Error, Expect, Limits, Meta, Revision, Text, counted_len};

/// Where a draft's bytes may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    /// To the store, at close and fsync.
    OnClose,
    /// To the store when it is renamed onto a key, or promoted.
    OnRename,
    /// Nowhere, unless renamed onto a key.
    Never,
}

/// What a publish replaced.
#[derive(Debug)]
pub(crate) struct Overwritten {
    /// There was a value.
    pub(crate) was_there: bool,
    /// That value, until it is kept.
    pub(crate) text: Option<Text>,
}

impl Overwritten {
    pub(crate) const fn by(text: Option<Text>) -> Self {
        Self { was_there: text.is_some(), text }
    }
}

/// The unsaved bytes of one file, and what may become of them.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about the file")]
pub(crate) struct Draft {
    /// What a reader of the draft sees.
    pub(crate) bytes: Buffer,
    /// Where the bytes may go.
    pub(crate) purpose: Publish,
    /// What must hold in the store when the draft is published.
    pub(crate) expect: Expect,
    /// Created with `O_EXCL`.
    pub(crate) exclusive: bool,
    /// Made as an empty file, by who closed it so: that it is again where a text is refused.
    pub(crate) empty: bool,
    /// The id that the key of a new file shall have.
    pub(crate) id: Option<Arc<str>>,
    /// What the store knows since the last publish.
    pub(crate) published: Option<Meta>,
    /// What is published, where what was appended went to another value than the bytes begin with.
    pub(crate) base: Option<Text>,
    /// The kernel has other pages: it took an append to be elsewhere than at the end of the bytes, or writes past them.
    pub(crate) off_pages: bool,
    /// The first draft of the process, if it certainly had others of the file open when this one began.
    pub(crate) kin: Option<DraftId>,
    /// What such another one was published as, after that which must hold: this draft may take its place.
    pub(crate) follows: Option<Revision>,
    /// How many handles write to this draft.
    pub(crate) handles: u32,
    /// The open that began it is not answered yet: the kernel goes by the attributes of the version before.
    pub(crate) opening: bool,
    /// Its last descriptor is closed, and what is left of it to publish is being published.
    pub(crate) ending: bool,
    /// The kernel syncs after each write (`O_SYNC`, `O_DSYNC`).
    pub(crate) syncs: bool,
    /// The key was deleted or replaced while the draft was open: it goes nowhere.
    pub(crate) orphan: bool,
    /// It was replaced: there is another file of the name.
    pub(crate) replaced: bool,
    /// The last publish failed and its caller was told so: only an explicit close or fsync tries again.
    pub(crate) refused: Option<FsError>,
    /// What their first publish replaced.
    pub(crate) overwritten: Option<Overwritten>,
    /// Each is resolved when the kernel has been told of a publish that did not wait for it.
    pub(crate) untold: Vec<oneshot::Receiver<()>>,
    /// What the process that made the file had removed before.
    pub(crate) predecessor: Option<Predecessor>,
    /// The mode that is known is to be set with it: somebody wrote to a file that ran as its owner or group.
    pub(crate) ends_privileges: bool,
    /// The bytes were a key's value once (a backup made by rename).
    pub(crate) was_key: bool,
    /// The inode it belongs to.
    pub(crate) ino: Ino,
}

impl Draft {
    /// A draft that starts with `text`, which is as of `modified`.
    pub(crate) fn new(text: Vec<u8>, purpose: Publish, expect: Expect, modified: SystemTime) -> Self {
        Self {
            bytes: Buffer::new(text, modified),
            purpose,
            expect,
            exclusive: false,
            empty: false,
            id: None,
            published: None,
            base: None,
            off_pages: false,
            kin: None,
            follows: None,
            handles: 0,
            opening: false,
            ending: false,
            syncs: false,
            orphan: false,
            replaced: false,
            refused: None,
            overwritten: None,
            untold: Vec::new(),
            predecessor: None,
            ends_privileges: false,
            was_key: false,
            ino: ROOT,
        }
    }

    /// Starts over with nothing, as `O_TRUNC` does.
    pub(crate) fn clear(&mut self, now: SystemTime) {
        self.bytes.clear(now);
        self.base = None;
        self.refused = None;
        self.overwritten = None;
    }

    /// Replaces the bytes by what the store has, as of `modified`; nothing is left to publish.
    pub(crate) fn reset(&mut self, text: &[u8], modified: SystemTime) {
        self.bytes.reset(text, modified);
        (self.base, self.off_pages) = (None, false);
        self.refused = None;
        self.overwritten = None;
    }

    /// The id for the key, if the draft is the first of it.
    pub(crate) fn new_id(&self) -> Option<Arc<str>> {
        self.id.clone().filter(|_| self.published.is_none())
    }

    /// What the store has is this draft, as it was at this moment.
    pub(crate) fn published(&mut self, meta: &Meta, moment: Moment) {
        (self.expect, self.follows) = (Expect::At(meta.revision), None);
        self.published = Some(meta.clone());
        self.purpose = Publish::OnClose;
        self.refused = None;
        self.bytes.saved(moment);
    }

    /// Whether it may take the place of that version.
    pub(crate) fn goes_on_from(&self, version: Revision) -> bool {
        self.expect == Expect::At(version) || self.follows == Some(version)
    }

    /// Whether the kernel's pages of it, once nothing is left to publish, are what is published.
    pub(crate) const fn shows_published(&self) -> bool {
        self.base.is_none() && !self.off_pages
    }

    /// Writes `data` at `offset`, or nothing of it. Tells whether it completes a document that is to be published at once.
    pub(crate) fn write(
        &mut self,
        offset: usize,
        data: &[u8],
        limits: &Limits,
        validate: Validate,
        now: SystemTime,
    ) -> FsResult<bool> {
        let end = offset.checked_add(data.len()).ok_or(FsError::Argument)?;
        if end > self.bytes.len() {
            self.check_size(end, data.last().copied(), limits)?;
        }
        let completes = self.purpose == Publish::OnClose
            && validate != Validate::None
            && self.bytes.check_prefix(offset, data)?;
        self.bytes.write(offset, data, now);
        self.refused = None;
        Ok(completes)
    }

    /// Whether nothing was written since it was opened.
    pub(crate) const fn is_untouched(&self) -> bool {
        self.overwritten.is_none() && (self.bytes.is_empty() || !self.bytes.is_changed())
    }

    /// Nothing of it is left to publish.
    pub(crate) fn drop_blank(&mut self) {
        self.bytes.saved(self.bytes.moment());
        self.refused = None;
    }

    /// Sets the size; new bytes are zero.
    pub(crate) fn truncate(&mut self, size: usize, limits: &Limits, now: SystemTime) -> FsResult<()> {
        if size == self.bytes.len() {
            return Ok(());
        }
        if size == 0 {
            self.clear(now);
            return Ok(());
        }
        if size > self.bytes.len() {
            self.check_size(size, Some(0), limits)?;
        }
        self.bytes.resize(size, now);
        self.refused = None;
        Ok(())
    }

    /// Whether `size` bytes, of which the last is `last`, are within the limits.
    pub(crate) fn check_size(&self, size: usize, last: Option<u8>, limits: &Limits) -> FsResult<()> {
        match self.purpose {
            Publish::OnClose => {
                let counted = size - counted_len_of_tail(last);
                if counted > limits.value {
                    return Err(FsError::TooLarge { size: counted, limit: limits.value });
                }
            }
            Publish::OnRename | Publish::Never if size > scratch::FILE_LIMIT => {
                return Err(FsError::ScratchFull);
            }
            Publish::OnRename | Publish::Never => {}
        }
        Ok(())
    }

    /// What is to be published: the bytes; or what was appended to them, after what others had set.
    pub(crate) fn value(&self) -> FsResult<Cow<'_, [u8]>> {
        let Some(base) = &self.base else { return Ok(self.bytes.text().into()) };
        let appended = self.bytes.appended().ok_or(Error::Changed)?;
        Ok([base, appended].concat().into())
    }

    /// Whether the draft can be published as it is.
    pub(crate) fn check(&self, limits: &Limits, validate: Validate) -> FsResult<()> {
        check_value(&self.value()?, limits, validate)
    }

    /// What fsync(2) publishes, and the moment it is of: the value; where that is none because what is left of a longer text is
    /// yet to be cut off, the document that was written over its beginning.
    pub(crate) fn synced(&self, limits: &Limits, validate: Validate) -> FsResult<(Cow<'_, [u8]>, Moment)> {
        match (self.check(limits, validate), self.bytes.rewritten()) {
            (Err(FsError::Invalid(_)), Some((document, moment))) if validate.check(document).is_ok() => {
                Ok((document.into(), moment))
            }
            (checked, _) => checked.and_then(|()| Ok((self.value()?, self.bytes.moment()))),
        }
    }
}

/// Whether `text` can be published.
pub(crate) fn check_value(text: &[u8], limits: &Limits, validate: Validate) -> FsResult<()> {
    let size = counted_len(text);
    if size > limits.value {
        return Err(FsError::TooLarge { size, limit: limits.value });
    }
    Ok(validate.check(text)?)
}

fn counted_len_of_tail(last: Option<u8>) -> usize {
    last.map_or(0, |last| 1 - counted_len(&[last]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const LIMITS: Limits = Limits::bytes(10_000, 100);

    fn draft() -> Draft {
        Draft::new(Vec::new(), Publish::OnClose, Expect::Anything, NOW)
    }

    #[test]
    fn the_limit_is_the_same_for_every_way_to_grow() {
        let mut a = draft();
        assert_eq!(a.write(0, &[b' '; 10_000], &LIMITS, Validate::Json, NOW), Ok(false));
        assert!(a.write(10_000, b"1", &LIMITS, Validate::None, NOW).is_err());
        assert_eq!(a.write(10_000, b"\n", &LIMITS, Validate::Json, NOW), Ok(false));
        assert!(a.write(10_001, b"\n", &LIMITS, Validate::Json, NOW).is_err());
        assert!(draft().write(0, &[b' '; 10_001], &LIMITS, Validate::Json, NOW).is_err());
        assert!(draft().write(10_000, b"1", &LIMITS, Validate::None, NOW).is_err());
        assert!(draft().truncate(10_001, &LIMITS, NOW).is_err());
        assert_eq!(draft().truncate(10_000, &LIMITS, NOW), Ok(()));
    }

    #[test]
    fn a_refused_write_leaves_the_draft_as_it_was() {
        let mut draft = draft();
        draft.write(0, b"{\"a\":", &LIMITS, Validate::Json, NOW).unwrap();
        assert!(draft.write(5, b"}", &LIMITS, Validate::Json, NOW).is_err());
        draft.write(5, b"1}", &LIMITS, Validate::Json, NOW).unwrap();
        assert_eq!(draft.bytes.text(), b"{\"a\":1}");
        assert_eq!(draft.check(&LIMITS, Validate::Json), Ok(()));
    }

    #[test]
    fn an_append_goes_on_from_the_old_text() {
        let mut draft = Draft::new(b"{\"a\":1}\n".to_vec(), Publish::OnClose, Expect::Anything, NOW);
        assert_eq!(draft.write(8, b" \n", &LIMITS, Validate::Json, NOW), Ok(false));
        assert!(draft.write(10, b"x", &LIMITS, Validate::Json, NOW).is_err());
    }

    #[test]
    fn a_truncation_is_judged_by_what_it_leaves() {
        let mut draft = Draft::new(b"[1] [2".to_vec(), Publish::OnClose, Expect::Anything, NOW);
        draft.truncate(5, &LIMITS, NOW).unwrap();
        assert!(draft.check(&LIMITS, Validate::Json).is_err());
        assert_eq!(draft.check(&LIMITS, Validate::None), Ok(()));
        draft.truncate(3, &LIMITS, NOW).unwrap();
        assert_eq!(draft.check(&LIMITS, Validate::Json), Ok(()));
    }
}
