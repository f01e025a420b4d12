//! The end of a handle, and what becomes of a draft that nobody writes any more.

use crate::fs::rules::document::{Fault, Place};
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Body, Content, Handle, Inode};
use crate::fs::state::tables::State;
use crate::fs::state::unlinked::unlinked;
use crate::fs::types::{DraftId, Fh, Ino};
use crate::store::{Key, Meta};

/// What the end of a handle leaves to do.
#[derive(Debug, Default)]
pub(crate) struct Released {
    pub(crate) invalidations: Vec<PathInvalidation>,
    /// Path and text that could not be published, and why.
    pub(crate) unpublished: Option<(String, Vec<u8>, FsError)>,
    /// A local file without content: its key may have been set by somebody else.
    pub(crate) emptied: Option<(String, Key)>,
}

impl State {
    /// The kernel is done with a handle. `check` tells whether a draft is a value, `newest` which version of a key is
    /// remembered as its last.
    pub(crate) fn release(
        &mut self,
        fh: Fh,
        check: impl Fn(&Draft) -> FsResult<()>,
        newest: impl Fn(&Key) -> Option<Meta>,
    ) -> Released {
        let mut released = Released::default();
        let Some((handle, last)) = self.remove_handle(fh) else { return released };
        let may_change = |inode: &&Inode| last || self.paths.home(&inode.name).is_some();
        let file = self.inode(handle.ino).ok().filter(may_change);
        let file = file.map(|inode| (inode.name.clone(), newest(&inode.key)));
        if let Content::Draft(id) = handle.content
            && last
        {
            released.unpublished = self.unpublished(&handle, id, check);
            let newest = file.as_ref().and_then(|(_, newest)| newest.as_ref());
            released.invalidations = self.end_draft(&handle, id, released.unpublished.is_some(), newest);
            if let Some((name, _, why)) = &released.unpublished
                && self.inode(handle.ino).is_ok_and(|inode| !inode.unlinked)
            {
                self.paths.set_failure(name, Some(why.clone()));
            }
            released.emptied = self.empty_file(handle.ino);
            if !self.inode(handle.ino).is_ok_and(|inode| inode.holds(id)) {
                self.remove_draft(id, None);
            }
        }
        if let Content::Snapshot(..) = handle.content {
            released.invalidations = self.follow_again(handle.ino);
        }
        if let Some((name, newest)) = file {
            released.invalidations.extend(self.come_home(&name, newest));
        }
        self.collect(handle.ino);
        released
    }

    /// Whether the last descriptor of a writer of `name` is closed, and what is left of his draft is being published.
    pub(crate) fn is_ending(&self, name: &str) -> bool {
        // There are none but while somebody writes.
        !self.drafts.is_empty()
            && self.paths.drafts(name).iter().filter_map(|id| self.draft(*id)).any(|draft| draft.ending)
    }

    /// The text of a draft that was to be published and was not.
    pub(crate) fn unpublished(
        &self,
        handle: &Handle,
        id: DraftId,
        check: impl Fn(&Draft) -> FsResult<()>,
    ) -> Option<(String, Vec<u8>, FsError)> {
        let (draft, inode) = (self.draft(id)?, self.inode(handle.ino).ok()?);
        let goes_to_store = !draft.orphan && draft.purpose == Publish::OnClose;
        let was_refused = handle.failed.is_some() || draft.refused.is_some();
        if !goes_to_store || !draft.bytes.is_changed() && !was_refused {
            return None;
        }
        let text = [draft.bytes.text(), &handle.refused].concat();
        let why = handle.failed.clone().or_else(|| draft.refused.clone()).or_else(|| check(draft).err());
        let why = why.unwrap_or_else(|| Fault::Incomplete(Place::after(&text)).into());
        Some((inode.name.clone(), text, why))
    }

    /// Nobody writes to the draft any more.
    fn end_draft(
        &mut self,
        handle: &Handle,
        id: DraftId,
        unpublished: bool,
        newest: Option<&Meta>,
    ) -> Vec<PathInvalidation> {
        let (ino, now) = (handle.ino, self.now());
        let (Some(draft), Some(inode)) = (self.drafts.get_mut(&id), self.inodes.get(&ino)) else {
            return Vec::new();
        };
        if draft.orphan {
            return self.end_orphan(ino, id);
        }
        if draft.purpose != Publish::OnClose {
            return Vec::new();
        }
        let name = inode.name.clone();
        let is_successor = self.paths.deferred_rename(&name).is_some();
        // Nothing but a text that was refused: there was no such file before.
        let refused = !draft.empty && (handle.failed.is_some() || !draft.bytes.is_empty());
        match inode.body {
            Body::Local(_) if !unpublished => draft.empty = true,
            Body::Local(_) if refused && !is_successor => {
                unlinked(self, &name);
                return PathInvalidation::of_name(&name);
            }
            // The file stays, as empty as it was before it was written.
            Body::Local(_) => {
                draft.reset(&[], now);
                draft.empty = true;
                return self.stale(ino);
            }
            // Written past the page cache, through an inode without a name: the kernel's idea of its size is that
            // of the draft.
            Body::Key(_) => return self.stale(ino),
            Body::Directory => {}
            Body::Draft(_) => self.end_written(ino, id, unpublished || is_successor, newest),
        }
        Vec::new()
    }

    /// Nobody writes any more to what was replaced by another file, or removed. An inode that is bind-mounted follows the name
    /// again.
    fn end_orphan(&mut self, ino: Ino, id: DraftId) -> Vec<PathInvalidation> {
        let Some(Draft { published: Some(meta), replaced, .. }) = self.drafts.get(&id) else {
            return Vec::new();
        };
        let (meta, replaced) = (meta.clone(), *replaced);
        if self.inodes.get(&ino).is_none_or(|inode| matches!(inode.body, Body::Local(_))) {
            return Vec::new();
        }
        self.remove_draft(id, None);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.body = Body::Key(meta);
            inode.unlinked &= !replaced;
            inode.cached.replaced();
        }
        self.stale(ino)
    }

    /// Nobody writes to the inode any more. It shows what it published, if nothing else was written; else its pages are of no
    /// version, and the kernel drops them before anybody finds it. It has the name if that comes back to it, or leads nowhere,
    /// and if this is the `newest` version.
    fn end_written(&mut self, ino: Ino, id: DraftId, unpublished: bool, newest: Option<&Meta>) {
        let (Some(draft), Some(inode)) = (self.drafts.get(&id), self.inodes.get(&ino)) else { return };
        let (name, key, was_written) = (inode.name.clone(), inode.key.clone(), !draft.bytes.is_empty());
        let is_saved = !unpublished && !draft.bytes.is_changed() && draft.published.is_some();
        let is_whole = is_saved && draft.shows_published();
        let Some(meta) = draft.published.clone().or_else(|| newest.cloned()) else { return };
        let leads_nowhere = self.paths.home(&name).is_none() && self.paths.current(&name).is_none();
        let has_name = leads_nowhere || self.paths.home(&name) == Some(ino);
        self.remove_draft(id, is_whole.then_some(&meta));
        if is_whole && has_name && newest == Some(&meta) {
            self.become_key(ino, &name, &key, meta);
        } else if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.body = Body::Key(meta);
        }
        if let Some(inode) = self.inodes.get_mut(&ino) {
            if !is_whole {
                inode.cached.mark_stale();
            }
            if was_written {
                inode.cached.unpin();
            }
        }
    }
}
