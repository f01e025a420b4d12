//! Keys that are being changed through the cache. A change of them in the feed is most likely one of these very changes: it is
//! withheld until the last caller that changes the key has taken its answer in, because only then that is certain.

use std::collections::VecDeque;

use super::keys::Keys;
use super::news::{KeyChange, KeyChanges};
use crate::by_name::ByName;
use crate::store::{Key, Revision};

/// Limit of changes of one key that are withheld: the last ones supersede the others.
const MOST: usize = 16;

/// A key that is being changed.
#[derive(Default)]
struct Held {
    holders: u32,
    /// The newest version that a change made here has left.
    own: Revision,
    /// The newest version that was made here, or that the feed has brought.
    newest: Revision,
    /// Changes were missed.
    missed: bool,
    withheld: VecDeque<KeyChange>,
    /// All keys before the first change that is withheld.
    before: Option<Keys>,
}

/// The keys that are being changed.
#[derive(Default)]
pub(super) struct Holds(ByName<Key, Held>);

impl Holds {
    pub(super) fn begin(&mut self, keys: &[Key]) {
        for key in keys {
            self.0.entry(key.clone()).or_default().holders += 1;
        }
    }

    /// A change made here has left `key` at the revision `own`. The newest version before this answer came; one that no
    /// version comes after, if changes were missed.
    pub(super) fn answered(&mut self, key: &Key, own: Revision) -> Revision {
        let Some(held) = self.0.get_mut(key) else { return Revision::default() };
        let newest = if held.missed { Revision(u64::MAX) } else { held.newest };
        held.own = held.own.max(own);
        held.newest = held.newest.max(own);
        newest
    }

    /// Withholds a change if its key is being changed; else gives it back.
    pub(super) fn withhold(&mut self, change: KeyChange, before: Option<&Keys>) -> Option<KeyChange> {
        let held = change.change.key().and_then(|key| self.0.get_mut(key));
        let Some(held) = held else { return Some(change) };
        held.newest = held.newest.max(change.change.revision());
        if held.withheld.is_empty() {
            held.before = before.cloned();
        }
        if held.withheld.len() == MOST {
            held.withheld.pop_front();
        }
        held.withheld.push_back(change);
        None
    }

    /// Changes were missed: others may have changed these keys, too.
    pub(super) fn miss(&mut self) {
        self.0.values_mut().for_each(|held| held.missed = true);
    }

    /// Ends one hold on each of `keys`. Where it was the last one, the changes that were withheld are `released`.
    pub(super) fn end(&mut self, keys: &[Key], released: &mut KeyChanges) {
        for key in keys {
            let Some(held) = self.let_go(key) else { continue };
            released.uncertain.extend(held.missed.then(|| key.clone()));
            released.before = released.before.take().or(held.before);
            released.changes.extend(held.withheld.into_iter().map(|change| change.decided(held.own)));
        }
    }

    /// Ends one hold on `key`; its record, if that was the last one.
    fn let_go(&mut self, key: &Key) -> Option<Held> {
        let held = self.0.get_mut(key)?;
        held.holders -= 1;
        (held.holders == 0).then(|| self.0.remove(key)).flatten()
    }
}
