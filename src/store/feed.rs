//! The queue between a store that pushes changes and their receiver. The store never waits: what is too much for the queue of a
//! slow receiver counts as missed.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Change;

/// Limit of changes in the queue.
const MOST: usize = 1 << 16;
/// Limit of the bytes of their keys.
const MOST_BYTES: usize = 16 << 20;
/// Limit of changes that are taken out at once.
const BATCH: usize = 1 << 10;

/// Both ends of a feed.
pub fn channel() -> (FeedSender, Feed) {
    let (wake, woken) = mpsc::channel(1);
    let queue = Arc::<Mutex<Queue>>::default();
    (FeedSender { queue: queue.clone(), wake }, Feed { queue, woken })
}

/// The end of a feed into which a store sends.
#[derive(Clone)]
pub struct FeedSender {
    queue: Arc<Mutex<Queue>>,
    wake: mpsc::Sender<()>,
}

impl FeedSender {
    /// Sends a change; without a receiver it goes nowhere.
    pub fn send(&self, change: Change) {
        self.queue.lock().push(change);
        // An error: the receiver is about to wake already, or dropped.
        _ = self.wake.try_send(());
    }

    /// Whether the receiver is dropped.
    pub fn is_closed(&self) -> bool {
        self.wake.is_closed()
    }

    /// Waits until the receiver is dropped.
    pub async fn closed(&self) {
        self.wake.closed().await;
    }
}

/// The changes of a store, in order per key. They end when all senders are dropped.
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

    /// The first changes in the queue, without waiting.
    pub fn take_waiting(&mut self) -> Vec<Change> {
        let mut queue = self.queue.lock();
        std::iter::from_fn(|| queue.pop()).take(BATCH).collect()
    }
}

#[derive(Default)]
struct Queue {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Whether [`Change::Paused`] was the last word of the sender.
    paused: bool,
}

impl Queue {
    fn push(&mut self, change: Change) {
        match change {
            Change::Paused => self.paused = true,
            Change::Resumed | Change::Everything => self.paused = false,
            Change::Set(..) | Change::Deleted(..) | Change::Prefix(..) => {}
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
    let prefix = if let Change::Prefix(prefix, ..) = change { Some(prefix) } else { None };
    change.key().or(prefix).map_or(0, |key| key.as_str().len())
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
    async fn changes_come_in_order_up_to_the_end() {
        let (sender, feed) = channel();
        let told: Vec<Change> = (0..3 * BATCH as u64).map(|revision| deleted("k", revision)).collect();
        told.iter().cloned().for_each(|change| sender.send(change));
        drop(sender);
        assert_eq!(all(feed).await, told);
    }

    #[tokio::test]
    async fn more_than_the_queue_holds_is_missed_and_what_follows_is_not() {
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
    async fn a_sender_learns_that_its_receiver_is_dropped() {
        let (sender, feed) = channel();
        assert!(!sender.is_closed());
        drop(feed);
        sender.closed().await;
        assert!(sender.is_closed());
    }
}
