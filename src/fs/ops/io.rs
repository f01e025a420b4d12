//! read(2), write(2), fallocate(2), and ftruncate(2) of an open file.

use crate::fs::core::Fs;
use crate::fs::rules::document::Validate;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::Publish;
use crate::fs::state::nodes::Content;
use crate::fs::types::Fh;

impl Fs {
    /// Reads up to `size` bytes at `offset` of what the handle has open.
    pub fn read<T>(&self, fh: Fh, offset: u64, size: usize, take: impl FnOnce(&[u8]) -> T) -> FsResult<T> {
        let state = self.state.lock();
        let handle = state.handle(fh)?;
        let text = match &handle.content {
            Content::Snapshot(text, _) => &text[..],
            Content::Draft(draft) => state.draft(*draft).ok_or(FsError::BadHandle)?.bytes.text(),
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let end = start.saturating_add(size).min(text.len());
        Ok(take(&text[start..end]))
    }

    /// Writes all of `data` or nothing. After a failure the handle stays failed: what it holds can no longer be what
    /// the program meant.
    pub fn write(&self, fh: Fh, offset: u64, data: &[u8]) -> FsResult<usize> {
        let limits = self.cache.limits();
        let mut state = self.state.lock();
        let handle = state.handle(fh)?;
        if let Some(error) = &handle.failed {
            return Err(error.clone());
        }
        let append = handle.append;
        let (id, draft) = state.draft_of(fh)?;
        let offset = if append { draft.bytes.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
        // What has lost its name is never published: any bytes will do.
        let validate = if draft.orphan { Validate::None } else { self.settings.validate };
        let goes_to_store = draft.purpose == Publish::OnClose && !draft.orphan;
        let new = draft.published.is_none();
        let outage = if goes_to_store { self.cache.outage() } else { None };
        let full = outage.filter(|error| error.keeps_out(new)).map_or(Ok(()), Err);
        let room =
            full.map_err(FsError::from).and_then(|()| state.room(id, offset.saturating_add(data.len())));
        let now = state.now();
        match room.and_then(|()| state.draft_of(fh)?.1.write(offset, data, &limits, validate, now)) {
            Ok(()) => Ok(data.len()),
            Err(error) => {
                if let Some(handle) = state.handle_mut(fh) {
                    handle.failed = Some(error.clone());
                    if matches!(error, FsError::Invalid(_)) {
                        handle.refused = data[..data.len().min(limits.value)].to_vec();
                    }
                }
                Err(error)
            }
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
        if keep_size {
            draft.check_size(end, Some(0), &limits)?;
            state.room(id, end)
        } else {
            state.resize(id, end, &limits)
        }
    }
}
