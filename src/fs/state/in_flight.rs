//! Changes that this mount makes, and what the feed tells of their keys meanwhile.

use crate::fs::rules::names::Names;
use crate::fs::state::deferred::Before;
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::types::Ino;
use crate::store::Change;

impl State {
    /// Holds back events of `name` while this mount changes it in the store.
    pub(crate) fn begin_change(&mut self, name: &str) {
        self.paths.edit_in_flight(name, |_| {});
    }

    /// Changes were missed: what is remembered of keys may be stale, and what we change may be changed by others as well.
    pub(crate) fn missed(&mut self) {
        for name in self.paths.in_flight().clone() {
            self.paths.edit_in_flight(&name, |own| own.missed = true);
        }
        let is_key = |ino: &Ino| self.inodes.get(ino).is_some_and(|inode| matches!(inode.body, Body::Key(_)));
        let keys = self.paths.currents().filter(|(_, ino)| is_key(ino));
        let keys: Vec<(String, Ino)> = keys.map(|(name, ino)| (name.to_owned(), ino)).collect();
        for (name, ino) in keys {
            self.note_replaced(&name, ino);
            self.remove_name(&name);
        }
        self.touch_all();
    }

    /// Holds back changes of keys that this mount is changing: whether they are its own is known at the end of that.
    pub(crate) fn defer_announcements(
        &mut self,
        changes: Vec<(Change, Before)>,
        names: &Names,
    ) -> Vec<(Change, Before)> {
        if self.paths.in_flight().is_empty() {
            return changes;
        }
        let mut decided = Vec::new();
        for (change, before) in changes {
            let held = change.key().and_then(|key| self.paths.in_flight_mut(&names.encode(key)));
            held.map_or(&mut decided, |held| &mut held.unannounced).push((change, before));
        }
        decided
    }

    /// Whether the name of a key that was set leads to this version of it.
    pub(crate) fn shows(&self, change: &Change, names: &Names) -> bool {
        let Change::Set(key, meta) = change else { return false };
        let shown = self.named(&names.encode(key)).map(|(_, inode)| &inode.body);
        matches!(shown, Some(Body::Key(known)) if known.revision >= meta.revision)
    }
}
