//! Gates of names: whoever changes one has it alone, in the order in which it was asked for. While a directory is renamed
//! nobody changes any.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::by_name::ByName;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// One for each name that is in flight.
type Turns = Arc<Mutex<ByName<String, Turn>>>;

/// The gates of all names.
#[derive(Default)]
pub(crate) struct Gates {
    turns: Turns,
    /// Held for writing while a directory is renamed, for reading while the key of a file in one is changed. Comes before
    /// the gates of names.
    moving: RwLock<()>,
}

impl Gates {
    /// Keeps directories from being renamed, from now on.
    pub(crate) async fn stay(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read().await
    }

    /// As [`Gates::stay`]; `None` while one is renamed.
    pub(crate) fn try_stay(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.moving.try_read().ok()
    }

    /// Waits until nothing is changed, and keeps it so while a directory is renamed.
    pub(crate) async fn move_directory(&self) -> RwLockWriteGuard<'_, ()> {
        self.moving.write().await
    }

    /// Takes the gates of `names`, in order, so that no two callers ever wait for each other.
    pub(super) async fn pass(&self, names: impl IntoIterator<Item = String>) -> Vec<Gate> {
        let mut gates = Vec::new();
        for name in names.into_iter().collect::<BTreeSet<_>>() {
            gates.push(Gate::pass(&self.turns, name).await);
        }
        gates
    }
}

/// A place in the queue for a name, and the name itself once it is held.
pub(crate) struct Gate {
    turns: Turns,
    name: String,
    turn: Option<Turn>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Gate {
    async fn pass(turns: &Turns, name: String) -> Self {
        let turn = turns.lock().entry(name.clone()).or_default().clone();
        let mut gate = Self { turns: turns.clone(), name, turn: Some(turn.clone()), held: None };
        gate.held = Some(turn.lock_owned().await);
        gate
    }

    /// The name that is held.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.held = None;
        let mut turns = self.turns.lock();
        self.turn = None;
        // Nobody waits for it.
        if turns.get(&self.name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.name);
        }
    }
}
