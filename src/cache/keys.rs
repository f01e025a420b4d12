//! All keys in order of their bytes. Copies share what they have in common, so that an open directory keeps the keys of
//! one moment for nothing, and a change costs the same however many there are.

use std::ops::Range;

use imbl::Vector;

use crate::store::{Change, Key, Listing, Meta, Revision};

/// All keys of a moment, each with its metadata.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vector<(Key, Meta)>);

impl From<Listing> for Keys {
    fn from(mut listing: Listing) -> Self {
        // A server may list them in another order, or a key twice.
        if !listing.is_sorted_by(|(one, _), (next, _)| one < next) {
            listing.sort_by(|(one, a), (other, b)| one.cmp(other).then(b.revision.cmp(&a.revision)));
            listing.dedup_by(|(key, _), (kept, _)| key == kept);
        }
        Self(listing.into_iter().collect())
    }
}

impl Keys {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key at a position.
    pub fn at(&self, position: usize) -> Option<&(Key, Meta)> {
        self.0.get(position)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &(Key, Meta)> {
        self.0.iter()
    }

    /// What is known of `key`.
    pub fn meta(&self, key: &Key) -> Option<&Meta> {
        self.at(self.position(key).ok()?).map(|(_, meta)| meta)
    }

    /// The positions of the keys that start with `prefix`.
    pub fn below(&self, prefix: &str) -> Range<usize> {
        let start = self.first(0, |key| key >= prefix);
        start..self.first(start, |key| !key.starts_with(prefix))
    }

    /// The first position from `start` on whose key is `late`, which all keys after it are too. Looks near `start` first.
    pub fn first(&self, start: usize, late: impl Fn(&str) -> bool) -> usize {
        let is_late = |position: usize| self.at(position).is_none_or(|(key, _)| late(key.as_str()));
        let mut step = 1;
        while !is_late(start + step - 1) {
            step *= 2;
        }
        let (mut low, mut high) = (start + step / 2, start + step - 1);
        while low < high {
            let middle = low.midpoint(high);
            if is_late(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low.min(self.len())
    }

    /// The newest version.
    pub(super) fn newest(&self) -> Revision {
        self.iter().map(|(_, meta)| meta.revision).max().unwrap_or_default()
    }

    /// What led from these keys to those that there are `now`; no deletion counts as later than `latest`.
    pub(super) fn changes_until(&self, now: &Self, latest: Revision) -> Vec<Change> {
        let after = |meta: &Meta| latest.min(Revision(meta.revision.0 + 1));
        let gone = self.iter().filter(|(key, _)| now.meta(key).is_none());
        let gone = gone.map(|(key, meta)| Change::Deleted(key.clone(), after(meta)));
        let revision = |key| self.meta(key).map(|meta| meta.revision);
        let set = now.iter().filter(|(key, meta)| revision(key) != Some(meta.revision));
        gone.chain(set.map(|(key, meta)| Change::Set(key.clone(), meta.clone()))).collect()
    }

    /// Takes in that `key` has this version.
    pub(super) fn set(&mut self, key: &Key, meta: &Meta) {
        match self.position(key) {
            Ok(position) => self.0.get_mut(position).expect("it is there").1 = meta.clone(),
            Err(position) => self.0.insert(position, (key.clone(), meta.clone())),
        }
    }

    /// Takes in that `key` is gone.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Ok(position) = self.position(key) {
            self.0.remove(position);
        }
    }

    fn position(&self, key: &Key) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    fn meta(revision: u64) -> Meta {
        let epoch = SystemTime::UNIX_EPOCH;
        Meta {
            id: "".into(),
            revision: Revision(revision),
            size: 0,
            created: epoch,
            modified: epoch,
            attributes: None,
        }
    }

    #[test]
    fn a_listing_out_of_order_has_each_key_once_at_its_newest_version() {
        let listed = [("b", 2), ("a", 1), ("b", 3), ("b", 1)];
        let listing: Listing = listed.map(|(key, revision)| (Key::from(key), meta(revision))).into();
        let keys: Vec<_> = Keys::from(listing)
            .iter()
            .map(|(key, meta)| (key.as_str().to_owned(), meta.revision.0))
            .collect();
        assert_eq!(keys, [("a".to_owned(), 1), ("b".to_owned(), 3)]);
    }

    #[test]
    fn two_listings_tell_what_was_set_and_what_is_gone() {
        let keys = |keys: &[(&str, u64)]| {
            Keys::from(
                keys.iter().map(|(key, revision)| (Key::from(*key), meta(*revision))).collect::<Listing>(),
            )
        };
        let (before, now) = (keys(&[("a", 1), ("b", 2), ("c", 3)]), keys(&[("b", 2), ("c", 5), ("d", 4)]));
        let set = |key: &str, revision| Change::Set(key.into(), meta(revision));
        let told = [Change::Deleted("a".into(), Revision(2)), set("c", 5), set("d", 4)];
        assert_eq!(before.changes_until(&now, now.newest()), told);
        assert!(now.changes_until(&now, now.newest()).is_empty());
        let restored = Keys::default();
        assert_eq!(
            keys(&[("a", 9)]).changes_until(&restored, restored.newest()),
            [Change::Deleted("a".into(), Revision(0))]
        );
    }

    proptest! {
        #[test]
        fn keys_are_found_by_their_beginnings_after_any_changes(
            changes in prop::collection::vec(("[ab/]{0,4}", any::<bool>()), 0..60),
            prefix in "[ab/]{0,3}",
        ) {
            let (mut keys, mut model) = (Keys::default(), BTreeMap::new());
            for (revision, (key, set)) in (1..).zip(&changes) {
                let key = Key::from(key.as_str());
                if *set {
                    keys.set(&key, &meta(revision));
                    model.insert(key, meta(revision));
                } else {
                    keys.remove(&key);
                    model.remove(&key);
                }
            }
            let expected: Vec<(Key, Meta)> = model.into_iter().collect();
            prop_assert_eq!(keys.iter().cloned().collect::<Vec<_>>(), expected.clone());
            let below = keys.below(&prefix);
            for (position, (key, meta)) in expected.iter().enumerate() {
                prop_assert_eq!(below.contains(&position), key.as_str().starts_with(&prefix));
                prop_assert_eq!(keys.meta(key), Some(meta));
            }
        }
    }
}
