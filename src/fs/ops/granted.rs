//! Opens that are granted: their handles and drafts.

use crate::fs::core::Fs;
use crate::fs::rules::document::Validate;
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Content, Handle};
use crate::fs::state::tables::State;
use crate::fs::types::{Access, Caller, DraftId, Fh, Ino, Opened};
use crate::store::{Entry, Expect, Meta, Text};

impl Fs {
    /// Opens the inode that the name has for a writer, who has it alone. What the kernel is to drop before that is answered, at
    /// the beginning of this draft.
    pub(crate) fn write_on(
        &self,
        state: &mut State,
        caller: Caller,
        ino: Ino,
        entry: Entry,
        access: Access,
    ) -> (Opened, Option<(PathInvalidation, DraftId)>) {
        let direct = !access.truncate && !state.is_told(ino);
        let draft = Draft { off_pages: direct, ..draft_of(entry, access) };
        let draft = add_draft(state, caller, ino, draft);
        let dentry = state.write_on(ino, draft);
        if let Some(inode) = state.inode_mut(ino).filter(|_| access.truncate) {
            inode.cached.size.know();
        }
        let fh = self.begin_draft(state, caller, ino, draft, access);
        let opened = Opened { fh, direct, no_flush: false };
        let Some(dentry) = dentry else { return (opened, None) };
        if let Some(draft) = state.draft_mut(draft) {
            draft.opening = true;
        }
        (opened, Some((dentry, draft)))
    }

    /// Serves an open that has no name to look up.
    pub(crate) fn open_direct(
        &self,
        state: &mut State,
        caller: Caller,
        ino: Ino,
        entry: Entry,
        access: Access,
    ) -> Opened {
        if !access.writes() {
            return read_snapshot(state, caller, ino, entry, true);
        }
        let draft = add_draft(state, caller, ino, draft_of(entry, access));
        state.own_draft(draft, ino);
        if let Some(inode) = state.inode_mut(ino) {
            inode.cached.size.forget();
        }
        let fh = self.begin_draft(state, caller, ino, draft, access);
        Opened { fh, direct: true, no_flush: false }
    }

    /// Opens a file that has no name any more for a process that has it open already.
    pub(crate) fn open_anew(
        &self,
        state: &mut State,
        caller: Caller,
        ino: Ino,
        own: Content,
        access: Access,
    ) -> Opened {
        let (text, meta) = match own {
            Content::Draft(draft) => return self.join(state, caller, ino, draft, access),
            Content::Snapshot(text, meta) => (text, meta),
        };
        if !access.writes() {
            return read(state, caller, ino, (text, meta), true);
        }
        let mut draft = Draft::new(text.to_vec(), Publish::OnClose, Expect::Absent, state.now());
        draft.orphan = true;
        let draft = state.add_draft(draft);
        state.own_draft(draft, ino);
        let fh = self.begin_draft(state, caller, ino, draft, access);
        Opened { fh, direct: true, no_flush: false }
    }

    /// The handle of who begins a draft. He is not sent anywhere any more.
    fn begin_draft(&self, state: &mut State, caller: Caller, ino: Ino, draft: DraftId, access: Access) -> Fh {
        if access.truncate {
            self.truncated(state, draft);
        }
        let fh = state.add_handle(Handle::new(caller.thread, ino, Content::Draft(draft), true));
        state.end_retry(caller.thread, ino);
        fh
    }

    /// Opens a file that is shared by all who have it open.
    pub(crate) fn join(
        &self,
        state: &mut State,
        caller: Caller,
        ino: Ino,
        draft: DraftId,
        access: Access,
    ) -> Opened {
        let write = access.writes();
        let never_published =
            |draft: &Draft| draft.purpose == Publish::OnClose && draft.published.is_none() && !draft.orphan;
        if !write && state.draft(draft).is_some_and(never_published) {
            // A new key, which is being written or may be: nothing of it is there for others yet.
            return read(state, caller, ino, (Text::from([]), None), true);
        }
        // The redirect ends only after the handle holds the inode.
        let fh = state.add_handle(Handle::new(caller.thread, ino, Content::Draft(draft), write));
        state.end_retry(caller.thread, ino);
        if access.truncate {
            self.truncated(state, draft);
        }
        let direct = !access.truncate && state.draft(draft).is_some_and(|draft| draft.off_pages);
        Opened { fh, direct, no_flush: !write }
    }

    /// `O_TRUNC`: overwrites whatever is there, as `set_key_value` does.
    fn truncated(&self, state: &mut State, draft: DraftId) {
        let now = state.now();
        if let Some(draft) = state.draft_mut(draft) {
            // A shared new file that is empty already stays clean.
            let fresh = draft.published.is_none() && draft.bytes.is_empty() && !draft.bytes.is_changed();
            if !fresh || self.settings.validate == Validate::None {
                draft.clear(now);
            }
            if !matches!(draft.expect, Expect::Absent) {
                draft.expect = Expect::Anything;
            }
        }
    }
}

/// A new draft of the key that the inode is of.
fn add_draft(state: &mut State, caller: Caller, ino: Ino, draft: Draft) -> DraftId {
    let name = state.inode(ino).map_or_else(|_| String::new(), |inode| inode.name.clone());
    state.add_draft_of_key(&name, caller.thread, draft)
}

/// The handle of who reads one version. He is not sent anywhere any more.
pub(crate) fn read_snapshot(
    state: &mut State,
    caller: Caller,
    ino: Ino,
    entry: Entry,
    direct: bool,
) -> Opened {
    read(state, caller, ino, (entry.text, Some(entry.meta)), direct)
}

/// The handle of who reads this text, which may be of no version.
fn read(
    state: &mut State,
    caller: Caller,
    ino: Ino,
    (text, meta): (Text, Option<Meta>),
    direct: bool,
) -> Opened {
    let fh = state.add_handle(Handle::new(caller.thread, ino, Content::Snapshot(text, meta), false));
    if let Some(inode) = state.inode_mut(ino).filter(|_| direct) {
        inode.cached.size.opened(fh);
    }
    state.end_retry(caller.thread, ino);
    Opened { fh, direct, no_flush: true }
}

/// A draft that starts with the current value, or with nothing.
pub(crate) fn draft_of(entry: Entry, access: Access) -> Draft {
    if entry.meta.is_nothing() {
        let expect = if access.truncate { Expect::Anything } else { Expect::Absent };
        return Draft::new(Vec::new(), Publish::OnClose, expect, entry.meta.modified);
    }
    let (text, expect) = if access.truncate {
        (Vec::new(), Expect::Anything)
    } else {
        (entry.text.to_vec(), Expect::At(entry.meta.revision))
    };
    let mut draft = Draft::new(text, Publish::OnClose, expect, entry.meta.modified);
    draft.published = Some(entry.meta);
    draft
}
