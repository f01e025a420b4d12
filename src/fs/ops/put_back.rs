//! mv(1) from another filesystem, install(1) and others remove a file before they make it anew. Where what they write then is
//! refused, the value that was there comes back, if nobody has set another one.

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::Content;
use crate::fs::state::predecessors::Predecessor;
use crate::fs::state::versions::Origin;
use crate::fs::types::{Caller, DraftId, Fh};
use crate::store;
use crate::store::{Error, Expect, Given, Meta};

impl Fs {
    /// The close of a descriptor fails for this reason. What to tell, once what was removed for its file is back.
    pub(crate) async fn put_back_at_close(self: &Arc<Self>, fh: Fh, why: FsError) -> FsError {
        let found = {
            let mut state = self.state.lock();
            let Ok((id, _)) = state.draft_of(fh) else { return why };
            state.successor_refused(id);
            state.predecessor_of(id).map(|removed| (id, removed))
        };
        let Some((id, removed)) = found else { return why };
        match self.put_back(id, &removed, &why).await {
            Ok(true) => FsError::PutBack(Box::new(why)),
            Ok(false) => why,
            Err(_) => {
                // It is tried again at the end of the handle.
                if let Some(draft) = self.state.lock().draft_mut(id) {
                    draft.predecessor = Some(removed);
                }
                why
            }
        }
    }

    /// The last handle of a draft ends. Where its text was refused, what was removed for its file is back after that, or kept as
    /// rejected.
    pub(crate) async fn put_back_at_end(self: &Arc<Self>, fh: Fh) {
        let refused = {
            let state = self.state.lock();
            let check = |draft: &_| self.check(draft);
            let handle = state.handle(fh).ok().filter(|handle| handle.writable);
            handle.and_then(|handle| match handle.content {
                Content::Draft(id) if state.draft(id)?.handles == 1 => {
                    let (_, text, why) = state.unpublished(handle, id, check)?;
                    // Who took all of it back has made an empty file.
                    (handle.failed.is_some() || !text.is_empty()).then_some((id, why))
                }
                Content::Draft(_) | Content::Snapshot(..) => None,
            })
        };
        if let Some((id, why)) = refused {
            Box::pin(self.put_back_or_keep(id, &why)).await;
        }
    }

    /// What was removed for the file of a draft that was refused is back after this, or kept as rejected.
    pub(crate) async fn put_back_or_keep(self: &Arc<Self>, id: DraftId, why: &FsError) {
        let found = {
            let mut state = self.state.lock();
            state.successor_refused(id);
            let removed = state.predecessor_of(id);
            removed.and_then(|removed| {
                let ino = state.draft(id)?.ino;
                Some((removed, state.inode(ino).ok()?.name.clone()))
            })
        };
        let Some((removed, name)) = found else { return };
        if let Err(error) = self.put_back(id, &removed, why).await {
            self.keep_removed(name, removed, error).await;
        }
    }

    /// Sets what was removed for the file of a draft again, which was refused for this reason. False if something else has become
    /// of the name.
    async fn put_back(self: &Arc<Self>, id: DraftId, removed: &Predecessor, why: &FsError) -> FsResult<bool> {
        let Some(ino) = self.state.lock().draft(id).map(|draft| draft.ino) else { return Ok(false) };
        let staying = self.stay().await?;
        let (operation, name) = self.begin_at(ino).await?;
        let new_id = {
            let state = self.state.lock();
            let is_its_own = state.inode(ino).is_ok_and(|inode| inode.key == removed.key);
            let draft = state.draft(id).filter(|draft| !draft.orphan && draft.published.is_none());
            let Some(draft) = draft.filter(|_| is_its_own) else { return Ok(false) };
            draft.new_id()
        };
        let Some(meta) = store::with_new_id(new_id, self.set_again(removed)).await? else { return Ok(false) };
        let error = FsError::PutBack(Box::new(why.clone()));
        self.refusals.lock().reword(&name, &why.to_string(), &error.to_string());
        let invalidations = self.state.lock().put_back((ino, id), &name, &meta, removed, &error);
        drop(operation);
        drop(staying);
        self.invalidate_and_wait(invalidations).await;
        Ok(true)
    }

    /// A file could not be renamed to `name`, for this reason. What to tell, once what the same process had renamed or removed
    /// there before is back. Directories must [stay](Fs::stay), and the kernel may hold their locks.
    pub(crate) async fn put_back_after_rename(
        self: &Arc<Self>,
        caller: Caller,
        name: &str,
        why: FsError,
    ) -> FsError {
        let removed = self.state.lock().take_predecessor(name, caller.thread);
        let Some(removed) = removed else {
            self.state.lock().successor_refused_at(name, caller.thread);
            return why;
        };
        match self.set_unmade(name, &removed, &why).await {
            Ok(None) => why,
            Ok(Some(invalidations)) => {
                self.invalidate_later(invalidations);
                FsError::PutBack(Box::new(why))
            }
            Err(error) => {
                self.keep_removed(name.to_owned(), removed, error).await;
                why
            }
        }
    }

    /// Sets a value again that was removed, unless there is another one.
    async fn set_again(&self, removed: &Predecessor) -> FsResult<Option<Meta>> {
        let attributes = removed.attributes.unwrap_or_default().to_store(None);
        let given = Given { attributes, replaces: true };
        let set = self.cache.set_key_value(&removed.key, removed.text.clone(), Expect::Absent);
        match store::with_attributes(Some(given), set).await {
            Ok(meta) => Ok(Some(meta)),
            Err(Error::Exists | Error::Changed) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What was removed for files that could not even be made is back after this, or kept as rejected.
    pub(crate) async fn put_back_due(self: &Arc<Self>) {
        let due = self.state.lock().take_due_predecessors();
        for (name, removed, why) in due {
            let put_back = self.put_back_unmade(&name, &removed, &why);
            if let Err(error) = self.deadline().scope(put_back).await {
                self.keep_removed(name, removed, error).await;
            }
        }
    }

    async fn put_back_unmade(
        self: &Arc<Self>,
        name: &str,
        removed: &Predecessor,
        why: &FsError,
    ) -> FsResult<()> {
        let staying = self.stay().await?;
        let invalidations = self.set_unmade(name, removed, why).await?;
        drop(staying);
        self.invalidate_and_wait(invalidations.unwrap_or_default()).await;
        Ok(())
    }

    /// Sets again what was removed for a file that could not be made, for this reason; `None` if something else has become of the
    /// name. Directories must [stay](Fs::stay).
    async fn set_unmade(
        self: &Arc<Self>,
        name: &str,
        removed: &Predecessor,
        why: &FsError,
    ) -> FsResult<Option<Vec<PathInvalidation>>> {
        let _operation = self.begin([name.to_owned()]).await?;
        if self.state.lock().named(name).is_some() {
            return Ok(None);
        }
        let before = self.cache.peek_keys().map(|answer| answer.value);
        let Some(meta) = self.set_again(removed).await? else { return Ok(None) };
        let error = FsError::PutBack(Box::new(why.clone()));
        self.refusals.lock().reword(name, &why.to_string(), &error.to_string());
        let mut state = self.state.lock();
        state.paths_mut().set_attributes(name, removed.attributes);
        let mut invalidations = state.install_version(name, &meta, Origin::Remote);
        invalidations.extend(self.name_added(&mut state, name, before.as_ref()));
        invalidations.extend(state.appeared(name));
        let lost = state.take_lost(name);
        drop(state);
        self.expire_attributes(lost);
        Ok(Some(invalidations))
    }

    async fn keep_removed(self: &Arc<Self>, name: String, removed: Predecessor, error: FsError) {
        let reason = format!("what was removed for a text that was refused could not be set again: {error}");
        let fs = self.clone();
        let kept = move || fs.keep_rejected_text(&name, &removed.text, &reason, None);
        _ = tokio::task::spawn_blocking(kept).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::fs::types::{Access, ROOT};
    use crate::store::{Key, Text};

    use super::*;

    #[tokio::test]
    async fn a_writer_whose_file_has_its_old_value_again_fails_for_his_own_reason() {
        let fs = Fs::in_memory(Duration::ZERO).0;
        let caller = Caller { thread: std::process::id(), uid: 0, gid: 0 };
        let text = Text::from(&b"1"[..]);
        fs.cache.set_key_value(&Key::from("k"), text, Expect::Anything).await.unwrap();
        fs.clone().unlink(caller, ROOT, "k".into()).await.unwrap();
        let write = Access { write: true, append: false, truncate: true };
        let (found, first) = fs.create(caller, (ROOT, "k"), 0o644, write, false).unwrap();
        let open = fs.clone().open(caller, found.attr.unwrap().ino, Access { truncate: false, ..write });
        let second = open.await.unwrap();
        assert!(fs.write(first.fh, 10_001, b"1").is_err());
        fs.write(second.fh, 1, b"x").unwrap();
        assert!(matches!(fs.clone().flush(caller, second.fh, 0).await, Err(FsError::PutBack(_))));
        let failed = fs.write(first.fh, 0, b"1").map(drop).unwrap_err();
        assert!(matches!(failed.reason(), FsError::TooLarge { .. }), "{failed:?}");
    }
}
