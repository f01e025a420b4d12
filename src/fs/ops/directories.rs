//! mkdir(2) and rmdir(2).

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::ops::resolve::Resolved;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{Decoded, base, parent};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::types::{Caller, Found, Ino};

impl Fs {
    /// As [`Fs::make_directory`], for all but the relay.
    pub(crate) async fn make_empty_directory(
        self: Arc<Self>,
        caller: Caller,
        within: Ino,
        name: String,
        mode: u32,
    ) -> FsResult<Found> {
        if !self.settings.names.has_directories() {
            return Err(FsError::Flat);
        }
        let _staying = self.stay().await?;
        let path = match self.place(within, &name).await? {
            Resolved::File(path) if base(&path) == name => path,
            Resolved::File(_) | Resolved::Directory(..) => return Err(FsError::Exists),
            Resolved::Nothing(_) => return Err(FsError::BadName),
        };
        self.writable()?;
        self.check_directory(&path)?;
        let keys = self.keys().await?;
        let key = self.key_of(&path).await?;
        let attributes = {
            let mut state = self.state.lock();
            let there = key.is_some_and(|key| {
                keys.value.meta(&key).is_some() && state.paths().deferred_rename(&path).is_none()
            });
            if there || state.paths().current(&path).is_some() {
                return Err(FsError::Exists);
            }
            self.room_for_name(&mut state)?;
            self.attributes_of_new(&state, &path, caller, mode, true)
        };
        let attributes = self.keep_new_directory(&path, attributes).await?;
        let mut state = self.state.lock();
        if state.paths().current(&path).is_some() {
            return Err(FsError::Exists);
        }
        state.keep_directory(&path);
        let now = state.now();
        state.edit_directory(&path, |directory| {
            directory.set = attributes;
            directory.touch(now);
        });
        state.note_change(&path);
        state.touch(&path);
        let ttl = self.listing_ttl();
        Ok(self.found_directory(&mut state, &path, ttl))
    }

    /// Whether keys can be in a directory at `path`.
    pub(crate) fn check_directory(&self, path: &str) -> FsResult<()> {
        let Decoded::Key(prefix) = self.settings.names.decode_directory(path) else {
            return Err(FsError::BadName);
        };
        Ok(self.cache.limits().check_key(&prefix)?)
    }

    /// As [`Fs::remove_directory`], for all but the relay.
    pub(crate) async fn remove_empty_directory(
        self: Arc<Self>,
        caller: Caller,
        within: Ino,
        name: String,
    ) -> FsResult<()> {
        let _staying = self.stay().await?;
        let path = match self.place(within, &name).await? {
            Resolved::Directory(path, _) => path,
            Resolved::File(path) => {
                let there = self.state.lock().paths().current(&path).is_some();
                return Err(if there { FsError::NotDirectory } else { FsError::NotFound });
            }
            Resolved::Nothing(_) => return Err(FsError::NotFound),
        };
        self.writable()?;
        self.finish_renames(caller, &path).await?;
        let keys = self.keys().await?.value;
        let has_keys = self.has_keys(&path, &keys);
        if has_keys || self.state.lock().is_inhabited(&path) {
            return Err(FsError::NotEmpty);
        }
        self.keep_no_directory(&path).await?;
        let mut state = self.state.lock();
        state.remove_directory(&path);
        state.keep_directory(parent(&path));
        state.touch(&path);
        drop(state);
        self.invalidate_later(PathInvalidation::of_name(&path));
        Ok(())
    }
}
