//! What changes that others make do to the tables.

use crate::fs::rules::names::parent;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::state::unlinked::unlinked_elsewhere;
use crate::fs::types::Ino;
use crate::store::{Change, Revision};

impl State {
    /// Whether the name of a key that was set leads to this version of it, or to a newer one.
    pub(crate) fn shows(&self, name: &str, change: &Change) -> bool {
        let shown = self.named(name).map(|(_, inode)| &inode.body);
        matches!(change, Change::Set(..))
            && matches!(shown, Some(Body::Key(known)) if known.revision >= change.revision())
    }

    /// The key of `name` is gone since this revision.
    pub(crate) fn deleted_elsewhere(
        &mut self,
        name: &str,
        revision: Revision,
        was_there: Option<bool>,
    ) -> Vec<PathInvalidation> {
        self.listings.note(name);
        let mut invalidations = Vec::new();
        if was_there != Some(false) && !self.is_local(name) {
            self.touch(name);
            invalidations.push(PathInvalidation::Listing(parent(name).to_owned()));
        }
        let is_cached = |body: &Body| matches!(body, Body::Key(meta) if meta.revision < revision);
        match self.named(name) {
            Some((_, inode)) if is_cached(&inode.body) => {
                unlinked_elsewhere(self, name);
                invalidations = PathInvalidation::of_name(name);
            }
            Some(_) => {}
            // Somebody has older versions open.
            None => self.end_file(name),
        }
        invalidations
    }

    /// The version that `name` leads to may be stale.
    pub(crate) fn forget_version(&mut self, name: &str) -> Vec<PathInvalidation> {
        if let Some(ino) = self.paths.current(name) {
            self.note_replaced(name, ino);
        }
        self.drop_version(name);
        PathInvalidation::of_name(name)
    }

    /// Changes were missed: the versions that names lead to may be stale.
    pub(crate) fn forget_versions(&mut self) {
        let is_key = |ino: &Ino| self.inodes.get(ino).is_some_and(|inode| matches!(inode.body, Body::Key(_)));
        let keys = self.paths.currents().filter(|(_, ino)| is_key(ino));
        let keys: Vec<(String, Ino)> = keys.map(|(name, ino)| (name.to_owned(), ino)).collect();
        for (name, ino) in keys {
            self.note_replaced(&name, ino);
            self.remove_name(&name);
        }
        self.forget_predecessors();
        self.touch_all();
    }
}
