//! Directories: what a name in one of them stands for, and the directories that are made and removed.
//!
//! A directory is there while a key is below it. One that was made here, or that something was removed from here, stays
//! for the life of the mount, until it is removed. A key that is also a directory gives its name to the directory; its
//! own file is `…%(value)` beside it, and nowhere else: the tables know it by its path all the same.

use std::time::Duration;

use crate::cache::{Answer, Keys};
use crate::fs::core::Fs;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{Decoded, NAME_MAX, ancestors, base, is_alias, join, parent, value_name};
use crate::fs::state::directory::Presence;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::tables::State;
use crate::fs::types::{Found, Ino};
use crate::store::{Deadline, Key};

/// What a name in a directory stands for, by its path.
pub(crate) enum Resolved {
    /// A directory that is there, and for how long that is good.
    Directory(String, Duration),
    /// A file, whether it is there or not.
    File(String),
    /// Nothing can be there now, and for how long that is good.
    Nothing(Duration),
}

impl Fs {
    /// What `name` in the directory `within` stands for.
    pub(crate) async fn place(&self, within: Ino, name: &str) -> FsResult<Resolved> {
        let path = self.path(within, name)?;
        if !self.settings.names.has_directories() {
            return Ok(Resolved::File(path));
        }
        let keys = self.keys().await?;
        self.check_there(&path, &keys.value)?;
        Ok(self.place_among(path, &keys))
    }

    /// Whether the directory that `path` is in is there.
    fn check_there(&self, path: &str, keys: &Keys) -> FsResult<()> {
        if self.is_directory(parent(path), keys) { Ok(()) } else { Err(FsError::NotFound) }
    }

    /// As [`Fs::place`] by what is remembered, however old: the kernel has just looked there.
    pub(crate) fn known_place(&self, within: Ino, name: &str) -> FsResult<Resolved> {
        let path = self.path(within, name)?;
        if let Some(keys) = self.cache.last_keys() {
            self.check_there(&path, &keys.value)?;
        }
        Ok(self.remembered_place(path))
    }

    /// What a path stands for by what is remembered, however old.
    pub(crate) fn remembered_place(&self, path: String) -> Resolved {
        match self.cache.last_keys() {
            Some(keys) if self.settings.names.has_directories() => self.place_among(path, &keys),
            Some(_) | None => Resolved::File(path),
        }
    }

    fn place_among(&self, path: String, keys: &Answer<Keys>) -> Resolved {
        if self.is_directory(&path, &keys.value) {
            return Resolved::Directory(path, keys.ttl);
        }
        let Some(directory) = self.settings.names.of_value(&path) else { return Resolved::File(path) };
        match self.value_of(directory, &keys.value).filter(|path| self.is_directory(path, &keys.value)) {
            Some(path) => Resolved::File(path),
            None => Resolved::Nothing(keys.ttl),
        }
    }

    /// The path of the directory whose value is shown as `directory` and a suffix; `None` if it is an alias of none.
    fn value_of(&self, directory: &str, keys: &Keys) -> Option<String> {
        if !is_alias(base(directory)) {
            return Some(directory.to_owned());
        }
        let within = self.prefix(parent(directory), keys)?;
        let paths = keys.below(&within).filter_map(|position| keys.at(position));
        let wanted = |path: &String| {
            parent(path) == parent(directory) && value_name(base(path)).starts_with(base(directory))
        };
        paths.map(|(key, _)| self.settings.names.encode(key)).find(wanted)
    }

    /// The path by which a program finds the file at `path`.
    pub fn shown_path(&self, path: &str) -> String {
        let taken = |keys: Answer<Keys>| {
            self.settings.names.has_directories() && self.is_directory(path, &keys.value)
        };
        if self.cache.last_keys().is_some_and(taken) {
            return join(parent(path), &value_name(base(path)));
        }
        path.to_owned()
    }

    /// Waits for the end of the rename of the directory that `path` is in, or is, if it is being renamed. False if it is not,
    /// and has not been since the inode `within` was there.
    pub(crate) async fn await_move(&self, within: Ino, path: &str) -> FsResult<bool> {
        let (moving, now) = {
            let state = self.state.lock();
            (state.is_moving(path), state.directory_path(within))
        };
        if moving {
            drop(Deadline::wait(self.gates.stay()).await?);
        }
        Ok(moving || now.is_ok_and(|now| now != path))
    }

    /// The path of the file that `name` in the directory `within` stands for.
    pub(crate) async fn file(&self, within: Ino, name: &str) -> FsResult<String> {
        match self.place(within, name).await? {
            Resolved::File(path) => Ok(path),
            Resolved::Directory(..) => Err(FsError::IsDirectory),
            Resolved::Nothing(_) => Err(FsError::NotFound),
        }
    }

    /// `name` in the directory `within`, as a path.
    pub(crate) fn path(&self, within: Ino, name: &str) -> FsResult<String> {
        if name.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        Ok(join(&self.state.lock().directory_path(within)?, name))
    }

    pub(crate) async fn keys(&self) -> FsResult<Answer<Keys>> {
        Ok(self.cache.list_keys().await?)
    }

    /// Whether there is a directory at `path`.
    pub(crate) fn is_directory(&self, path: &str, keys: &Keys) -> bool {
        path.is_empty() || self.state.lock().keeps(path) || self.has_keys(path, keys)
    }

    /// Whether there is a directory at `path`, for all that is remembered.
    pub(crate) fn is_directory_there(&self, state: &State, path: &str) -> bool {
        match state.directory(path).map(|directory| directory.presence) {
            Some(Presence::Kept) => true,
            presence => match self.cache.peek_keys() {
                Some(keys) => self.has_keys(path, &keys.value),
                None => presence != Some(Presence::Gone),
            },
        }
    }

    /// What all keys in the directory at `path` start with; `None` if no key can be in it.
    pub(crate) fn prefix(&self, path: &str, keys: &Keys) -> Option<String> {
        let names = &self.settings.names;
        match names.decode_directory(path) {
            _ if path.is_empty() => Some(String::new()),
            Decoded::Key(prefix) => Some(prefix.as_str().to_owned()),
            Decoded::Foreign | Decoded::Impossible => None,
            Decoded::Alias => {
                let within = |key: &Key| names.encode(key).strip_prefix(path)?.strip_prefix('/').map(drop);
                let (key, _) = keys.iter().find(|(key, _)| within(key).is_some())?;
                let separator = names.separator();
                let parts = key.as_str().match_indices(separator).nth(path.matches('/').count())?;
                Some(key.as_str()[..parts.0 + separator.len()].to_owned())
            }
        }
    }

    /// The directory at `path`, counted as one more reference of the kernel.
    pub(crate) fn found_directory(&self, state: &mut State, path: &str, ttl: Duration) -> Found {
        // Its last key may be gone since; what comes in from now on finds what is given out here.
        let known = self.cache.peek_keys();
        let there = state.keeps(path) || known.is_some_and(|keys| self.has_keys(path, &keys.value));
        let ttl = if there { ttl } else { Duration::ZERO };
        let ino = state.directory_inode(path);
        state.count_lookup(ino, ttl);
        Found { attr: self.attr_in(state, ino, None).ok(), ttl }
    }

    /// Takes in that the directory at `path` is gone, if it is: it may have vanished while changes were missed. Should it
    /// appear again, the kernel, which is about to remember its absence, must be told.
    pub(crate) fn forget_removed(&self, path: &str) {
        let mut state = self.state.lock();
        if state.paths().directory(path).is_some()
            && !state.keeps(path)
            && self.cache.peek_keys().is_some_and(|keys| !self.has_keys(path, &keys.value))
        {
            state.vanished(path);
        }
    }

    /// Takes in that the key of the file at `path` is there, and was not: the directory that it is in has changed, and if one
    /// on the way came with it, so has the directory that this one is in. There were these `keys` before, if they are known.
    pub(crate) fn name_added(
        &self,
        state: &mut State,
        path: &str,
        keys: Option<&Keys>,
    ) -> Vec<PathInvalidation> {
        let was_there = |way: &str| keys.is_none_or(|keys| self.has_keys(way, keys));
        let new = ancestors(path).find(|way| !state.keeps(way) && !was_there(way));
        let mut changed = Vec::new();
        for path in [Some(path), new].into_iter().flatten() {
            state.touch(path);
            changed.push(PathInvalidation::Listing(parent(path).to_owned()));
        }
        changed
    }

    /// Takes in what the deletion of the key at `path`, `by_others` if that is certain, means for the directories on the way to
    /// it: there are these `keys` now, if they are known.
    pub(crate) fn directories_emptied(
        &self,
        state: &mut State,
        path: &str,
        keys: Option<&Keys>,
        by_others: bool,
    ) -> Vec<PathInvalidation> {
        let mut invalidations = Vec::new();
        let mut directory = parent(path);
        while !directory.is_empty() {
            match keys {
                Some(keys) if self.has_keys(directory, keys) => break,
                Some(_) => invalidations.extend(state.emptied(directory, by_others)),
                // Whether it is there is for the next lookup to find out.
                None => {
                    state.note_change(directory);
                    invalidations.push(PathInvalidation::Entry(directory.to_owned()));
                }
            }
            directory = parent(directory);
        }
        invalidations
    }

    /// Whether there may be one more name that no store has.
    pub(crate) fn room_for_name(&self, state: &mut State) -> FsResult<()> {
        let Err(full) = state.room_for_name() else { return Ok(()) };
        let kept = state.paths().directories().filter(|(_, directory)| directory.is_kept());
        let kept: Vec<String> = kept.map(|(path, _)| path.to_owned()).collect();
        let Some(keys) = self.cache.peek_keys() else { return Err(full) };
        for path in kept.iter().filter(|path| self.has_keys(path, &keys.value)) {
            state.has_key(path);
        }
        state.room_for_name()
    }

    /// Whether a key is in the directory at `path`, or below it.
    pub(crate) fn has_keys(&self, path: &str, keys: &Keys) -> bool {
        self.prefix(path, keys).is_some_and(|prefix| !keys.below(&prefix).is_empty())
    }
}
