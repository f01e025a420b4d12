//! Renaming a directory: all keys in it at once, or none. Where the store cannot, the answer is EXDEV, and mv(1) copies.

use std::sync::Arc;

use crate::cache::Keys;
use crate::fs::core::Fs;
use crate::fs::ops::rename::RENAME_TRIES;
use crate::fs::ops::resolve::Resolved;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{Decoded, is_inside, parent};
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::types::{Caller, Ino};
use crate::store;
use crate::store::{Deadline, Key, Meta, Rename};

/// The mark of a directory that is being renamed, for as long as it is.
struct MoveMark<'a>(&'a Fs);

impl<'a> MoveMark<'a> {
    fn set(fs: &'a Fs, from: &str) -> Self {
        fs.state.lock().set_moving(Some(from.to_owned()));
        Self(fs)
    }
}

impl Drop for MoveMark<'_> {
    fn drop(&mut self) {
        self.0.state.lock().set_moving(None);
    }
}

impl Fs {
    /// rename(2) of the directory at `from`. The kernel takes along all that it knows to be in it.
    pub(crate) async fn rename_directory(
        self: &Arc<Self>,
        caller: Caller,
        from: String,
        (within, name): (Ino, &str),
        no_replace: bool,
    ) -> FsResult<()> {
        let to = self.directory_target(caller, &from, (within, name), no_replace).await?;
        if to == from {
            return Ok(());
        }
        self.check_directory(&to)?;
        // Nothing in it is published, removed or renamed meanwhile.
        let _moving = Deadline::wait(self.gates.move_directory()).await?;
        self.carry_out_in(&from).await?;
        let _mark = MoveMark::set(self, &from);
        self.move_all(&from, &to).await
    }

    async fn move_all(self: &Arc<Self>, from: &str, to: &str) -> FsResult<()> {
        let mut tries = 0;
        loop {
            let keys = self.keys().await?.value;
            let renames = self.renames(from, to, &keys)?;
            self.check_none_stays(from, &keys).await?;
            match self.rename_all(from, to, &renames).await {
                Ok(()) => return Ok(()),
                // Set by somebody else since; the new value is renamed then.
                Err(store::Error::Changed) if tries < RENAME_TRIES => tries += 1,
                // Somebody else has set a key in the directory that was not there.
                Err(store::Error::Exists) => return Err(FsError::NotEmpty),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether all that is in the directory can be renamed: what no file shows would stay behind unnoticed.
    async fn check_none_stays(&self, from: &str, keys: &Keys) -> FsResult<()> {
        let Some(start) = self.prefix(from, keys) else { return Ok(()) };
        match self.cache.count_left_out(&Key::from(start)).await? {
            0 => Ok(()),
            count => Err(store::Error::Invalid(format!(
                "keys whose names are not UTF-8, which no file shows, would stay behind in the directory: {count}; rename or \
                 delete them first"
            ))
            .into()),
        }
    }

    /// The path that `name` in the directory `within` is, if a directory can be renamed to it.
    async fn directory_target(
        self: &Arc<Self>,
        caller: Caller,
        from: &str,
        (within, name): (Ino, &str),
        no_replace: bool,
    ) -> FsResult<String> {
        let _staying = self.stay().await?;
        let place = self.place(within, name).await?;
        if let Resolved::Directory(path, _) = &place
            && path != from
            && !no_replace
        {
            self.finish_renames(caller, path).await?;
        }
        let keys = self.keys().await?.value;
        match place {
            Resolved::Directory(path, _) if path == from => Ok(path),
            Resolved::Directory(..) if no_replace => Err(FsError::Exists),
            Resolved::Directory(path, _) if self.has_keys(&path, &keys) => Err(FsError::NotEmpty),
            Resolved::Directory(path, _) if self.state.lock().is_inhabited(&path) => Err(FsError::NotEmpty),
            Resolved::Directory(path, _) => Ok(path),
            Resolved::File(path) => {
                let key = self.key_of(&path).await?;
                let state = self.state.lock();
                let there = key.is_some_and(|key| {
                    keys.meta(&key).is_some() && state.paths().deferred_rename(&path).is_none()
                });
                match there || state.paths().current(&path).is_some() {
                    true if no_replace => Err(FsError::Exists),
                    true => Err(FsError::NotDirectory),
                    false => Ok(path),
                }
            }
            Resolved::Nothing(_) => Err(FsError::BadName),
        }
    }

    /// What becomes of each key in the directory.
    fn renames(&self, from: &str, to: &str, keys: &Keys) -> FsResult<Vec<Rename>> {
        let Some(old) = self.prefix(from, keys) else { return Ok(Vec::new()) };
        let Decoded::Key(new) = self.settings.names.decode_directory(to) else {
            return Err(FsError::BadName);
        };
        let limits = self.cache.limits();
        let inside = keys.below(&old).filter_map(|position| keys.at(position));
        inside
            .map(|(key, meta)| {
                let to = Key::from(format!("{new}{}", &key.as_str()[old.len()..], new = new.as_str()));
                limits.check_key(&to)?;
                Ok(Rename { from: key.clone(), to, at: meta.revision })
            })
            .collect()
    }

    async fn rename_all(self: &Arc<Self>, from: &str, to: &str, renames: &[Rename]) -> store::Result<()> {
        let keys = renames.iter().flat_map(|rename| [rename.from.clone(), rename.to.clone()]);
        let _operation = self.begin_of(keys.collect()).await?;
        let moved = self.moved_prefix(from, to);
        let result = if renames.is_empty() && moved.is_none() {
            Ok(Vec::new())
        } else {
            store::with_moved_prefix(moved, self.cache.rename_keys(renames)).await
        };
        if let Ok(metas) = &result {
            self.moved(from, to, renames, metas);
        }
        result.map(drop)
    }

    /// Takes in that all that was in `from` is in `to`.
    fn moved(self: &Arc<Self>, from: &str, to: &str, renames: &[Rename], metas: &[Meta]) {
        let names = &self.settings.names;
        let mut state = self.state.lock();
        state.forget_stored(to);
        state.remove_directory(to);
        state.move_directory(from, to);
        let mut invalidations = [PathInvalidation::of_name(from), PathInvalidation::of_name(to)].concat();
        for (rename, meta) in renames.iter().zip(metas) {
            let (old, new) = (names.encode(&rename.from), names.encode(&rename.to));
            invalidations.extend(state.renamed_key(&old, &new, &rename.to, rename.at, meta));
        }
        let inside = |(path, ino): (&str, Ino)| is_inside(path, from).then(|| (path.to_owned(), ino));
        let locals: Vec<_> = state.locals().filter_map(inside).collect();
        for (path, ino) in locals {
            let new = format!("{to}{}", &path[from.len()..]);
            let key = match names.decode(new.as_ref()) {
                Decoded::Key(key) => key,
                Decoded::Alias | Decoded::Foreign | Decoded::Impossible => Key::from(new.as_str()),
            };
            state.move_name(ino, &path, &new, &key);
        }
        state.keep_directory(parent(from));
        state.keep_directory(parent(to));
        drop(state);
        self.invalidate_later(invalidations);
    }
}
