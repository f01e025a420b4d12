//! Proves that a cluster still has the history that it had, by keys as they were at earlier revisions.
//!
//! A cluster that was restored from a backup continues from that revision: it reaches every later revision again, with another
//! history. So the proof reads old versions, and does not compare revisions.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::wire::{Bytes, Pair};

/// How many of the last changes of the watch a proof reads again, one for each key.
const WATCHED: usize = 16;
/// How many of the newest versions in answers are kept; a proof also reads those that are ahead of the watch. Together with
/// [`WATCHED`] they fit into one transaction.
const SHOWN: usize = 64;
/// Most revisions that a watch may repeat: a server reads all of them at once.
const AGAIN: u64 = 10_000;

/// The state of a key from the revision `changed` on, until it changed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    key: Bytes,
    changed: u64,
    /// `None` for a deleted one.
    version: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    made: u64,
    /// How often it was set since then.
    sets: u64,
    value: u64,
}

impl Seen {
    pub(super) fn there(pair: &Pair, value: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let version = Version { made: pair.made, sets: pair.version, value: hasher.finish() };
        Self { key: pair.key.clone(), changed: pair.changed, version: Some(version) }
    }

    pub(super) fn gone(key: Bytes, changed: u64) -> Self {
        Self { key, changed, version: None }
    }
}

/// Recent versions in answers, which the watch may not have brought yet.
#[derive(Default)]
pub(super) struct Shown {
    newest: BTreeMap<(u64, Vec<u8>), Seen>,
    /// The newest revision that was dropped.
    dropped: u64,
}

impl Shown {
    /// Keeps what is among the newest.
    pub(super) fn note(&mut self, key: &[u8], changed: u64, seen: impl FnOnce() -> Seen) {
        let full = self.newest.len() == SHOWN;
        if full && self.newest.first_key_value().is_some_and(|((lowest, _), _)| changed < *lowest) {
            self.dropped = self.dropped.max(changed);
            return;
        }
        self.newest.entry((changed, key.to_vec())).or_insert_with(seen);
        if self.newest.len() > SHOWN
            && let Some(((dropped, _), _)) = self.newest.pop_first()
        {
            self.dropped = self.dropped.max(dropped);
        }
    }
}

/// The last changes of a watch.
#[derive(Default)]
pub(super) struct Witness {
    watched: VecDeque<Seen>,
}

impl Witness {
    pub(super) fn note(&mut self, seen: Seen) {
        self.watched.retain(|watched| watched.key != seen.key);
        self.watched.push_back(seen);
        if self.watched.len() > WATCHED {
            self.watched.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.watched.clear();
    }

    /// The revision after which a watch that is complete up to `complete` is to be opened again, so that it would bring changes of
    /// another history: that of its last change. `None` if that is long ago.
    pub(super) fn since(&self, complete: u64) -> Option<u64> {
        let last = self.watched.back()?.changed.min(complete);
        (complete - last <= AGAIN).then_some(last)
    }

    /// The proof for a watch that is complete up to `complete`. `None` if too little is known.
    pub(super) fn proof(&self, shown: &Shown, complete: u64) -> Option<Proof> {
        self.since(complete).filter(|_| shown.dropped <= complete)?;
        let ahead = shown.newest.range((complete + 1, Vec::new())..).map(|(_, seen)| seen);
        Some(Proof { complete, all: self.watched.iter().chain(ahead).cloned().collect() })
    }
}

/// A transaction of reads to which the same history has one answer.
pub(super) struct Proof {
    complete: u64,
    all: Vec<Seen>,
}

impl Proof {
    pub(super) fn question(&self) -> Value {
        let ask = |seen: &Seen| {
            let revision = seen.changed.max(self.complete).to_string();
            json!({"request_range": {"key": seen.key, "revision": revision}})
        };
        json!({"success": self.all.iter().map(ask).collect::<Vec<_>>()})
    }

    pub(super) fn holds(&self, found: impl Iterator<Item = Option<Pair>>) -> bool {
        let found: Vec<Option<Seen>> =
            found.map(|pair| pair.map(|pair| Seen::there(&pair, &pair.value.0))).collect();
        let same = |(seen, found): (&Seen, &Option<Seen>)| match &seen.version {
            Some(_) => found.as_ref() == Some(seen),
            None => found.is_none(),
        };
        found.len() == self.all.len() && self.all.iter().zip(&found).all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, changed: u64) -> Pair {
        Pair { key: Bytes(key.into()), made: 1, changed, version: changed, ..Pair::default() }
    }

    fn watched(changes: &[(&str, u64)]) -> Witness {
        let mut witness = Witness::default();
        for (key, changed) in changes {
            witness.note(Seen::there(&pair(key, *changed), b"1"));
        }
        witness
    }

    #[test]
    fn the_watch_begins_again_after_the_last_change_unless_that_is_long_ago() {
        assert_eq!(watched(&[]).since(5), None);
        assert_eq!(watched(&[("a", 3), ("b", 4)]).since(7), Some(4));
        // In the middle of a transaction.
        assert_eq!(watched(&[("a", 3), ("b", 4)]).since(3), Some(3));
        assert_eq!(watched(&[("a", 3)]).since(3 + AGAIN), Some(3));
        assert_eq!(watched(&[("a", 3)]).since(4 + AGAIN), None);
    }

    #[test]
    fn a_proof_asks_for_the_last_of_each_key_and_for_what_was_shown_beyond_it() {
        let (witness, mut shown) = (watched(&[("a", 3), ("b", 4), ("a", 5)]), Shown::default());
        for (key, changed) in [("b", 4), ("c", 2), ("c", 9)] {
            shown.note(key.as_bytes(), changed, || Seen::there(&pair(key, changed), b"1"));
        }
        shown.note(b"d", 8, || Seen::gone(Bytes(b"d".to_vec()), 8));
        let proof = witness.proof(&shown, 6).unwrap();
        let asked = proof.question()["success"].as_array().unwrap().clone();
        let revisions = asked.iter().map(|ask| ask["request_range"]["revision"].as_str().unwrap().to_owned());
        assert_eq!(revisions.collect::<Vec<_>>(), ["6", "6", "8", "9"]);
        let answers = |value: &str| {
            let pair = |key, changed| Some(Pair { value: Bytes(value.into()), ..pair(key, changed) });
            vec![pair("b", 4), pair("a", 5), None, pair("c", 9)]
        };
        assert!(proof.holds(answers("1").into_iter()));
        assert!(!proof.holds(answers("2").into_iter()));
        assert!(!proof.holds(answers("1").into_iter().take(3)));
        assert!(!proof.holds(answers("1").into_iter().map(|found| found.or(Some(pair("d", 8))))));
    }

    #[test]
    fn where_more_was_shown_than_is_kept_there_is_no_proof() {
        let (witness, mut shown) = (watched(&[("a", 3)]), Shown::default());
        for changed in 4..4 + SHOWN as u64 {
            shown.note(b"k", changed, || Seen::there(&pair("k", changed), b"1"));
        }
        assert!(witness.proof(&shown, 3).is_some());
        shown.note(b"k", 3, || unreachable!());
        assert!(witness.proof(&shown, 3).is_some());
        shown.note(b"k", 100, || Seen::there(&pair("k", 100), b"1"));
        assert!(witness.proof(&shown, 3).is_none() && witness.proof(&shown, 4).is_some());
    }
}
