//! What the cache tells of its store: what has changed, what was known before, and whose change it is.

use super::keys::Keys;
use crate::store::{Change, Key, Revision};

/// Whose a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was made through this cache, or overtaken by one that was.
    Own,
    /// The version was known already, or a newer one: it was made here, or read.
    Known,
    /// Somebody else has made it.
    Elsewhere,
    /// It is told of late: the key was deleted since.
    Past,
}

/// A change of one key that the cache has taken in.
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
    /// Keys that were changed here while changes were missed: what that has left may not be the newest.
    pub uncertain: Vec<Key>,
    /// All keys before, if they were known.
    pub before: Option<Keys>,
    /// All keys afterwards, if they are known.
    pub after: Option<Keys>,
}

/// What the cache tells of the store.
#[derive(Clone, Debug)]
pub enum News {
    /// Keys have changed.
    Changes(KeyChanges),
    /// Changes are not told from now on. Until now there were these keys, as far as that was known.
    Paused(Option<Keys>),
    /// Changes are told again, and none was missed.
    Resumed,
    /// Changes were missed. Before that there were these keys, as far as that was known.
    Missed(Option<Keys>),
}

impl KeyChanges {
    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.uncertain.is_empty()
    }
}

impl KeyChange {
    /// Now that the newest version that was made here is known.
    pub(super) fn decided(self, own: Revision) -> Self {
        let origin = if self.change.revision() <= own { Origin::Own } else { self.origin };
        Self { origin, ..self }
    }
}
