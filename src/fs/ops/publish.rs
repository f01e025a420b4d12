//! When and how a draft becomes the value of its key.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::cache::Keys;
use crate::fs::core::Fs;
use crate::fs::ops::backup::Ended;
use crate::fs::rules::document::{Fault, Validate};
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::backups::DeferredRename;
use crate::fs::state::buffer::Moment;
use crate::fs::state::drafts::{Overwritten, Publish};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::Content;
use crate::fs::state::tables::State;
use crate::fs::state::versions::Origin;
use crate::fs::types::{DraftId, Fh, Ino};
use crate::store;
use crate::store::{Expect, Given, Key, Meta, Revision, Text};

/// What a flush or fsync of a draft comes to before the store is asked.
pub(super) enum Verdict {
    /// There is nothing to publish.
    Nothing,
    /// The draft is complete.
    Publish,
    /// The draft cannot be published as it is.
    Unfit(FsError),
}

/// What is to be done of a draft before it is published.
enum Next {
    /// A deferred rename of its name by another process is to be carried out first.
    CarryOut((String, DeferredRename)),
    Set(Unpublished),
    Nothing,
}

/// A draft as it is to be published.
pub(super) struct Unpublished {
    pub(super) key: Key,
    /// If the key is new.
    id: Option<Arc<str>>,
    pub(super) text: Text,
    given: Option<Given>,
    pub(super) expect: Expect,
    pub(super) moment: Moment,
    /// What was appended goes to another value than the draft begins with.
    pub(super) is_merged: bool,
    /// Others have deleted the key while it was written.
    is_new: bool,
    /// The keys that there were before.
    before: Option<Keys>,
    /// The value that there was.
    pub(super) replaced: Option<Text>,
}

impl Unpublished {
    /// The version that it takes the place of, if not of any.
    const fn before(&self) -> Option<Revision> {
        match self.expect {
            Expect::At(revision) => Some(revision),
            Expect::Anything | Expect::Absent => None,
        }
    }
}

/// A handle that writes.
pub(super) struct Writer {
    pub(super) ino: Ino,
    pub(super) draft: DraftId,
    pub(super) opener: u32,
}

impl Fs {
    /// Publishes what a handle writes, if that is complete.
    pub(crate) async fn publish_complete(self: &Arc<Self>, fh: Fh) -> FsResult<()> {
        let Ok(Some((Writer { ino, draft, opener }, Verdict::Publish))) = self.assess(fh, false) else {
            return Ok(());
        };
        self.publish(ino, draft, opener).await
    }

    /// fsync(2): publishes a complete draft, and a soft scratch file too; says so if it cannot. Through a reader's
    /// descriptor (`sync FILE`) it says whether the last text written to the file was published. A key that was renamed to a
    /// backup name is renamed in the store.
    pub async fn fsync(self: Arc<Self>, fh: Fh) -> FsResult<()> {
        let ino = self.state.lock().handle(fh)?.ino;
        if let Some(Ended::GivenBack(why)) = self.carry_out_at(ino).await? {
            return Err(why);
        }
        let Some((Writer { ino, draft, opener }, verdict)) = self.assess(fh, true)? else {
            return self.last_outcome(fh);
        };
        match verdict {
            Verdict::Publish => self.publish_locked(ino, draft, opener).await,
            Verdict::Unfit(error) => {
                let mut state = self.state.lock();
                // It is the kernel that syncs after each write.
                let by_kernel = state.draft(draft).is_some_and(|draft| draft.syncs);
                if by_kernel { Ok(()) } else { Err(self.part_is_set(&mut state, draft, error)) }
            }
            Verdict::Nothing => Ok(()),
        }
    }

    /// What a flush, or an fsync, through a writing handle comes to; `None` for a reader.
    pub(super) fn assess(&self, fh: Fh, fsync: bool) -> FsResult<Option<(Writer, Verdict)>> {
        let state = self.state.lock();
        let handle = state.handle(fh)?;
        if let Some(error) = &handle.failed {
            return Err(error.clone());
        }
        let Content::Draft(draft) = handle.content else { return Ok(None) };
        let writer = Writer { ino: handle.ino, draft, opener: handle.opener };
        Ok(handle.writable.then(|| (writer, self.judge(&state, draft, fsync))))
    }

    fn last_outcome(&self, fh: Fh) -> FsResult<()> {
        let state = self.state.lock();
        let inode = state.handle(fh).ok().and_then(|handle| state.inode(handle.ino).ok());
        let failed = inode.and_then(|inode| state.paths().failure(&inode.name));
        failed.map_or(Ok(()), |error| Err(error.clone()))
    }

    fn judge(&self, state: &State, id: DraftId, fsync: bool) -> Verdict {
        let Some(draft) = state.draft(id).filter(|draft| !draft.orphan) else {
            return Verdict::Nothing;
        };
        let raw = self.settings.validate == Validate::None;
        match draft.purpose {
            Publish::Never => return Verdict::Nothing,
            Publish::OnRename if !fsync || draft.bytes.is_empty() => return Verdict::Nothing,
            Publish::OnRename | Publish::OnClose => {}
        }
        let dirty = draft.bytes.is_changed() || raw && draft.published.is_none();
        if !dirty {
            return Verdict::Nothing;
        }
        if draft.bytes.is_empty() && !raw {
            // A new file without content is no key yet; a key without content keeps its value, and that is said.
            return match draft.published {
                None => Verdict::Nothing,
                Some(_) => Verdict::Unfit(Fault::Empty.into()),
            };
        }
        let (limits, validate) = (self.cache.limits(), self.settings.validate);
        let fit = if fsync && !draft.syncs {
            draft.synced(&limits, validate).map(drop)
        } else {
            draft.check(&limits, validate)
        };
        fit.map_or_else(Verdict::Unfit, |()| Verdict::Publish)
    }

    /// Sets the key to the draft that thread `by` writes. Returns once the store has it durably and the kernel shows it.
    pub(crate) async fn publish(self: &Arc<Self>, ino: Ino, id: DraftId, by: u32) -> FsResult<()> {
        let invalidations = self.publish_in_turn(ino, id, by).await?;
        self.invalidate_and_wait(invalidations).await;
        Ok(())
    }

    /// As [`Fs::publish`], for requests during which the kernel holds the lock of the inode. No notice about a name is waited
    /// for but by the next close: it waits for the lock of the directory, and who holds that may wait for the inode.
    pub(crate) async fn publish_locked(self: &Arc<Self>, ino: Ino, id: DraftId, by: u32) -> FsResult<()> {
        let invalidations = self.publish_in_turn(ino, id, by).await?;
        let (inodes, names) =
            invalidations.into_iter().partition(|one| matches!(one, PathInvalidation::Inode(_)));
        self.tell_before_close(id, names);
        self.invalidate_and_wait(inodes).await;
        Ok(())
    }

    /// [`Fs::publish_locked`] of what a handle writes.
    pub(crate) async fn publish_at_once(self: &Arc<Self>, fh: Fh) -> FsResult<()> {
        let (ino, id, opener) = {
            let mut state = self.state.lock();
            let (id, _) = state.draft_of(fh)?;
            let handle = state.handle(fh)?;
            (handle.ino, id, handle.opener)
        };
        self.publish_locked(ino, id, opener).await
    }

    /// Tells the kernel what it must drop, for which the next close of the draft waits.
    fn tell_before_close(self: &Arc<Self>, id: DraftId, invalidations: Vec<PathInvalidation>) {
        if invalidations.is_empty() {
            return;
        }
        let (tell, told) = oneshot::channel();
        let fs = self.clone();
        tokio::spawn(async move {
            fs.invalidate_and_wait(invalidations).await;
            _ = tell.send(());
        });
        if let Some(draft) = self.state.lock().draft_mut(id) {
            draft.untold.push(told);
        }
    }

    /// Waits until the kernel has been told of all that the draft published.
    pub(super) async fn settle(&self, id: DraftId) {
        let untold = self.state.lock().draft_mut(id).map(|draft| std::mem::take(&mut draft.untold));
        for told in untold.unwrap_or_default() {
            _ = told.await;
        }
    }

    /// As [`Fs::publish`], up to what the kernel must drop then.
    pub(super) async fn publish_in_turn(
        self: &Arc<Self>,
        ino: Ino,
        id: DraftId,
        by: u32,
    ) -> FsResult<Vec<PathInvalidation>> {
        let _staying = self.stay().await.map_err(|error| self.not_published(id, error))?;
        self.publish_now(ino, id, by).await
    }

    /// As [`Fs::publish_in_turn`]; directories must [stay](Fs::stay).
    pub(crate) async fn publish_now(
        self: &Arc<Self>,
        ino: Ino,
        id: DraftId,
        by: u32,
    ) -> FsResult<Vec<PathInvalidation>> {
        self.set_key(ino, id, by).await.map_err(|error| self.not_published(id, error))
    }

    async fn set_key(self: &Arc<Self>, ino: Ino, id: DraftId, by: u32) -> FsResult<Vec<PathInvalidation>> {
        let mut also = Vec::new();
        let (_operation, name, mut draft) = loop {
            let (operation, name) = self.begin_at(ino).await?;
            // A successor is what the process that renamed it publishes.
            let in_the_way = match self.to_publish(ino, id, (&name, by))? {
                Next::CarryOut(in_the_way) => in_the_way,
                Next::Set(draft) => break (operation, name, draft),
                Next::Nothing => return Ok(also),
            };
            drop(operation);
            let (name, deferred) = in_the_way;
            self.carry_out(&name, &deferred).await?;
            also.extend(PathInvalidation::of_name(&name));
        };
        let mut set = self.set(&draft).await;
        while let Err(store::Error::Changed | store::Error::Exists) = set
            && (self.append_to_newest(id, &mut draft).await? || self.may_replace_kin(id, &mut draft))
        {
            set = self.set(&draft).await;
        }
        let mut state = self.state.lock();
        let meta = match set {
            Err(store::Error::Changed) if self.is_superseded(&mut state, id) => return Ok(also),
            set => set?,
        };
        state.follow_kin(&name, id, draft.before(), meta.revision);
        let mut invalidations = Self::committed(&mut state, ino, id, &name, &meta, draft.moment);
        if draft.is_new {
            invalidations.extend(self.name_added(&mut state, &name, draft.before.as_ref()));
        }
        if let Some(published) = state.draft_mut(id) {
            published.overwritten.get_or_insert(Overwritten::by(draft.replaced));
            published.base = draft.is_merged.then_some(draft.text);
        }
        let lost = state.take_lost(&name);
        drop(state);
        self.expire_attributes(lost);
        invalidations.extend(also);
        Ok(invalidations)
    }

    /// Another version than expected is there. Whether that may be one by a draft of the same process, which this one may replace.
    fn may_replace_kin(&self, id: DraftId, draft: &mut Unpublished) -> bool {
        let state = self.state.lock();
        let written = state.draft(id).filter(|written| !self.is_blank_since(written));
        let next = written.and_then(|written| written.follows).map(Expect::At);
        let is_other = next.is_some_and(|next| next != draft.expect);
        draft.expect = next.unwrap_or(draft.expect);
        is_other
    }

    async fn set(&self, draft: &Unpublished) -> store::Result<Meta> {
        let Unpublished { key, id, text, given, expect, .. } = draft;
        let set = self.cache.set_key_value(key, text.clone(), *expect);
        store::with_new_id(id.clone(), store::with_attributes(given.clone(), set)).await
    }

    /// What is to be done of a draft that thread `by` writes, now that no other change of its `name` is in flight.
    fn to_publish(&self, ino: Ino, id: DraftId, (name, by): (&str, u32)) -> FsResult<Next> {
        let state = self.state.lock();
        if let Some(in_the_way) = state.deferred_by_others(name, by) {
            return Ok(Next::CarryOut(in_the_way));
        }
        let key = state.inode(ino)?.key.clone();
        let draft = state.draft(id).ok_or(FsError::BadHandle)?;
        // Renamed to a scratch name meanwhile, it is no value.
        let over = draft.orphan || draft.purpose == Publish::Never;
        if over || !draft.bytes.is_changed() && draft.published.is_some() {
            return Ok(Next::Nothing);
        }
        // A close comes here with a value only.
        let (text, moment) = draft.synced(&self.cache.limits(), self.settings.validate)?;
        let text = Text::from(text);
        let gone = self.peek_meta(&key).is_some_and(|told| told.value.is_none());
        let is_new = gone && !state.is_local(name);
        let before = self.cache.peek_keys().map(|answer| answer.value);
        let (id, expect, is_merged) = (draft.new_id(), draft.expect, draft.base.is_some());
        let replaced = self.cache.peek(&key).and_then(|answer| answer.value).map(|entry| entry.text);
        let given = self.given(state.paths().attributes(name), draft);
        Ok(Next::Set(Unpublished {
            key,
            id,
            text,
            given,
            expect,
            moment,
            is_merged,
            is_new,
            before,
            replaced,
        }))
    }

    /// Records that the draft was not published, so that its release does not publish what was reported as failed.
    fn not_published(&self, id: DraftId, error: FsError) -> FsError {
        let mut state = self.state.lock();
        let Some(draft) = state.draft_mut(id) else { return error };
        let error = match error {
            // Nobody asked for the file to be new; it was when it was opened.
            FsError::Exists if !draft.exclusive => store::Error::Changed.into(),
            error => error,
        };
        let error = self.part_is_set(&mut state, id, error);
        let Some(draft) = state.draft_mut(id) else { return error };
        if draft.purpose == Publish::OnRename && error.is_outage() {
            // A temporary file that came of age was promised nothing: it is tried again by itself.
            draft.bytes.wait_anew();
        } else {
            draft.refused = Some(error.clone());
        }
        error
    }

    /// The refusal of what a draft holds. If a document at its beginning is set already, the value that this replaced is kept as
    /// that of a deleted key is.
    pub(crate) fn part_is_set(&self, state: &mut State, id: DraftId, error: FsError) -> FsError {
        let Some(draft) = state.draft_mut(id) else { return error };
        let Some(overwritten) = &mut draft.overwritten else { return error };
        let (replaced, text, ino) = (overwritten.was_there, overwritten.text.take(), draft.ino);
        if let (Some(text), Ok(inode)) = (text, state.inode(ino)) {
            self.rejected.keep_deleted(&inode.name, text);
        }
        FsError::PartlySet { why: Box::new(error), replaced }
    }

    /// Takes in that the store has the draft as `meta`.
    fn committed(
        state: &mut State,
        ino: Ino,
        id: DraftId,
        name: &str,
        meta: &Meta,
        moment: Moment,
    ) -> Vec<PathInvalidation> {
        state.paths_mut().take_deferred_rename(name);
        state.published_draft(ino, id, name, meta, moment);
        let mut invalidations = state.install_version(name, meta, Origin::LocalWrite);
        // Others may have emptied the directory that the file is in.
        invalidations.extend(state.appeared(name));
        invalidations
    }
}
