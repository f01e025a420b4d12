//! Removing a file.

use std::sync::Arc;

use super::inodes::{Body, Ino, State};
use super::names::parent;
use super::{Caller, Fs, FsError, FsResult};
use crate::store::Expect;

impl Fs {
    /// unlink(2): deletes the key, durably; a local file just goes. Who has the file open keeps it.
    pub async fn unlink(self: Arc<Self>, caller: Caller, within: Ino, name: String) -> FsResult<()> {
        let name = self.file(caller, within, &name).await?;
        if let Some(done) = self.herald_unlink(caller, &name) {
            return done;
        }
        self.writable()?;
        self.state.lock().make_last(&name);
        let _staying = self.moving.read().await;
        let _no_publish = self.local_gate(&name).await;
        let key = {
            let mut state = self.state.lock();
            if state.hidden.get(&name).is_some_and(|hidden| hidden.gone_for(caller.thread)) {
                return Err(FsError::NotFound);
            }
            match state.named(&name) {
                Some((_, inode)) if matches!(inode.body, Body::Local(_)) => {
                    unlinked(&mut state, &name);
                    state.keep_folder(parent(&name));
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
        self.hold_changes(&name);
        let deleted = self.cache.delete_key(&key, Expect::Anything).await;
        if deleted.is_ok() {
            // `mv` from another filesystem deletes first and may then fail.
            if !entry.text.is_empty() {
                self.aside.keep_deleted(&name, entry.text);
            }
            let mut state = self.state.lock();
            state.hidden.remove(&name);
            unlinked(&mut state, &name);
            // What it is in stays, so that it can be removed by who empties it.
            state.keep_folder(parent(&name));
        }
        self.release_changes(&name, deleted.clone().unwrap_or_default());
        deleted.map(drop).map_err(FsError::from)
    }
}

/// Takes the name out of the directory. Drafts that are open for it go nowhere any more.
pub(super) fn unlinked(state: &mut State, name: &str) {
    let State { inodes, drafts, .. } = state;
    for draft in drafts.values_mut() {
        if let Some(inode) = inodes.get_mut(&draft.ino).filter(|inode| inode.name == name) {
            draft.orphan = true;
            inode.unlinked = true;
        }
    }
    if let Some(ino) = state.names.get(name).copied() {
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.unlinked = true;
        }
        state.remove_name(name);
    }
    state.note_change(name);
    state.overrides.remove(name);
    state.unpublished.remove(name);
    state.touch(name);
}
