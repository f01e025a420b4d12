//! Removing a file.

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::parent;
use crate::fs::state::nodes::Body;
use crate::fs::state::predecessors::Predecessor;
use crate::fs::state::tables::State;
use crate::fs::state::unlinked::unlinked;
use crate::fs::types::{Caller, Ino};
use crate::store::Expect;

impl Fs {
    /// As [`Fs::unlink`], for all but the relay.
    pub(crate) async fn unlink_file(
        self: Arc<Self>,
        caller: Caller,
        within: Ino,
        name: String,
    ) -> FsResult<()> {
        let name = self.file(within, &name).await?;
        self.writable()?;
        let _removal = self.begin_removal(&name).await;
        let _staying = self.stay().await?;
        let deferred = |state: &State| {
            state.deferred_to(&name).or_else(|| state.deferred_by_others(&name, caller.thread))
        };
        let _operation = self.begin_after_renames(&[&name], deferred).await?;
        let writers = self.state.lock().writers(&name);
        let key = {
            let mut state = self.state.lock();
            if state
                .paths()
                .deferred_rename(&name)
                .is_some_and(|deferred| deferred.invisible_to(caller.thread))
            {
                return Err(FsError::NotFound);
            }
            match state.named(&name) {
                Some((_, inode)) if matches!(inode.body, Body::Local(_)) => {
                    unlinked(&mut state, &name);
                    state.keep_directory(parent(&name));
                    drop(state);
                    self.expire_attributes(writers);
                    return Ok(());
                }
                Some((_, inode)) => Some(inode.key.clone()),
                None => None,
            }
        };
        let key = match key {
            Some(key) => key,
            None => self.key_of(&name).await?.ok_or(FsError::NotFound)?,
        };
        let entry = self.cache.get_to_replace(&key).await?.ok_or(FsError::NotFound)?;
        let deleted = self.cache.delete_key(&key, Expect::Anything).await;
        if deleted.is_ok() {
            // `mv` from another filesystem deletes first and may then fail.
            if !entry.text.is_empty() {
                self.rejected.keep_deleted(&name, entry.text.clone());
            }
            let predecessor = Predecessor::new(caller.thread, key, entry.text);
            let mut state = self.state.lock();
            state.paths_mut().take_deferred_rename(&name);
            let attributes = state.paths().attributes(&name);
            unlinked(&mut state, &name);
            state.removed(&name, predecessor.map(|removed| removed.with(attributes)));
            // What it is in stays, so that it can be removed by who empties it.
            state.keep_directory(parent(&name));
            drop(state);
            self.expire_attributes(writers);
        }
        deleted.map(drop).map_err(FsError::from)
    }
}
