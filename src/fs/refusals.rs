//! What was refused of late, why, and where the text is kept: for `user.kvfs.last_error` and `kvfs why`.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::fs::rules::error::FsError;
use crate::logging;

/// How many are remembered.
const MOST: usize = 100;
/// How much of a reason is: a server may say anything.
const REASON: usize = 1_000;

/// What became of a text that could not be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is in this file.
    In(PathBuf),
    /// It is lost, for this reason.
    Lost(String),
}

/// Something that was refused, and that a person may want to hear of.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Path of the file.
    pub name: String,
    /// The error, if a program was told of one.
    pub error: Option<FsError>,
    /// Why, in words.
    pub reason: String,
    /// What became of the text, if there was one.
    pub kept: Option<Kept>,
    /// When.
    pub at: SystemTime,
    /// For its age.
    since: Instant,
}

/// The last ones, the newest at the end.
#[derive(Default)]
pub(crate) struct Refusals(VecDeque<Refusal>);

impl Refusals {
    /// The last one.
    pub(super) fn last(&self) -> Option<&Refusal> {
        self.0.back()
    }

    /// All, the newest at the end.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Refusal> {
        self.0.iter()
    }

    /// What was refused of `name` for this reason has another one now, and is not told apart from what is refused for that.
    pub(crate) fn reword(&mut self, name: &str, reason: &str, new: &str) {
        let [reason, new] = [reason, new].map(shortened);
        let told = self.0.iter_mut().rfind(|known| known.name == name && known.reason == reason);
        if let Some(told) = told {
            told.reason = new;
        }
    }

    /// Remembers one. A write(2) that fails is told of at each close as well, and then its text is kept: that is one, of the time
    /// when a program was told of it last.
    pub(crate) fn add(
        &mut self,
        name: &str,
        error: Option<FsError>,
        reason: &str,
        kept: Option<Kept>,
        at: SystemTime,
    ) {
        let reason = shortened(reason);
        let told = |known: &Refusal| known.name == name && known.reason == reason && known.kept.is_none();
        let position = self.0.iter().rposition(told);
        if kept.is_some()
            && let Some(told) = position.and_then(|position| self.0.get_mut(position))
        {
            told.kept = kept;
            return;
        }
        let told = position.and_then(|position| self.0.remove(position));
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(Refusal {
            name: name.to_owned(),
            error: error.or_else(|| told?.error),
            reason,
            kept,
            at,
            since: Instant::now(),
        });
    }
}

fn shortened(reason: &str) -> String {
    logging::shown(reason).chars().take(REASON).collect()
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)?;
        match &self.kept {
            Some(Kept::In(path)) => write!(f, "; the text is kept in {}", path.display())?,
            Some(Kept::Lost(why)) => write!(f, "; the text could not be kept: {why}")?,
            None => {}
        }
        write!(f, " ({:?}, {} s ago)", self.name, self.since.elapsed().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn one_refusal_that_is_told_of_several_times_is_one_and_the_oldest_of_too_many_go() {
        let mut refusals = Refusals::default();
        let kept = |number: usize| Some(Kept::In(number.to_string().into()));
        for number in 0..2 {
            refusals.add("k", Some(FsError::ReadOnly), "why", None, NOW);
            refusals.add("other", Some(FsError::ReadOnly), "why", None, NOW);
            refusals.add("k", Some(FsError::ReadOnly), "why", None, NOW);
            refusals.add("k", None, "why", kept(number), NOW);
        }
        let all: Vec<_> =
            refusals.0.iter().map(|one| (one.name.as_str(), one.error.is_some(), one.kept.clone())).collect();
        assert_eq!(all, [("k", true, kept(0)), ("other", true, None), ("k", true, kept(1))]);
        refusals.add("late", None, "why", kept(2), NOW);
        assert_eq!(refusals.0.back().map(|one| one.name.as_str()), Some("late"));
        for number in 0..2 * MOST {
            refusals.add(&number.to_string(), None, &"é".repeat(2 * REASON), None, NOW);
        }
        assert_eq!((refusals.0.len(), refusals.0[0].name.as_str()), (MOST, "100"));
        assert!(refusals.0.iter().all(|one| one.reason.chars().count() == REASON));
    }
}
