//! A mount that is replaced while it lives: who begins something by path waits while its files are handed over to another
//! daemon, and is sent to look for them there then. What is open goes on being served here.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::store::Key;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nobody asks for it.
    Serving,
    /// Nobody begins anything new by path: what was begun comes to its end.
    Draining,
    /// Nothing is in this mount alone, and nothing comes to be. Who asked may put another mount in its place.
    Ready,
    /// Another mount is in its place.
    Replaced,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Serving, Self::Draining, Self::Ready, Self::Replaced];
}

/// One who waits, and may be sent to the other mount: his thread, and the key that he asks for, if the other mount might send
/// him to look again, too.
pub(crate) type Guest = Option<(u32, Key)>;

/// What one who waits hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The mount goes on.
    Stay,
    /// Another mount is in its place.
    Leave,
}

/// What becomes of one who comes.
#[derive(Debug)]
pub(crate) enum Queued {
    Hears(Verdict),
    Waits(oneshot::Receiver<Verdict>),
}

/// Who was sent to look again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    Thread(u32),
    /// One outside of the daemon's PID namespace, by what he asks for.
    Unknown(String),
}

#[derive(Debug, Default)]
struct Desk {
    /// The handle by which the other daemon asks.
    asker: Option<u64>,
    waiting: Vec<(Guest, oneshot::Sender<Verdict>)>,
    /// Of these the other daemon has been told.
    announced: Vec<oneshot::Sender<Verdict>>,
    /// What they ask for from then on is for this mount: they began it when it had lost its place.
    told: HashSet<Told>,
}

/// A change in flight that may leave something in this mount alone.
#[derive(Debug)]
pub struct Change(Arc<AtomicUsize>);

impl Drop for Change {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The phase, and those who wait. The lock of the tables comes before that of the desk.
#[derive(Debug, Default)]
pub(crate) struct HandOver {
    phase: AtomicU8,
    changes: Arc<AtomicUsize>,
    desk: Mutex<Desk>,
}

impl HandOver {
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::SeqCst))]
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    /// Counts a change, before the phase is looked at that lets it through.
    pub(crate) fn change(&self) -> Change {
        self.changes.fetch_add(1, Ordering::SeqCst);
        Change(self.changes.clone())
    }

    /// A change, where none has to wait.
    pub(crate) fn try_change(&self) -> Option<Change> {
        let change = self.change();
        (self.phase() == Phase::Serving).then_some(change)
    }

    /// Whether changes are in flight.
    pub(crate) fn changes(&self) -> bool {
        self.changes.load(Ordering::SeqCst) > 0
    }

    /// `guest` comes.
    pub(crate) fn queue(&self, guest: Guest) -> Queued {
        let mut desk = self.desk.lock();
        match self.phase() {
            Phase::Serving => Queued::Hears(Verdict::Stay),
            Phase::Replaced if desk.asker.is_none() => Queued::Hears(Verdict::Leave),
            Phase::Draining | Phase::Ready | Phase::Replaced => {
                let (sender, receiver) = oneshot::channel();
                desk.waiting.push((guest, sender));
                Queued::Waits(receiver)
            }
        }
    }

    /// Who holds the handle `asker` asks for the mount. False if somebody else does, or has it.
    pub(crate) fn claim(&self, asker: u64) -> bool {
        let mut desk = self.desk.lock();
        let free = desk.asker.is_none() && self.phase() == Phase::Serving;
        if free {
            desk.asker = Some(asker);
            self.enter(Phase::Draining);
        }
        free
    }

    /// Nothing is in this mount alone. The caller holds the lock of the tables.
    pub(crate) fn ready(&self, asker: u64) -> bool {
        let desk = self.desk.lock();
        let drained = desk.asker == Some(asker) && self.phase() == Phase::Draining;
        if drained {
            self.enter(Phase::Ready);
        }
        drained
    }

    /// Another mount is in the place of this one, as `asker` says. Sends those away of whom he was told the last time; tells
    /// him of those who have come since, as long as they [fit](Guest).
    pub(crate) fn next_guests(
        &self,
        asker: u64,
        mut fits: impl FnMut(&Guest) -> bool,
    ) -> Option<Vec<(u32, Key)>> {
        let mut desk = self.desk.lock();
        if desk.asker != Some(asker) || matches!(self.phase(), Phase::Serving | Phase::Draining) {
            return None;
        }
        self.enter(Phase::Replaced);
        send(desk.announced.drain(..), Verdict::Leave);
        let all = std::mem::take(&mut desk.waiting);
        let mut guests = Vec::new();
        for (guest, sender) in all {
            if fits(&guest) {
                desk.announced.push(sender);
                guests.extend(guest);
            } else {
                desk.waiting.push((guest, sender));
            }
        }
        Some(guests)
    }

    /// The handle is closed, or its question was answered by no: a mount that has its place goes on.
    pub(crate) fn end(&self, asker: u64) {
        let mut desk = self.desk.lock();
        if desk.asker != Some(asker) {
            return;
        }
        desk.asker = None;
        let verdict = if self.phase() == Phase::Replaced { Verdict::Leave } else { Verdict::Stay };
        if verdict == Verdict::Stay {
            self.enter(Phase::Serving);
        }
        let Desk { waiting, announced, .. } = &mut *desk;
        send(announced.drain(..).chain(waiting.drain(..).map(|(_, sender)| sender)), verdict);
    }

    /// Notes that this one is told to look again. False if he was before.
    pub(crate) fn tell(&self, who: Told) -> bool {
        self.desk.lock().told.insert(who)
    }

    pub(crate) fn is_told(&self, who: &Told) -> bool {
        self.desk.lock().told.contains(who)
    }
}

/// One whose deadline has passed hears nothing.
fn send(senders: impl Iterator<Item = oneshot::Sender<Verdict>>, verdict: Verdict) {
    senders.for_each(|sender| _ = sender.send(verdict));
}
