//! The space that scratch files may take.

use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::scratch;
use crate::fs::state::drafts::Publish;
use crate::fs::state::tables::State;
use crate::fs::types::DraftId;
use crate::store::Limits;

impl State {
    /// Sets the size of a draft, if there is room for what it grows by.
    pub(crate) fn resize(&mut self, id: DraftId, size: usize, limits: &Limits) -> FsResult<()> {
        self.room(id, size)?;
        let now = self.now();
        self.drafts.get_mut(&id).ok_or(FsError::NotFound)?.truncate(size, limits, now)
    }

    /// Whether a draft may have `size` bytes beside all other scratch files; one that has lost its name is one, too.
    pub(crate) fn room(&self, id: DraftId, size: usize) -> FsResult<()> {
        let draft = self.drafts.get(&id).ok_or(FsError::NotFound)?;
        let more = size.saturating_sub(draft.bytes.len());
        if draft.purpose != Publish::OnClose && more > 0 && self.scratch_full(more) {
            return Err(FsError::ScratchFull);
        }
        Ok(())
    }

    /// Bytes in scratch files, against [`scratch::TOTAL_LIMIT`].
    pub(crate) fn scratch_full(&self, more: usize) -> bool {
        let scratch = self.drafts.values().filter(|draft| draft.purpose != Publish::OnClose);
        scratch.map(|draft| draft.bytes.len()).sum::<usize>().saturating_add(more) > scratch::TOTAL_LIMIT
    }
}
