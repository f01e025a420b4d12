//! What is known of a key beside its value.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Attributes;

/// A store-wide version number. A later change of the same key has a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Revision(pub u64);

/// The metadata of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Stays the same across overwrites and renames.
    pub id: Arc<str>,
    /// Version of the value.
    pub revision: Revision,
    /// Length of the value in bytes.
    pub size: u64,
    /// When the key was first set.
    pub created: SystemTime,
    /// When the value was last set; later for each version of a key.
    pub modified: SystemTime,
    /// Owner, mode and times, if any were set and the store keeps them.
    pub attributes: Option<Arc<Attributes>>,
}

impl Meta {
    /// That of a key that is not there.
    pub(crate) fn nothing(time: SystemTime) -> Self {
        Self {
            id: "".into(),
            revision: Revision::default(),
            size: 0,
            created: time,
            modified: time,
            attributes: None,
        }
    }

    /// Which of two of a key is newer: by its value, and then by its attributes.
    pub(crate) fn version(&self) -> (Revision, Revision) {
        (self.revision, self.attributes.as_ref().map(|set| set.revision).unwrap_or_default())
    }

    /// Whether it is that of a key that is not there.
    pub(crate) fn is_nothing(&self) -> bool {
        self.id.is_empty()
    }
}
