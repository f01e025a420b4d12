//! One guard per change: an operation is alone with the names that it changes, from before it looks at them until what it
//! left is taken in. It lets go of them when it is dropped, however it ends.

use std::sync::Arc;

use crate::cache::Hold;
use crate::fs::core::Fs;
use crate::fs::gates::Gate;
use crate::fs::rules::error::FsResult;
use crate::fs::types::Ino;
use crate::store;
use crate::store::{Deadline, Key};

/// A change of some names that is in flight: the cache withholds what the store tells of their keys until it is dropped.
///
/// Whoever waits for one may hold the lock of a directory, for which an invalidation waits: it is dropped before the
/// kernel is waited for.
#[must_use]
pub(crate) struct Operation {
    _hold: Hold,
    _gates: Vec<Gate>,
}

impl Fs {
    /// Begins a change of `names`, once no other one of any of them is in flight. A caller that does not get its turn by its
    /// deadline has changed nothing.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        names: impl IntoIterator<Item = String>,
    ) -> store::Result<Operation> {
        let gates = Deadline::wait(self.gates.pass(names)).await?;
        let mut keys = Vec::new();
        for gate in &gates {
            // An error is that of the operation, too.
            keys.extend(self.key_of(gate.name()).await.ok().flatten());
        }
        Ok(Operation { _hold: self.cache.hold(keys), _gates: gates })
    }

    /// As [`Fs::begin`], of the files of `keys`.
    pub(crate) async fn begin_of(self: &Arc<Self>, keys: Vec<Key>) -> store::Result<Operation> {
        let names = keys.iter().map(|key| self.settings.names.encode(key));
        let gates = Deadline::wait(self.gates.pass(names)).await?;
        Ok(Operation { _hold: self.cache.hold(keys), _gates: gates })
    }

    /// Begins a change of a file by its inode, whatever its name is by the time that no other change of it is in flight.
    pub(crate) async fn begin_at(self: &Arc<Self>, ino: Ino) -> FsResult<(Operation, String)> {
        loop {
            let name = self.state.lock().inode(ino)?.name.clone();
            let gates = Deadline::wait(self.gates.pass([name.clone()])).await?;
            let state = self.state.lock();
            let inode = state.inode(ino)?;
            if inode.name == name {
                let hold = self.cache.hold(vec![inode.key.clone()]);
                return Ok((Operation { _hold: hold, _gates: gates }, name));
            }
        }
    }
}
