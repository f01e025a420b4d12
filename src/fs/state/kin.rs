//! Drafts of one process. Its descriptors of a file share a draft while nothing of that is unsaved; of those that do not, the
//! last close wins.

use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::nodes::{Body, Content, Handle};
use crate::fs::state::tables::State;
use crate::fs::types::{DraftId, Ino};
use crate::store::{Entry, Expect, Revision};
use crate::sys::process::is_of_process;

impl State {
    /// A new draft of the key `name`, by `thread`.
    pub(crate) fn add_draft_of_key(&mut self, name: &str, thread: u32, draft: Draft) -> DraftId {
        let kin = self.drafts_of_process(name, thread).next().and_then(|id| self.kin_of(id));
        self.add_draft(Draft { kin, ..draft })
    }

    /// The first draft of the process whose the draft is.
    fn kin_of(&self, id: DraftId) -> Option<DraftId> {
        Some(self.draft(id)?.kin.unwrap_or(id))
    }

    /// The draft that the process of `thread` certainly writes at `name` already, and its inode, if it is the `newest` version as
    /// it stands: the next descriptor of the process shares it. What is unsaved nobody else may cut.
    pub(crate) fn shared_draft(&self, name: &str, thread: u32, newest: &Entry) -> Option<(DraftId, Ino)> {
        let expect = Expect::At(newest.meta.revision);
        let is_newest = |draft: &Draft| {
            !draft.bytes.is_changed() && draft.expect == expect && draft.bytes.text() == &newest.text[..]
        };
        let mut drafts = self.drafts_of_process(name, thread).filter_map(|id| Some((id, self.draft(id)?)));
        let (id, draft) = drafts.find(|(_, draft)| is_newest(draft))?;
        matches!(self.inode(draft.ino).ok()?.body, Body::Draft(own) if own == id).then_some((id, draft.ino))
    }

    /// Whether the process of `thread` certainly has drafts of the key `name` open.
    pub(crate) fn is_written_at(&self, name: &str, thread: u32) -> bool {
        self.drafts_of_process(name, thread).next().is_some()
    }

    /// The drafts of the file at `name` that the process of `thread` certainly has open.
    fn drafts_of_process(&self, name: &str, thread: u32) -> impl Iterator<Item = DraftId> {
        let file = self.paths.file(name);
        let is_live = move |draft: &Draft| {
            let is_written = draft.handles > 0 && !draft.orphan && draft.purpose == Publish::OnClose;
            is_written && self.inode(draft.ino).ok().map(|inode| inode.file) == file
        };
        let drafts = self.paths.drafts(name).into_iter();
        let live = drafts.filter(move |id| self.draft(*id).is_some_and(is_live));
        live.filter(move |id| {
            let of_it = |handle: &&Handle| matches!(handle.content, Content::Draft(draft) if draft == *id);
            let mut handles = self.handles.values().filter(of_it);
            handles.any(|handle| is_of_process(thread, handle.opener, handle.opened))
        })
    }

    /// The draft was published at `name` in place of the version `before`, or whatever there was. Those of its process that went on
    /// from that may take its place.
    pub(crate) fn follow_kin(&mut self, name: &str, id: DraftId, before: Option<Revision>, now: Revision) {
        let kin = self.kin_of(id);
        let is_kin = |other: &DraftId| *other != id && kin.is_some() && self.kin_of(*other) == kin;
        let others = self.paths.drafts(name).into_iter().filter(is_kin).collect();
        self.follow_own(others, before, now);
    }

    /// The same of what the process of `thread` published at `name` without a draft.
    pub(crate) fn follow_process(&mut self, name: &str, thread: u32, before: Revision, now: Revision) {
        let others = self.drafts_of_process(name, thread).collect();
        self.follow_own(others, Some(before), now);
    }

    fn follow_own(&mut self, drafts: Vec<DraftId>, before: Option<Revision>, now: Revision) {
        for id in drafts {
            let goes_on = |draft: &&mut Draft| before.is_none_or(|before| draft.goes_on_from(before));
            if let Some(draft) = self.drafts.get_mut(&id).filter(goes_on) {
                draft.follows = Some(now);
            }
        }
    }
}
