//! Gates of names: whoever changes one has it alone, in the order in which it was asked for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// One for each name that is in flight.
#[derive(Clone, Default)]
pub(crate) struct Gates(Arc<Mutex<HashMap<String, Turn>>>);

impl Gates {
    /// Takes the gates of `names`, in order, so that no two callers ever wait for each other.
    pub(super) async fn pass(&self, names: impl IntoIterator<Item = String>) -> Vec<Gate> {
        let mut gates = Vec::new();
        for name in names.into_iter().collect::<BTreeSet<_>>() {
            gates.push(Gate::pass(self, name).await);
        }
        gates
    }
}

/// A place in the queue for a name, and the name itself once it is held.
pub(crate) struct Gate {
    gates: Gates,
    name: String,
    turn: Option<Turn>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Gate {
    async fn pass(gates: &Gates, name: String) -> Self {
        let turn = gates.0.lock().entry(name.clone()).or_default().clone();
        let mut gate = Self { gates: gates.clone(), name, turn: Some(turn.clone()), held: None };
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
        let mut gates = self.gates.0.lock();
        self.turn = None;
        // Nobody waits for it.
        if gates.get(&self.name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            gates.remove(&self.name);
        }
    }
}
