//! What changed while directories are open: a listing that is read on must not bring back a name that is gone since.

use std::sync::Arc;

use crate::by_name::ByName;

/// Most names whose changes are told apart while directories are open.
const MOST: usize = 10_000;

/// Which names changed since when, for as long as a directory is open.
#[derive(Debug, Default)]
pub(crate) struct OpenListings {
    /// The count of changes when a name last changed.
    changed: ByName<String, u64>,
    /// The count of changes.
    count: u64,
    /// Up to this count it is not known any more which names changed.
    floor: u64,
    /// Shared with each open directory.
    open: Arc<()>,
}

impl OpenListings {
    /// The count of changes so far, and the mark of an open directory.
    pub(crate) fn open(&self) -> (u64, Arc<()>) {
        (self.count, self.open.clone())
    }

    /// `name` is not what the directories that are open now may say of it.
    pub(super) fn note(&mut self, name: &str) {
        if Arc::strong_count(&self.open) == 1 {
            self.changed.clear();
            return;
        }
        if self.changed.len() == MOST {
            // Whatever was opened before finds all names changed: then each is looked at, as it would be alone.
            self.changed.clear();
            self.floor = self.count;
        }
        self.count += 1;
        self.changed.insert(name.to_owned(), self.count);
    }

    /// All names may have changed.
    pub(super) fn note_all(&mut self) {
        self.count += 1;
        self.floor = self.count;
        self.changed.clear();
    }

    /// Whether `name` changed, for all that is known, since the count was `since`.
    pub(crate) fn changed_since(&self, name: &str, since: u64) -> bool {
        since < self.floor || self.changed.get(name).is_some_and(|change| *change > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_directory_never_takes_a_changed_name_for_an_unchanged_one_and_few_are_remembered() {
        let mut listings = OpenListings::default();
        let (before, _open) = listings.open();
        let name = |number: usize| number.to_string();
        for number in 0..2 * MOST + 10 {
            listings.note(&name(number));
            assert!(listings.changed.len() <= MOST);
        }
        assert!((0..2 * MOST + 10).all(|number| listings.changed_since(&name(number), before)));
        let (since, _) = listings.open();
        assert!(!(0..2 * MOST + 10).any(|number| listings.changed_since(&name(number), since)));
        listings.note("k");
        assert!(listings.changed_since("k", since) && !listings.changed_since("l", since));
    }
}
