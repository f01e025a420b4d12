//! What a store tells of the changes of others.

use std::sync::Arc;

use super::{Attributes, Key, Meta, Revision};

/// A change by another client, or by this process if the store does not know whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has a new value.
    Set(Key, Meta),
    /// The key is gone since this revision.
    Deleted(Key, Revision),
    /// The attributes kept of a prefix of keys are these since this revision.
    Prefix(Key, Option<Arc<Attributes>>, Revision),
    /// Changes were missed: every cached value may be old. The feed is complete from now on.
    Everything,
    /// The feed is interrupted until [`Change::Resumed`] or [`Change::Everything`]: cached values were right until now.
    Paused,
    /// The feed is complete again: it has sent all changes since [`Change::Paused`].
    Resumed,
}

impl Change {
    /// The changed key, of a change of one key.
    pub const fn key(&self) -> Option<&Key> {
        match self {
            Self::Set(key, _) | Self::Deleted(key, _) => Some(key),
            Self::Prefix(..) | Self::Everything | Self::Paused | Self::Resumed => None,
        }
    }

    /// The version that the key has, or is gone since.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Set(_, meta) => meta.revision,
            Self::Deleted(_, revision) | Self::Prefix(_, _, revision) => *revision,
            Self::Everything | Self::Paused | Self::Resumed => Revision::default(),
        }
    }
}
