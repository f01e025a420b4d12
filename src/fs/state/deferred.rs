//! What the feed tells of a key while this mount changes it.

use crate::fs::types::Ino;
use crate::store::Change;

/// What the store tells of a name while this mount changes it: most likely of these very changes.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    /// What was told meanwhile, and whether the key was there before, if that is known.
    pub(crate) events: Vec<(Change, Option<bool>)>,
    /// Others may have changed it unnoticed meanwhile: what we left is not the newest for certain.
    pub(crate) missed: bool,
    /// What those who watch are yet to be told of.
    pub(crate) unannounced: Vec<(Change, Before)>,
}

/// What was known of a file before a change of its key was taken in.
#[derive(Debug, Default)]
pub(crate) struct Before {
    pub(crate) ino: Option<Ino>,
    pub(crate) there: Option<bool>,
    /// The directories on the way to it, outermost first, and whether they are there.
    pub(crate) directories: Vec<(String, bool)>,
}
