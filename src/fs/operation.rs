//! One guard per change: an operation is alone with the names that it changes, from before it looks at them until what it
//! left is taken in. It lets go of them when it is dropped, however it ends.

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::gates::Gate;
use crate::fs::rules::error::FsResult;
use crate::fs::types::Ino;
use crate::store::Revision;

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
            self.fs.end_change(gate.name(), self.own);
        }
    }
}

impl Fs {
    /// Begins a change of `names`, once no other one of any of them is in flight.
    pub(crate) async fn begin(self: &Arc<Self>, names: impl IntoIterator<Item = String>) -> Operation {
        let gates = self.gates.pass(names).await;
        let mut state = self.state.lock();
        for gate in &gates {
            state.begin_change(gate.name());
        }
        drop(state);
        Operation { fs: self.clone(), gates, own: Revision::default() }
    }

    /// Begins a change of a file by its inode, whatever its name is by the time that no other change of it is in flight.
    pub(crate) async fn begin_at(self: &Arc<Self>, ino: Ino) -> FsResult<(Operation, String)> {
        loop {
            let name = self.state.lock().inode(ino)?.name.clone();
            let gates = self.gates.pass([name.clone()]).await;
            let mut state = self.state.lock();
            if state.inode(ino)?.name == name {
                state.begin_change(&name);
                drop(state);
                return Ok((Operation { fs: self.clone(), gates, own: Revision::default() }, name));
            }
        }
    }
}
