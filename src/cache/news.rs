//! The messages of the cache about its store: what has changed, what was known before, and whose change it is.

use std::sync::Arc;

use super::keys::Keys;
use crate::store::{Attributes, Change, Key, Revision};

/// Whose a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was made through this cache, or superseded by one that was.
    Own,
    /// This version or a newer one was known already: it was made here, or read.
    Known,
    /// Somebody else has made it.
    Elsewhere,
    /// It comes late: the key was deleted since.
    Past,
}

/// A change of one key that the cache has applied.
#[derive(Clone, Debug)]
pub struct KeyChange {
    /// [`Change::Set`] or [`Change::Deleted`].
    pub change: Change,
    /// Whose it is.
    pub origin: Origin,
    /// Whether the key was there before, if that was known.
    pub was_there: Option<bool>,
}

/// Changes of keys, in order per key.
#[derive(Clone, Debug, Default)]
pub struct KeyChanges {
    /// Each of them.
    pub changes: Vec<KeyChange>,
    /// Keys that were changed here while changes were missed: their versions may be stale.
    pub uncertain: Vec<Key>,
    /// All keys before, if they were known.
    pub before: Option<Keys>,
    /// All keys afterwards, if they are known.
    pub after: Option<Keys>,
}

/// A message about the store.
#[derive(Clone, Debug)]
pub enum News {
    /// Keys have changed.
    Changes(KeyChanges),
    /// The attributes kept of a prefix of keys are these since this revision.
    Prefix(Key, Option<Arc<Attributes>>, Revision),
    /// The store does not push changes any more. These keys were the last known ones.
    Paused(Option<Keys>),
    /// The store pushes changes again, and none was missed.
    Resumed,
    /// Changes were missed. These keys were the last known ones before that.
    Missed(Option<Keys>),
}

impl KeyChanges {
    /// Whether nothing has changed.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.uncertain.is_empty()
    }
}

impl KeyChange {
    /// The change, after the newest version that was made here is known.
    pub(super) fn decided(self, own: Revision) -> Self {
        let origin = if self.change.revision() <= own { Origin::Own } else { self.origin };
        Self { origin, ..self }
    }
}
