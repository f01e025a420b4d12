//! Owner, mode and times of a key, where chmod(2) and the like have set them.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Revision;

/// What chmod, chown and utimes said of a key. What none has said is not there: the options of the mount decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// Permission bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Access time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accessed: Option<SystemTime>,
    /// Modification time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<SystemTime>,
    /// The version to which that belongs: a newer one has its own.
    pub version: Revision,
    /// When any of these was last set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<SystemTime>,
    /// The store's revision at which it was.
    pub revision: Revision,
}

impl Attributes {
    /// Whether they say nothing.
    pub(crate) fn are_none(&self) -> bool {
        let times = self.accessed.is_some() || self.modified.is_some();
        !times && self.mode.is_none() && self.uid.is_none() && self.gid.is_none()
    }

    /// `before` with these `changes`, made at `revision` to this `version` of the key.
    pub(super) fn merged(
        before: Option<&Arc<Self>>,
        changes: &Self,
        version: Revision,
        revision: Revision,
    ) -> Arc<Self> {
        let before = before.map(|before| (**before).clone()).unwrap_or_default();
        Arc::new(Self {
            mode: changes.mode.or(before.mode),
            uid: changes.uid.or(before.uid),
            gid: changes.gid.or(before.gid),
            accessed: changes.accessed.or(before.accessed),
            modified: changes.modified.or(before.modified),
            version: changes.modified.map_or(before.version, |_| version),
            changed: changes.changed.or(before.changed),
            revision,
        })
    }

    /// Those of a key that is at the version `before` once it is at the version `now` with the same value.
    pub(super) fn renamed(this: Option<&Arc<Self>>, before: Revision, now: Revision) -> Option<Arc<Self>> {
        let this = this?;
        if this.version == before {
            return Some(Arc::new(Self { version: now, ..(**this).clone() }));
        }
        Some(this.clone())
    }
}

/// What a set says of the attributes of its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The attributes.
    pub attributes: Attributes,
    /// It is another file: those that the key had are gone.
    pub replaces: bool,
}

impl Given {
    /// The attributes of a key that had those `before`, after a set to this `version`.
    pub(super) fn after(
        given: Option<&Self>,
        before: Option<&Arc<Attributes>>,
        version: Revision,
    ) -> Option<Arc<Attributes>> {
        // The time that was set is of the value that was there.
        let timed = before.filter(|before| before.modified.is_some());
        let timeless = timed.map(|before| Arc::new(Attributes { modified: None, ..(**before).clone() }));
        let before = timeless.as_ref().or(before);
        let Some(Self { attributes, replaces }) = given else { return before.cloned() };
        let before = before.filter(|_| !replaces);
        if attributes.are_none() {
            return before.cloned();
        }
        Some(Attributes::merged(before, attributes, version, version))
    }
}

tokio::task_local! {
    static GIVEN: Given;
}

/// Runs `work`: a key that it sets has these attributes then, in one change, in a store that
/// [keeps them](super::Store::keeps_attributes). Not for keys that a task sets which is spawned there.
pub async fn with_attributes<F: Future>(given: Option<Given>, work: F) -> F::Output {
    match given {
        Some(given) => GIVEN.scope(given, work).await,
        None => work.await,
    }
}

/// The attributes that were given, if any were.
pub(super) fn given() -> Option<Given> {
    GIVEN.try_with(Given::clone).ok()
}
