//! read(2), write(2), fallocate(2), and ftruncate(2) of an open file.

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::rules::document::Validate;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::Publish;
use crate::fs::state::nodes::Content;
use crate::fs::state::tables::State;
use crate::fs::types::{Caller, Document, DraftId, Fh, WriteMode, Written};

impl Fs {
    /// As [`Fs::read`], for who may be [the one](State::reads) by whom it shows that the kernel has taken in the size.
    pub fn read_as<T>(
        &self,
        caller: Caller,
        fh: Fh,
        offset: u64,
        size: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> FsResult<T> {
        let mut state = self.state.lock();
        if state.reads(caller.thread, fh) {
            self.unlocked.notify_waiters();
        }
        read_from(&state, fh, (offset, size), take)
    }

    /// Reads up to `size` bytes at `offset` of what the handle has open.
    pub fn read<T>(&self, fh: Fh, offset: u64, size: usize, take: impl FnOnce(&[u8]) -> T) -> FsResult<T> {
        read_from(&self.state.lock(), fh, (offset, size), take)
    }

    /// [`Fs::write_as`] by plain write(2).
    pub fn write(&self, fh: Fh, offset: u64, data: &[u8]) -> FsResult<Written> {
        self.write_as(fh, offset, data, WriteMode::default())
    }

    /// Writes all of `data` or nothing. After a failure the handle stays failed: what it holds can no longer be what
    /// the program meant. Where it completes a document, that is to be [published](Fs::publish_written) before the
    /// program is answered.
    pub fn write_as(&self, fh: Fh, offset: u64, data: &[u8], mode: WriteMode) -> FsResult<Written> {
        let mut state = self.state.lock();
        let failed = state.handle(fh)?.failed.clone();
        let (id, draft) = state.draft_of(fh)?;
        let size = draft.bytes.len();
        let told = usize::try_from(offset).unwrap_or(usize::MAX);
        let offset = if mode.appends() { size } else { told };
        if let Some(error) = failed {
            // Who was told that a set failed may write the document again.
            let again = draft.refused.as_ref() == Some(&error) && draft.bytes.would_complete(offset, data);
            if !again {
                return Err(error);
            }
        }
        draft.off_pages |= offset != told;
        if let Some(handle) = state.handle_mut(fh) {
            handle.written = true;
        }
        match self.write_to_draft(&mut state, id, (offset, data), mode) {
            Ok(Some(generation)) => {
                Ok(Written::Document(Document { fh, length: data.len(), size, generation }))
            }
            Ok(None) => Ok(Written::Bytes(data.len())),
            Err(error) => {
                let error = self.part_is_set(&mut state, id, error);
                if let Some(handle) = state.handle_mut(fh) {
                    handle.failed = Some(error.clone());
                    if matches!(error.reason(), FsError::Invalid(_)) {
                        handle.refused = data[..data.len().min(self.cache.limits().value)].to_vec();
                    }
                }
                Err(error)
            }
        }
    }

    /// Writes to a draft. Returns its generation if that completes a document.
    fn write_to_draft(
        &self,
        state: &mut State,
        id: DraftId,
        (offset, data): (usize, &[u8]),
        mode: WriteMode,
    ) -> FsResult<Option<u64>> {
        let (limits, now) = (self.cache.limits(), state.now());
        state.room(id, offset.saturating_add(data.len()))?;
        let draft = state.draft_mut(id).ok_or(FsError::BadHandle)?;
        // What has lost its name is never published: any bytes will do.
        let validate = if draft.orphan { Validate::None } else { self.settings.validate };
        if draft.purpose == Publish::OnClose
            && !draft.orphan
            && let Some(error) =
                self.cache.outage().filter(|error| error.keeps_out(draft.published.is_none()))
        {
            return Err(error.into());
        }
        draft.syncs = mode.syncs;
        if mode.mapped {
            draft.bytes.leave_order();
        }
        if !mode.appends() {
            draft.bytes.leave_append();
        }
        let completes = draft.write(offset, data, &limits, validate, now)?;
        Ok(completes.then(|| draft.bytes.generation()))
    }

    /// Publishes the document that a write completed. If that fails, the bytes of that write are taken back. The kernel
    /// holds the lock of the inode.
    pub async fn publish_written(self: Arc<Self>, document: Document) -> FsResult<usize> {
        let Document { fh, length, size, generation } = document;
        let published = self.publish_at_once(fh).await;
        let mut state = self.state.lock();
        let Err(error) = published else {
            if let Some(handle) = state.handle_mut(fh) {
                (handle.failed, handle.refused) = (None, Vec::new());
            }
            return Ok(length);
        };
        let (_, draft) = state.draft_of(fh)?;
        let taken = draft.bytes.take_back(size, generation);
        if let Some(handle) = state.handle_mut(fh) {
            handle.failed = Some(error.clone());
            handle.refused = taken.unwrap_or_default();
        }
        Err(error)
    }

    /// [`Fs::write_as`] and what it leaves to do.
    pub async fn write_and_publish(
        self: Arc<Self>,
        fh: Fh,
        offset: u64,
        data: &[u8],
        mode: WriteMode,
    ) -> FsResult<usize> {
        match self.write_as(fh, offset, data, mode)? {
            Written::Bytes(length) => Ok(length),
            Written::Document(document) => self.publish_written(document).await,
        }
    }

    /// As [`Fs::allocate`], for all but the relay.
    pub(crate) fn reserve(&self, fh: Fh, offset: u64, length: u64, keep_size: bool) -> FsResult<()> {
        let limits = self.cache.limits();
        let end = usize::try_from(offset.saturating_add(length)).unwrap_or(usize::MAX);
        let mut state = self.state.lock();
        let (id, draft) = state.draft_of(fh)?;
        if end <= draft.bytes.len() {
            return Ok(());
        }
        let reserved = if keep_size {
            draft.check_size(end, Some(0), &limits).and_then(|()| state.room(id, end))
        } else {
            state.resize(id, end, &limits)
        };
        reserved.map_err(|error| self.part_is_set(&mut state, id, error))
    }
}

/// Reads up to `size` bytes at `offset` of what the handle has open.
fn read_from<T>(
    state: &State,
    fh: Fh,
    (offset, size): (u64, usize),
    take: impl FnOnce(&[u8]) -> T,
) -> FsResult<T> {
    let handle = state.handle(fh)?;
    let text = match &handle.content {
        Content::Snapshot(text, _) => &text[..],
        Content::Draft(draft) => state.draft(*draft).ok_or(FsError::BadHandle)?.bytes.text(),
    };
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let end = start.saturating_add(size).min(text.len());
    Ok(take(&text[start..end]))
}
