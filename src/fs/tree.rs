//! Directories: what a name in one of them stands for, and the directories that are made and removed.
//!
//! A directory is there while a key is below it. One that was made here, or that something was removed from here, stays
//! for the life of the mount, until it is removed. A key that is also a directory gives its name to the directory; its
//! own file is `…%(value)` beside it, and nowhere else: the tables know it by its path all the same.

use std::sync::Arc;
use std::time::Duration;

use super::inodes::{Ino, ROOT, State};
use super::lookup::Found;
use super::names::{Decoded, NAME_MAX, base, is_alias, join, parent, value_name};
use super::{Attr, Caller, Fs, FsError, FsResult, Notice};
use crate::cache::{Answer, Keys};
use crate::store::{Change, Key};

/// What a name in a directory stands for, by its path.
pub(super) enum Place {
    /// A directory that is there, and for how long that is good.
    Directory(String, Duration),
    /// A file, whether it is there or not.
    File(String),
    /// Nothing can be there now, and for how long that is good.
    Nothing(Duration),
}

impl Fs {
    /// What `name` in the directory `within` stands for.
    pub(super) async fn place(&self, caller: Caller, within: Ino, name: &str) -> FsResult<Place> {
        let path = match self.herald_path(caller, within, name) {
            Some(path) => path,
            None => self.path(within, name)?,
        };
        if !self.settings.names.has_directories() {
            return Ok(Place::File(path));
        }
        // The kernel holds a lock for the herald, which nobody else should have to wait for.
        let keys = match self.cache.last_keys().filter(|_| self.herald.is(caller)) {
            Some(keys) => keys,
            None => self.keys().await?,
        };
        Ok(self.place_among(path, &keys))
    }

    /// As [`Fs::place`] by what is remembered, however old: the kernel has just looked there.
    pub(super) fn known_place(&self, within: Ino, name: &str) -> FsResult<Place> {
        let path = self.path(within, name)?;
        match self.cache.last_keys() {
            Some(keys) if self.settings.names.has_directories() => Ok(self.place_among(path, &keys)),
            Some(_) | None => Ok(Place::File(path)),
        }
    }

    fn place_among(&self, path: String, keys: &Answer<Keys>) -> Place {
        if self.is_directory(&path, &keys.value) {
            return Place::Directory(path, keys.ttl);
        }
        let Some(directory) = self.settings.names.of_value(&path) else { return Place::File(path) };
        match self.value_of(directory, &keys.value).filter(|path| self.is_directory(path, &keys.value)) {
            Some(path) => Place::File(path),
            None => Place::Nothing(keys.ttl),
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

    /// The path of the file that `name` in the directory `within` stands for.
    pub(super) async fn file(&self, caller: Caller, within: Ino, name: &str) -> FsResult<String> {
        match self.place(caller, within, name).await? {
            Place::File(path) => Ok(path),
            Place::Directory(..) => Err(FsError::IsDirectory),
            Place::Nothing(_) => Err(FsError::NotFound),
        }
    }

    /// `name` in the directory `within`, as a path.
    fn path(&self, within: Ino, name: &str) -> FsResult<String> {
        if name.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        Ok(join(&self.state.lock().directory(within)?, name))
    }

    pub(super) async fn keys(&self) -> FsResult<Answer<Keys>> {
        Ok(self.cache.list_keys().await?)
    }

    /// Whether there is a directory at `path`.
    pub(super) fn is_directory(&self, path: &str, keys: &Keys) -> bool {
        path.is_empty() || self.state.lock().keeps(path) || self.has_keys(path, keys)
    }

    /// What all keys in the directory at `path` start with; `None` if no key can be in it.
    pub(super) fn prefix(&self, path: &str, keys: &Keys) -> Option<String> {
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
    pub(super) fn found_directory(&self, state: &mut State, path: &str, ttl: Duration) -> Found {
        // Its last key may be gone since; what comes in from now on finds what is given out here.
        let known = self.cache.peek_keys();
        let there = state.keeps(path) || known.is_some_and(|keys| self.has_keys(path, &keys.value));
        let ttl = if there { ttl } else { Duration::ZERO };
        let ino = state.folder(path, self.started);
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.lookups += 1;
        }
        Found { attr: self.attr_in(state, ino, None).ok(), ttl }
    }

    /// Takes in that the directory at `path` is gone, if it is: it may have vanished while changes were missed. Should it
    /// appear again, the kernel, which is about to remember its absence, must be told.
    pub(super) fn forget_vanished(&self, path: &str) {
        let mut state = self.state.lock();
        if state.folder_ino(path).is_some()
            && !state.keeps(path)
            && self.cache.peek_keys().is_some_and(|keys| !self.has_keys(path, &keys.value))
        {
            state.remove_folder(path);
        }
    }

    /// mkdir(2). The directory is in no store until a key is below it.
    pub async fn make_directory(
        self: Arc<Self>,
        caller: Caller,
        within: Ino,
        name: String,
        mode: u32,
    ) -> FsResult<Found> {
        if !self.settings.names.has_directories() {
            return Err(FsError::Flat);
        }
        let _staying = self.moving.read().await;
        let path = match self.place(caller, within, &name).await? {
            Place::Directory(path, _) if self.is_new_to_herald(caller, &path) => {
                return Ok(self.found_directory(&mut self.state.lock(), &path, Duration::ZERO));
            }
            Place::File(path) if self.herald_directory(caller, &path).is_some() => {
                return Err(FsError::NotFound);
            }
            Place::File(path) if base(&path) == name => path,
            Place::File(_) | Place::Directory(..) => return Err(FsError::Exists),
            Place::Nothing(_) => return Err(FsError::BadName),
        };
        self.writable()?;
        self.check_directory(&path)?;
        let keys = self.keys().await?;
        let key = self.key_of(&path).await?;
        let mut state = self.state.lock();
        let there =
            key.is_some_and(|key| keys.value.meta(&key).is_some() && !state.hidden.contains_key(&path));
        if there || state.names.contains_key(&path) {
            return Err(FsError::Exists);
        }
        state.keep_folder(&path);
        state.overrides.insert(path.clone() + "/", self.attributes_of_new(caller, mode, 0o777));
        state.note_change(&path);
        state.touch(&path);
        let ttl = self.listing_ttl();
        Ok(self.found_directory(&mut state, &path, ttl))
    }

    /// Whether keys can be in a directory at `path`.
    pub(super) fn check_directory(&self, path: &str) -> FsResult<()> {
        let Decoded::Key(prefix) = self.settings.names.decode_directory(path) else {
            return Err(FsError::BadName);
        };
        Ok(self.cache.limits().check_key(&prefix)?)
    }

    /// rmdir(2): of a directory without keys, files and directories.
    pub async fn remove_directory(
        self: Arc<Self>,
        caller: Caller,
        within: Ino,
        name: String,
    ) -> FsResult<()> {
        let _staying = self.moving.read().await;
        let path = match self.place(caller, within, &name).await? {
            Place::Directory(path, _) if self.herald_directory(caller, &path).is_some() => {
                return Err(FsError::NotEmpty);
            }
            Place::Directory(path, _) => path,
            Place::File(path) => {
                if let Some(done) = self.herald_directory(caller, &path) {
                    return done;
                }
                let there = self.state.lock().names.contains_key(&path);
                return Err(if there { FsError::NotDirectory } else { FsError::NotFound });
            }
            Place::Nothing(_) => return Err(FsError::NotFound),
        };
        self.writable()?;
        self.finish_renames(caller, &path).await?;
        let keys = self.keys().await?.value;
        let has_keys = self.has_keys(&path, &keys);
        let mut state = self.state.lock();
        if has_keys || state.is_inhabited(&path) {
            return Err(FsError::NotEmpty);
        }
        state.remove_folder(&path);
        state.keep_folder(parent(&path));
        state.touch(&path);
        drop(state);
        self.settle_later(Notice::of_name(&path));
        Ok(())
    }

    /// Takes in what a change of a key means for the directories on the way to it. One that is known to take a name away
    /// (`taken`) was made elsewhere.
    pub(super) fn directories_after(&self, change: &Change, path: &str, taken: bool) -> Vec<Notice> {
        if !matches!(change, Change::Deleted(..)) {
            return self.state.lock().appeared(path);
        }
        let keys = self.cache.peek_keys();
        let mut notices = Vec::new();
        let mut directory = parent(path);
        while !directory.is_empty() {
            match &keys {
                Some(keys) if self.has_keys(directory, &keys.value) => break,
                Some(_) => notices.extend(self.state.lock().emptied(directory, taken)),
                // Whether it is there is for the next lookup to find out.
                None => {
                    self.state.lock().note_change(directory);
                    notices.push(Notice::Entry(directory.to_owned()));
                }
            }
            directory = parent(directory);
        }
        notices
    }

    /// Whether a key is in the directory at `path`, or below it.
    pub(super) fn has_keys(&self, path: &str, keys: &Keys) -> bool {
        self.prefix(path, keys).is_some_and(|prefix| !keys.below(&prefix).is_empty())
    }

    pub(super) fn directory_attr(&self, state: &State, ino: Ino, path: &str) -> Attr {
        let (set, own) = if ino == ROOT {
            (state.root, state.root_modified)
        } else {
            let folder = state.folders.get(path);
            let own = folder.map_or(self.started, |folder| folder.modified);
            (state.overrides.get(&(path.to_owned() + "/")).copied().unwrap_or_default(), own)
        };
        // Who watches a directory without links would be told of its end before that of what was in it.
        let gone = !self.herald().is_on() && state.inodes.get(&ino).is_some_and(|inode| inode.unlinked);
        let modified = set.modified.unwrap_or(own);
        Attr {
            ino,
            number: ino,
            directory: true,
            size: 0,
            mode: set.mode.unwrap_or(0o777 & !self.settings.umask),
            links: if gone { 0 } else { 2 },
            uid: set.uid.unwrap_or(self.settings.uid),
            gid: set.gid.unwrap_or(self.settings.gid),
            accessed: set.accessed.unwrap_or(modified),
            modified,
            changed: set.changed.map_or(own, |changed| changed.max(own)),
            created: self.started,
        }
    }
}
