//! Directories as the tables know them.

use std::time::{Duration, SystemTime};

use crate::fs::state::nodes::Overrides;
use crate::fs::types::{Ino, ROOT};
use crate::store::Revision;

/// Why a directory is there, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// A key is below it, for all that is known.
    Keys,
    /// It stays while no key is below it.
    Kept,
    /// Others have deleted the last key below it. Should it come back while the kernel knows its inode, it is that one again.
    Gone,
}

/// A directory: one that the kernel may know, or that was made here.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Its inode, if the kernel may know it.
    pub(crate) ino: Option<Ino>,
    /// Whether it is there.
    pub(crate) presence: Presence,
    /// When the names in it last changed.
    pub(crate) modified: SystemTime,
    /// Counts the changes of the names in it.
    pub(crate) version: Revision,
    /// What was said of it.
    pub(crate) set: Overrides,
}

impl Directory {
    /// One in which names last changed at `modified`.
    pub(crate) fn new(modified: SystemTime) -> Self {
        let (version, set) = (Revision::default(), Overrides::default());
        Self { ino: None, presence: Presence::Keys, modified, version, set }
    }

    /// Whether it stays while no key is below it.
    pub(crate) fn is_kept(&self) -> bool {
        self.presence == Presence::Kept
    }

    /// Whether nobody but this mount knows what was said of it: no store keeps times of directories.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.set.are_in_memory() || self.set.are_times_asked_for()
    }

    /// The names in it have changed.
    pub(crate) fn touch(&mut self, now: SystemTime) {
        self.modified = now.max(self.modified + Duration::from_micros(1));
        self.version.0 += 1;
    }
}

/// What is known of directories beside their records.
#[derive(Debug)]
pub(crate) struct Directories {
    /// The one at the empty path.
    pub(super) root: Directory,
    /// When the names in a directory last changed of which nothing is known.
    pub(super) names_modified: SystemTime,
    /// The path of the one that is being renamed.
    pub(super) moving: Option<String>,
}

impl Directories {
    /// The root alone, in which names last changed at `modified`.
    pub(super) fn new(modified: SystemTime) -> Self {
        let root = Directory { ino: Some(ROOT), presence: Presence::Kept, ..Directory::new(modified) };
        Self { root, names_modified: modified, moving: None }
    }
}
