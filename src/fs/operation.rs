//! One guard per change: an operation is alone with the names that it changes, from before it looks at them until what it
//! left is taken in. It lets go of them when it is dropped, however it ends.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::fs::core::Fs;
use crate::fs::rules::error::FsResult;
use crate::fs::types::Ino;
use crate::store::Revision;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// One for each name that is in flight, in the order in which it was asked for.
#[derive(Default)]
pub(crate) struct Gates(Mutex<HashMap<String, Turn>>);

/// A place in the queue for a name, and the name itself once it is held.
struct Gate {
    fs: Arc<Fs>,
    name: String,
    turn: Option<Turn>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Gate {
    async fn pass(fs: &Arc<Fs>, name: String) -> Self {
        let turn = fs.gates.0.lock().entry(name.clone()).or_default().clone();
        let mut gate = Self { fs: fs.clone(), name, turn: Some(turn.clone()), held: None };
        gate.held = Some(turn.lock_owned().await);
        gate
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.held = None;
        let mut gates = self.fs.gates.0.lock();
        self.turn = None;
        // Nobody waits for it.
        if gates.get(&self.name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            gates.remove(&self.name);
        }
    }
}

/// A change of some names that is in flight: what the store tells of them is withheld until it is dropped.
///
/// Whoever waits for one may hold the lock of a directory, for which an invalidation waits: it is dropped before the
/// kernel is waited for.
pub(crate) struct Operation {
    fs: Arc<Fs>,
    gates: Vec<Gate>,
    own: Revision,
}

impl Operation {
    /// The change was made, as this version: what the store tells of older ones is known.
    pub(crate) fn made(&mut self, revision: Revision) {
        self.own = self.own.max(revision);
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        for gate in &self.gates {
            self.fs.end_change(&gate.name, self.own);
        }
    }
}

impl Fs {
    /// Begins a change of `names`, once no other one of any of them is in flight.
    pub(crate) async fn begin(self: &Arc<Self>, names: impl IntoIterator<Item = String>) -> Operation {
        let gates = self.pass(names).await;
        let mut state = self.state.lock();
        for gate in &gates {
            state.begin_change(&gate.name);
        }
        drop(state);
        Operation { fs: self.clone(), gates, own: Revision::default() }
    }

    /// Begins a change of a file by its inode, whatever its name is by the time that no other change of it is in flight.
    pub(crate) async fn begin_at(self: &Arc<Self>, ino: Ino) -> FsResult<(Operation, String)> {
        loop {
            let name = self.state.lock().inode(ino)?.name.clone();
            let gates = self.pass([name.clone()]).await;
            let mut state = self.state.lock();
            if state.inode(ino)?.name == name {
                state.begin_change(&name);
                drop(state);
                return Ok((Operation { fs: self.clone(), gates, own: Revision::default() }, name));
            }
        }
    }

    /// Takes the gates of `names`, in order, so that no two operations ever wait for each other.
    async fn pass(self: &Arc<Self>, names: impl IntoIterator<Item = String>) -> Vec<Gate> {
        let mut gates = Vec::new();
        for name in names.into_iter().collect::<BTreeSet<_>>() {
            gates.push(Gate::pass(self, name).await);
        }
        gates
    }
}
