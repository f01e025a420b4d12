//! Whose turn it is to open an inode that readers and writers cannot have at once: first come, first served.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn(u64);

/// Opens that wait for an inode, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Each with whether it writes.
    waiting: VecDeque<(Turn, bool)>,
    last: u64,
    /// When it was last opened.
    opened: Option<Instant>,
    /// When it was last opened for reading.
    read: Option<Instant>,
}

impl Turns {
    /// For so long an open waits for others to close the inode.
    pub(crate) const PATIENCE: Duration = Duration::from_millis(300);

    /// And for so long where one of them came within this time: a loaded machine may not have let him go on yet.
    const PATIENCE_WITH_NEW: Duration = Duration::from_secs(2);

    /// The end of the queue.
    pub(crate) fn take(&mut self, writes: bool) -> Turn {
        self.last += 1;
        self.waiting.push_back((Turn(self.last), writes));
        Turn(self.last)
    }

    /// It waits no more.
    pub(crate) fn leave(&mut self, turn: Turn) {
        self.waiting.retain(|(other, _)| *other != turn);
    }

    /// Whether all who came before can be let in at once with this open: readers with readers. One without a turn comes last.
    pub(crate) fn is_next(&self, turn: Option<Turn>, writes: bool) -> bool {
        let before = self.waiting.iter().take_while(|(other, _)| Some(*other) != turn);
        before.into_iter().all(|(_, other)| !other && !writes)
    }

    /// It is opened, by a reader or a writer.
    pub(crate) fn note_open(&mut self, reads: bool) {
        self.opened = Some(Instant::now());
        if reads {
            self.read = self.opened;
        }
    }

    /// For how long an open waits for those who have it open.
    pub(crate) fn patience(&self) -> Duration {
        let is_new = self.opened.is_some_and(|opened| opened.elapsed() < Self::PATIENCE_WITH_NEW);
        if is_new { Self::PATIENCE_WITH_NEW } else { Self::PATIENCE }
    }

    /// Whether it was opened for reading within this time.
    pub(crate) fn is_read_within(&self, time: Duration) -> bool {
        self.read.is_some_and(|read| read.elapsed() < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_has_just_opened_it_is_waited_for_longer_than_who_keeps_it() {
        let mut turns = Turns::default();
        turns.note_open(false);
        assert_eq!(turns.patience(), Turns::PATIENCE_WITH_NEW);
        tokio::time::advance(Turns::PATIENCE_WITH_NEW).await;
        assert_eq!(turns.patience(), Turns::PATIENCE);
    }

    #[test]
    fn readers_and_writers_come_in_turn() {
        let mut turns = Turns::default();
        assert!(turns.is_next(None, false) && turns.is_next(None, true));
        let [first, writer, second] = [false, true, false].map(|writes| turns.take(writes));
        assert!(turns.is_next(Some(first), false));
        assert!(!turns.is_next(Some(writer), true) && !turns.is_next(Some(second), false));
        turns.leave(first);
        assert!(turns.is_next(Some(writer), true) && !turns.is_next(Some(second), false));
        assert!(!turns.is_next(None, false) && !turns.is_next(None, true));
        turns.leave(writer);
        assert!(
            turns.is_next(Some(second), false) && turns.is_next(None, false) && !turns.is_next(None, true)
        );
    }
}
