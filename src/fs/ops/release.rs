//! The end of a handle: the last chance to publish, and where what cannot be published is kept.

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::refusals::Kept;
use crate::fs::rules::document::Validate;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::nodes::{Body, Content};
use crate::fs::state::release::Released;
use crate::fs::state::versions::Origin;
use crate::fs::types::{DraftId, Fh, Ino};
use crate::store::{Deadline, Key, RETRY_AFTER};

/// The last descriptor of a writer is closed, and what is left of his draft is being published.
struct Ending {
    fs: Arc<Fs>,
    draft: DraftId,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(draft) = self.fs.state.lock().draft_mut(self.draft) {
            draft.ending = false;
        }
        self.fs.unlocked.notify_waiters();
    }
}

impl Fs {
    /// The kernel is done with a handle. Errors reach nobody: what cannot be published is kept as rejected. What few handles end
    /// with is boxed: the future is moved for all of them.
    pub async fn release(self: Arc<Self>, fh: Fh) {
        if let Some((ending, ino, opener)) = self.begin_end(fh) {
            let published = Box::pin(self.publish_in_turn(ino, ending.draft, opener)).await;
            // Who waits for it may hold the lock of the directory.
            drop(ending);
            self.invalidate_and_wait(published.unwrap_or_default()).await;
        }
        self.put_back_at_end(fh).await;
        let Released { mut invalidations, unpublished, emptied } = self.let_go(fh);
        self.unlocked.notify_waiters();
        if let Some((name, text, why)) = unpublished {
            let fs = self.clone();
            _ = tokio::task::spawn_blocking(move || {
                fs.keep_rejected_text(&name, &text, &why.to_string(), Some(why))
            })
            .await;
        }
        if let Some((name, key)) = emptied
            && let Ok(answer) = Box::pin(self.cache.get_key_value(&key)).await
            && let Some(entry) = answer.value
        {
            // Somebody else set the key while the file was local.
            invalidations.extend(self.state.lock().install_version(&name, &entry.meta, Origin::Remote));
        }
        self.invalidate_and_wait(invalidations).await;
    }

    /// The last descriptor of a writer is closed: what is left to publish of its draft, if nobody was told yet that it cannot be.
    /// A mapping may have written after the close of the last descriptor, and where any bytes are a value not every close
    /// publishes.
    fn begin_end(self: &Arc<Self>, fh: Fh) -> Option<(Ending, Ino, u32)> {
        let mut state = self.state.lock();
        let handle = state.handle(fh).ok().filter(|handle| handle.writable && handle.failed.is_none())?;
        let Content::Draft(id) = handle.content else { return None };
        let (ino, opener) = (handle.ino, handle.opener);
        let is_new = matches!(state.inode(ino).ok()?.body, Body::Local(_));
        let draft = state.draft(id)?;
        let is_new_value = is_new && draft.published.is_none() && self.settings.validate == Validate::None;
        let due = draft.handles == 1
            && draft.purpose == Publish::OnClose
            && (draft.bytes.is_changed() || is_new_value)
            && draft.refused.is_none()
            && !draft.orphan;
        if let Err(error) = due.then(|| self.check(draft))? {
            let error = self.part_is_set(&mut state, id, error);
            state.draft_mut(id)?.refused = Some(error);
            return None;
        }
        state.draft_mut(id)?.ending = true;
        Some((Ending { fs: self.clone(), draft: id }, ino, opener))
    }

    /// Waits until what is left of a file by the end of a writer is published: no close(2) has waited for it, and who looks the
    /// file up may know that it is closed.
    pub(crate) async fn await_end(&self, name: &str) -> FsResult<()> {
        loop {
            let ended = self.unlocked.notified();
            if !self.state.lock().is_ending(name) {
                return Ok(());
            }
            Deadline::wait(ended).await?;
        }
    }

    /// As [`Fs::await_end`], by the inode.
    pub(crate) async fn await_end_at(&self, ino: Ino) -> FsResult<()> {
        let name = {
            let state = self.state.lock();
            let name = &state.inode(ino)?.name;
            state.is_ending(name).then(|| name.clone())
        };
        match name {
            Some(name) => Box::pin(self.await_end(&name)).await,
            None => Ok(()),
        }
    }

    /// Whether the draft can be published as it is.
    pub(crate) fn check(&self, draft: &Draft) -> FsResult<()> {
        draft.check(&self.cache.limits(), self.settings.validate)
    }

    fn let_go(&self, fh: Fh) -> Released {
        let check = |draft: &_| self.check(draft);
        let newest = |key: &Key| Some(self.cache.peek(key)?.value?.meta);
        self.state.lock().release(fh, check, newest)
    }

    /// Keeps content that could not be published (rule 9).
    pub(crate) fn keep_rejected_text(
        &self,
        name: &str,
        text: &[u8],
        why: &str,
        error: Option<FsError>,
    ) -> bool {
        if text.is_empty() {
            self.note_text(name, error, why, None);
            return false;
        }
        let kept = match self.rejected.keep_rejected(name, text, why) {
            Ok(path) => {
                let shown = path.display();
                tracing::warn!("{name:?} was not published ({why}); the text is kept in {shown}");
                Kept::In(path)
            }
            Err(lost) => {
                tracing::error!("{name:?} was not published ({why}), and its text could not be kept: {lost}");
                Kept::Lost(lost)
            }
        };
        self.note_text(name, error, why, Some(kept));
        true
    }

    /// Publishes what can be published, while files may still be written to.
    pub async fn publish_all(self: Arc<Self>) {
        self.publish_pending().await;
    }

    /// Publishes what can be published. Returns what is left.
    async fn publish_pending(self: &Arc<Self>) -> Vec<DraftId> {
        self.carry_out_all().await;
        let (complete, mut rest) = {
            let state = self.state.lock();
            let is_raw = self.settings.validate == Validate::None;
            let open = state.drafts().filter(|(_, draft)| !draft.orphan);
            let pending = open.filter(|(_, draft)| match draft.purpose {
                // Nobody has closed one that nothing was written to.
                Publish::OnClose if is_raw && draft.bytes.is_empty() => draft.ending,
                Publish::OnClose => draft.bytes.is_changed(),
                Publish::OnRename => !draft.bytes.is_empty(),
                Publish::Never => draft.was_key,
            });
            let fit = |id: &DraftId| {
                let Some(draft) = state.draft(*id) else { return false };
                draft.purpose != Publish::Never
                    && draft.refused.as_ref().is_none_or(FsError::is_outage)
                    && self.check(draft).is_ok()
            };
            pending.map(|(id, _)| id).partition::<Vec<_>, _>(|id| fit(id))
        };
        if !complete.is_empty() {
            self.wait_until_tried_again().await;
        }
        for id in complete {
            let ino = self.state.lock().draft(id).map(|draft| draft.ino);
            if let Some(ino) = ino
                && self.deadline().scope(self.publish(ino, id, 0)).await.is_err()
            {
                rest.push(id);
            }
        }
        rest
    }

    /// A store known to be down or busy refuses at once: a caller without a later chance waits until it lets a call through.
    pub(crate) async fn wait_until_tried_again(&self) {
        if self.cache.outage().is_some_and(|error| !error.is_full()) {
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Before the daemon ends, when nobody writes any more: publishes what can be published, and keeps the rest as rejected.
    /// Returns how many files were kept as rejected.
    pub async fn finish(self: Arc<Self>) -> usize {
        self.rejected.write_deleted(usize::MAX);
        self.put_back_due().await;
        let rest = self.publish_pending().await;
        for id in &rest {
            let why = self.state.lock().draft(*id).and_then(|draft| self.check(draft).err());
            let put_back = async {
                if let Some(why) = why {
                    self.put_back_or_keep(*id, &why).await;
                }
            };
            self.deadline().scope(put_back).await;
        }
        let rejected = rest.into_iter().filter(|id| self.keep_rejected_draft(*id)).count();
        // What these had replaced.
        self.rejected.write_deleted(usize::MAX);
        rejected
    }

    /// Keeps a copy of what was the value of a key, and cannot be one under its backup name.
    pub(crate) fn keep_copy(&self, id: DraftId, why: &str) {
        let copy = {
            let state = self.state.lock();
            let draft = state.draft(id);
            draft.and_then(|draft| {
                Some((state.inode(draft.ino).ok()?.name.clone(), draft.bytes.text().to_vec()))
            })
        };
        if let Some((name, text)) = copy
            && self.keep_rejected_text(&name, &text, why, None)
            && let Some(draft) = self.state.lock().draft_mut(id)
        {
            draft.was_key = false;
        }
    }

    fn keep_rejected_draft(&self, id: DraftId) -> bool {
        let (name, text, why) = {
            let mut state = self.state.lock();
            let unfit = state.draft(id).and_then(|draft| self.check(draft).err());
            let unfit = unfit.map(|error| self.part_is_set(&mut state, id, error));
            let Some(draft) = state.draft(id) else { return false };
            let Ok(inode) = state.inode(draft.ino) else { return false };
            // The key of a backup that still is in the store needs no copy.
            if draft.purpose == Publish::Never
                && state
                    .paths()
                    .deferred_renames()
                    .map(|(_, deferred)| deferred)
                    .any(|deferred| deferred.backup == inode.name)
            {
                return false;
            }
            let why = match draft.refused.clone().or(unfit) {
                Some(why) if draft.purpose != Publish::Never => why.to_string(),
                _ => "it is a scratch file, which ends with the mount, and holds what was the value of a key"
                    .into(),
            };
            (inode.name.clone(), draft.bytes.text().to_vec(), why)
        };
        if let Some(draft) = self.state.lock().draft_mut(id) {
            draft.orphan = true;
        }
        self.keep_rejected_text(&name, &text, &why, None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::fs::types::{Access, Caller, ROOT};

    use super::*;

    #[tokio::test]
    async fn what_is_written_to_a_file_that_goes_with_its_last_close_does_not_go_with_it() {
        let (fs, _elsewhere) = Fs::in_memory(Duration::ZERO);
        for thread in [0, 1] {
            let caller = Caller { thread, uid: 0, gid: 0 };
            let access = Access { write: true, append: false, truncate: true };
            let (_, refused) = fs.create(caller, (ROOT, "k"), 0o644, access, false).unwrap();
            let refusal = fs.write(refused.fh, 0, &[b'1'; 10_001]);
            assert!(matches!(refusal, Err(FsError::TooLarge { .. })));
            assert!(fs.clone().flush(caller, refused.fh, 0).await.is_err());
            // The kernel tells of the end of the handle while the next one opens the file.
            let found = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap();
            fs.clone().release(refused.fh).await;
            let opened = fs.clone().open(caller, found.ino, access).await;
            if thread == 0 {
                // He found the empty file that others see, and has a draft of his own.
                let fh = opened.unwrap().fh;
                fs.write(fh, 0, b"1").unwrap();
                fs.clone().flush(caller, fh, 0).await.unwrap();
                fs.clone().release(fh).await;
                fs.clone().unlink(caller, ROOT, "k".into()).await.unwrap();
            } else {
                assert_eq!(opened, Err(FsError::Superseded));
            }
            assert_eq!(fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr, None);
        }
    }
}
