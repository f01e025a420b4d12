//! Descriptors of one process that share a draft: who is sent to it, by an open or by truncate(2).

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::rules::error::FsResult;
use crate::fs::state::nodes::{Body, Inode};
use crate::fs::state::tables::State;
use crate::fs::types::{Caller, DraftId, Ino};
use crate::store::Entry;

impl Fs {
    /// The draft of the key that the caller's process [shares](State::shared_draft), and its inode.
    fn shared_by(&self, state: &State, caller: Caller, ino: Ino) -> Option<(DraftId, Ino)> {
        let inode =
            state.inode(ino).ok().filter(|inode| matches!(inode.body, Body::Key(_) | Body::Draft(_)))?;
        let newest = self.cache.peek(&inode.key)?.value?;
        state.shared_draft(&inode.name, caller.thread, &newest)
    }

    /// Whether the caller was sent to the draft of the inode, and nobody has opened that yet, or it still may be shared.
    pub(super) fn may_join(&self, state: &State, caller: Caller, inode: &Inode, ino: Ino) -> bool {
        let is_shared = || self.shared_by(state, caller, ino).is_some_and(|(_, shared)| shared == ino);
        state.is_sent_to(caller.thread, ino) && (inode.handles == 0 || is_shared())
    }

    /// As [`Fs::shared_by`]; the store is asked if need be.
    pub(super) async fn shared_for_truncate(
        &self,
        caller: Caller,
        ino: Ino,
    ) -> FsResult<Option<(DraftId, Ino)>> {
        let key = {
            let state = self.state.lock();
            let inode = state.inode(ino)?;
            state.is_written_at(&inode.name, caller.thread).then(|| inode.key.clone())
        };
        if let Some(key) = key {
            self.cache.get_key_value(&key).await?;
        }
        Ok(self.shared_by(&self.state.lock(), caller, ino))
    }

    /// truncate(2) by name of what the process of the caller writes. A value that it leaves is published at once.
    pub(super) async fn truncate_shared(
        self: &Arc<Self>,
        caller: Caller,
        ino: Ino,
        (id, shared): (DraftId, Ino),
        size: usize,
    ) -> FsResult<()> {
        {
            let mut state = self.state.lock();
            if shared != ino {
                return Err(state.redirect(caller.thread, ino, Some(shared)));
            }
            state.resize(id, size, &self.cache.limits())?;
            if state.draft(id).is_none_or(|draft| !draft.bytes.is_changed() || self.check(draft).is_err()) {
                return Ok(());
            }
        }
        self.publish_locked(ino, id, caller.thread).await
    }
}

/// Sends a writer to the draft that his process has open already, if it shares that.
pub(super) fn send_to_shared(state: &mut State, caller: Caller, ino: Ino, entry: &Entry) -> FsResult<()> {
    let Ok(inode) = state.inode(ino) else { return Ok(()) };
    let shared = state.shared_draft(&inode.name, caller.thread, entry);
    shared.map_or(Ok(()), |(_, shared)| Err(state.redirect(caller.thread, ino, Some(shared))))
}
