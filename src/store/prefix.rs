//! Attributes that are kept of all keys that begin alike, beside those of each key.

use std::sync::Arc;

use super::{Attributes, Key};

/// The attributes of each prefix that has any, in order of their bytes.
pub type Prefixes = Vec<(Key, Arc<Attributes>)>;

/// A prefix that is another one once its keys are renamed.
#[derive(Clone, Debug)]
pub struct MovedPrefix {
    /// The old one.
    pub from: Key,
    /// The new one.
    pub to: Key,
}

impl MovedPrefix {
    /// What becomes of `prefix`, which begins with the old one.
    pub(super) fn renamed(&self, prefix: &Key) -> Key {
        format!("{}{}", self.to.as_str(), &prefix.as_str()[self.from.as_str().len()..]).into()
    }
}

tokio::task_local! {
    static MOVED: MovedPrefix;
}

/// Runs `work`: keys that it renames take along what is kept of their prefix, in one change, and of the prefixes that begin with
/// that. Not for those that a task renames which is spawned there.
pub async fn with_moved_prefix<F: Future>(moved: Option<MovedPrefix>, work: F) -> F::Output {
    match moved {
        Some(moved) => MOVED.scope(moved, work).await,
        None => work.await,
    }
}

/// The prefix that moves, if one does.
pub(super) fn moved() -> Option<MovedPrefix> {
    MOVED.try_with(MovedPrefix::clone).ok()
}
