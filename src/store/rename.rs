//! Renames of several keys at once.

use std::collections::HashSet;

use super::{Error, Key, Result, Revision};

/// One of several renames that are carried out as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The old key, which must exist.
    pub from: Key,
    /// The new key, which must not exist.
    pub to: Key,
    /// The version of `from` that is renamed.
    pub at: Revision,
}

impl Rename {
    /// Fails if a key is named twice. A target that is also a source exists.
    pub(super) fn check(renames: &[Self]) -> Result<()> {
        let mut named = HashSet::new();
        let all = renames.iter().map(|rename| &rename.from).chain(renames.iter().map(|rename| &rename.to));
        if all.into_iter().all(|key| named.insert(key)) { Ok(()) } else { Err(Error::Exists) }
    }

    /// The error of a failed rename: a source that is gone has changed.
    pub(super) fn failed(error: Error) -> Error {
        if error == Error::NotFound { Error::Changed } else { error }
    }
}
