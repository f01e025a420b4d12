//! What becomes of values that were removed for a file that is made anew.

use crate::fs::rules::error::FsError;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::{Body, Content, Handle};
use crate::fs::state::predecessors::Predecessor;
use crate::fs::state::tables::State;
use crate::fs::state::versions::Origin;
use crate::fs::types::{DraftId, Ino};
use crate::store::{Expect, Meta};

impl State {
    /// A process has removed the key at `path`.
    pub(crate) fn removed(&mut self, path: &str, predecessor: Option<Predecessor>) {
        if let Some(predecessor) = predecessor {
            self.predecessors.add(path, predecessor);
        }
    }

    /// Whether what has been removed at `path` may come back, at the end of a call of which the kernel holds the directory's lock: it
    /// may not remember that there is nothing.
    pub(crate) fn may_come_back(&self, path: &str) -> bool {
        self.predecessors.has(path)
    }

    /// What the process of `thread` has removed at `path`, which it makes anew.
    pub(crate) fn take_predecessor(&mut self, path: &str, thread: u32) -> Option<Predecessor> {
        self.predecessors.take(path, thread)
    }

    /// The file could not be made, for this reason.
    pub(crate) fn not_made(&mut self, path: &str, predecessor: Predecessor, why: FsError) {
        self.predecessors.not_made(path, predecessor, why);
    }

    /// What came before the files that could not be made.
    pub(crate) fn take_due_predecessors(&mut self) -> Vec<(String, Predecessor, FsError)> {
        self.predecessors.take_due()
    }

    /// Something else has become of the name: what was removed there before does not come back.
    pub(crate) fn forget_predecessor(&mut self, path: &str) {
        self.predecessors.forget(path);
        for id in self.paths.drafts(path) {
            if let Some(draft) = self.drafts.get_mut(&id) {
                draft.predecessor = None;
            }
        }
    }

    /// As [`State::forget_predecessor`], of all names, of any of which something may have become.
    pub(super) fn forget_predecessors(&mut self) {
        self.predecessors.clear();
        for draft in self.drafts.values_mut() {
            draft.predecessor = None;
        }
    }

    /// What comes back where the draft is refused: of a new file of which nothing has been published.
    pub(crate) fn predecessor_of(&mut self, id: DraftId) -> Option<Predecessor> {
        let draft = self.drafts.get_mut(&id).filter(|draft| !draft.orphan && draft.published.is_none())?;
        let predecessor = draft.predecessor.take()?;
        // It may have been renamed.
        self.inodes.get(&draft.ino).filter(|inode| inode.key == predecessor.key)?;
        Some(predecessor)
    }

    /// The store has what was removed for the file of the draft as `meta` again, because the draft was refused for this reason.
    /// Who writes the draft goes on as a writer of that key.
    pub(crate) fn put_back(
        &mut self,
        (ino, id): (Ino, DraftId),
        name: &str,
        meta: &Meta,
        removed: &Predecessor,
        why: &FsError,
    ) -> Vec<PathInvalidation> {
        let Some(draft) = self.drafts.get_mut(&id) else { return Vec::new() };
        (draft.published, draft.expect) = (Some(meta.clone()), Expect::At(meta.revision));
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.body = Body::Draft(id);
            self.go_away(name, ino);
        }
        self.paths.set_attributes(name, removed.attributes);
        let is_of_it = |handle: &&mut Handle| matches!(handle.content, Content::Draft(of) if of == id);
        let mut failed = false;
        for handle in self.handles.values_mut().filter(is_of_it) {
            failed |= handle.failed.is_some();
            // Others may have failed for reasons of their own.
            handle.failed = handle.failed.take().map(|own| FsError::PutBack(Box::new(own)));
        }
        if let Some(draft) = self.drafts.get_mut(&id).filter(|_| !failed) {
            draft.refused = Some(why.clone());
        }
        let mut invalidations = self.install_version(name, meta, Origin::LocalWrite);
        invalidations.extend(self.appeared(name));
        invalidations
    }
}
