//! The queue between a store that tells of changes and the one who listens. The store never waits: where too much is waiting
//! for a slow listener, all of that counts as missed.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Change;

/// Most changes that wait.
const MOST: usize = 1 << 16;
/// Most bytes of their keys.
const MOST_BYTES: usize = 16 << 20;
/// Most changes that are taken at once.
const BATCH: usize = 1 << 10;

/// Both ends of a feed.
pub fn channel() -> (FeedSender, Feed) {
    let (wake, woken) = mpsc::channel(1);
    let queue = Arc::<Mutex<Queue>>::default();
    (FeedSender { queue: queue.clone(), wake }, Feed { queue, woken })
}

/// Where a store tells of changes.
#[derive(Clone)]
pub struct FeedSender {
    queue: Arc<Mutex<Queue>>,
    wake: mpsc::Sender<()>,
}

impl FeedSender {
    /// Tells of a change. Where nobody listens any more it goes nowhere.
    pub fn send(&self, change: Change) {
        self.queue.lock().push(change);
        // An error: the listener is about to wake already, or gone.
        _ = self.wake.try_send(());
    }

    /// Whether nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.wake.is_closed()
    }

    /// Waits until nobody listens any more.
    pub async fn closed(&self) {
        self.wake.closed().await;
    }
}

/// What a store tells, in order per key. It ends when all its senders are gone.
pub struct Feed {
    queue: Arc<Mutex<Queue>>,
    woken: mpsc::Receiver<()>,
}

impl Feed {
    /// The next change, once there is one; `None` at the end of the feed.
    pub async fn recv(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.queue.lock().pop() {
                return Some(change);
            }
            self.woken.recv().await?;
        }
    }

    /// The changes that wait now, but not more than are to be taken in at once.
    pub fn take_waiting(&mut self) -> Vec<Change> {
        let mut queue = self.queue.lock();
        std::iter::from_fn(|| queue.pop()).take(BATCH).collect()
    }
}

#[derive(Default)]
struct Queue {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Whether changes are not told at the end of the queue.
    paused: bool,
}

impl Queue {
    fn push(&mut self, change: Change) {
        match change {
            Change::Paused => self.paused = true,
            Change::Resumed | Change::Everything => self.paused = false,
            Change::Set(..) | Change::Deleted(..) => {}
        }
        self.bytes += size(&change);
        self.changes.push_back(change);
        if self.changes.len() > MOST || self.bytes > MOST_BYTES {
            self.bytes = 0;
            self.changes.clear();
            self.changes.push_back(Change::Everything);
            self.changes.extend(self.paused.then_some(Change::Paused));
        }
    }

    fn pop(&mut self) -> Option<Change> {
        let change = self.changes.pop_front()?;
        self.bytes -= size(&change);
        Some(change)
    }
}

/// The bytes of its key.
fn size(change: &Change) -> usize {
    change.key().map_or(0, |key| key.as_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;

    fn deleted(key: &str, revision: u64) -> Change {
        Change::Deleted(key.into(), Revision(revision))
    }

    async fn all(mut feed: Feed) -> Vec<Change> {
        let mut all = Vec::new();
        while let Some(change) = feed.recv().await {
            all.push(change);
            all.extend(feed.take_waiting());
        }
        all
    }

    #[tokio::test]
    async fn what_is_told_comes_in_order_up_to_the_end() {
        let (sender, feed) = channel();
        let told: Vec<Change> = (0..3 * BATCH as u64).map(|revision| deleted("k", revision)).collect();
        told.iter().cloned().for_each(|change| sender.send(change));
        drop(sender);
        assert_eq!(all(feed).await, told);
    }

    #[tokio::test]
    async fn more_than_may_wait_is_missed_and_what_follows_is_told() {
        let long = "k".repeat(1 << 20);
        for (key, most) in [("k", MOST), (&long, MOST_BYTES >> 20)] {
            let (sender, feed) = channel();
            (0..=most as u64).for_each(|revision| sender.send(deleted(key, revision)));
            sender.send(deleted("last", 1));
            drop(sender);
            assert_eq!(all(feed).await, [Change::Everything, deleted("last", 1)]);
        }
    }

    #[tokio::test]
    async fn a_feed_that_is_paused_stays_so_when_changes_are_missed() {
        let (sender, feed) = channel();
        sender.send(Change::Paused);
        (0..MOST as u64).for_each(|revision| sender.send(deleted("k", revision)));
        sender.send(Change::Resumed);
        drop(sender);
        assert_eq!(all(feed).await, [Change::Everything, Change::Paused, Change::Resumed]);
    }

    #[tokio::test]
    async fn a_sender_learns_that_nobody_listens() {
        let (sender, feed) = channel();
        assert!(!sender.is_closed());
        drop(feed);
        sender.closed().await;
        assert!(sender.is_closed());
    }
}
