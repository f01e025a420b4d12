//! Directories: what a name in one of them stands for, and the directories that are made and removed.
//!
//! A directory is there while a key is below it. One that was made here, or that something was removed from here, stays
//! for the life of the mount, until it is removed. A key that is also a directory gives its name to the directory; its
//! own file is `…%(value)` beside it, and nowhere else: the tables know it by its path all the same.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::inodes::{Body, Folder, Ino, ROOT, State};
use super::lookup::Found;
use super::names::{Decoded, NAME_MAX, base, is_alias, join, parent, value_name};
use super::{Attr, Caller, Drop, Fs, FsError, FsResult, Notice};
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
    pub(super) async fn place(&self, within: Ino, name: &str) -> FsResult<Place> {
        let path = self.path(within, name)?;
        if !self.settings.names.has_directories() {
            return Ok(Place::File(path));
        }
        let keys = self.keys().await?;
        Ok(self.place_among(path, &keys))
    }

    /// As [`Fs::place`] by what is remembered.
    pub(super) fn known_place(&self, within: Ino, name: &str) -> FsResult<Place> {
        let path = self.path(within, name)?;
        match self.cache.peek_keys() {
            Some(keys) if self.settings.names.has_directories() => Ok(self.place_among(path, &keys)),
            Some(_) | None => Ok(Place::File(path)),
        }
    }

    fn place_among(&self, path: String, keys: &Answer<Keys>) -> Place {
        if self.is_directory(&path, &keys.value) {
            return Place::Directory(path, keys.ttl);
        }
        self.state.lock().no_folder(&path);
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

    /// The path of the file that `name` in the directory `within` stands for.
    pub(super) async fn file(&self, within: Ino, name: &str) -> FsResult<String> {
        match self.place(within, name).await? {
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
        match self.cache.peek_keys() {
            Some(keys) => Ok(keys),
            None => Ok(self.cache.list_keys().await?),
        }
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
        let ino = state.folder(path, self.started);
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.lookups += 1;
        }
        Found { attr: self.attr_in(state, ino, None).ok(), ttl }
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
        let path = match self.place(within, &name).await? {
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
        let path = match self.place(within, &name).await? {
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
        let keys = self.keys().await?.value;
        let has_keys = self.has_keys(&path, &keys);
        let mut state = self.state.lock();
        if has_keys || state.is_inhabited(&path) {
            return Err(FsError::NotEmpty);
        }
        state.remove_folder(&path);
        state.keep_folder(parent(&path));
        state.touch(&path);
        Ok(())
    }

    /// Takes in what a change of a key made elsewhere means for the directories on the way to it.
    pub(super) fn directories_after(&self, change: &Change, path: &str) -> Vec<Notice> {
        let (keys, may_clash) = (self.cache.peek_keys(), self.settings.names.may_clash());
        if !matches!(change, Change::Deleted(..)) {
            return self.state.lock().appeared(path, may_clash);
        }
        let mut notices = Vec::new();
        let mut directory = parent(path);
        while !directory.is_empty() {
            match &keys {
                Some(keys) if self.has_keys(directory, &keys.value) => break,
                Some(_) => notices.extend(self.state.lock().emptied(directory, may_clash)),
                // Whether it is there is for the next lookup to find out.
                None => notices.push(Notice::Entry(directory.to_owned())),
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
        let gone = state.inodes.get(&ino).is_some_and(|inode| inode.unlinked);
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

impl State {
    /// The path of a directory that is still there; empty for the root.
    pub(super) fn directory(&self, ino: Ino) -> FsResult<String> {
        if ino == ROOT {
            return Ok(String::new());
        }
        let inode = self.inode(ino)?;
        match inode.body {
            Body::Directory if inode.unlinked => Err(FsError::NotFound),
            Body::Directory => Ok(inode.name.clone()),
            Body::Key(_) | Body::Local(_) | Body::Draft(_) => Err(FsError::NotDirectory),
        }
    }

    /// The inode of the directory at `path`, if the kernel may know it.
    pub(super) fn folder_ino(&self, path: &str) -> Option<Ino> {
        if path.is_empty() { Some(ROOT) } else { self.folders.get(path)?.ino }
    }

    /// A notice in the kernel's terms, if the kernel may know what it is about.
    pub(super) fn addressed(&self, notice: Notice) -> Option<Drop> {
        Some(match notice {
            Notice::Inode(ino) => Drop::Inode(ino, self.way_to(ino)),
            Notice::Entry(path) => Drop::Entry(self.folder_ino(parent(&path))?, base(&path).to_owned()),
            Notice::Listing(path) => {
                let ino = self.folder_ino(&path)?;
                Drop::Inode(ino, self.way_to(ino))
            }
            Notice::Everything => Drop::Everything,
        })
    }

    /// The name by which the kernel comes to an inode.
    fn way_to(&self, ino: Ino) -> Option<(Ino, String)> {
        let inode = self.inodes.get(&ino).filter(|inode| inode.lookups > 0)?;
        Some((self.folder_ino(parent(&inode.name))?, base(&inode.name).to_owned()))
    }

    /// The inode of the directory at `path`, which is there.
    pub(super) fn folder(&mut self, path: &str, modified: SystemTime) -> Ino {
        if let Some(ino) = self.folder_ino(path) {
            return ino;
        }
        let ino = self.add_inode(path, &Key::from(""), Body::Directory);
        let folder = Folder { ino: None, kept: false, modified };
        self.folders.entry(path.to_owned()).or_insert(folder).ino = Some(ino);
        ino
    }

    /// Whether the directory at `path` is there while no key is below it.
    pub(super) fn keeps(&self, path: &str) -> bool {
        self.folders.get(path).is_some_and(|folder| folder.kept)
    }

    /// The directory at `path` stays, and with it those that it is in.
    pub(super) fn keep_folder(&mut self, path: &str) {
        let mut path = path;
        while !path.is_empty() {
            let modified = SystemTime::now();
            let folder =
                self.folders.entry(path.to_owned()).or_insert(Folder { ino: None, kept: false, modified });
            if std::mem::replace(&mut folder.kept, true) {
                return;
            }
            path = parent(path);
        }
    }

    /// Whether a local file or a directory that was made here is in the directory at `path`.
    pub(super) fn is_inhabited(&self, path: &str) -> bool {
        let inside = |other: &str| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        let local = self.locals().any(|(name, _)| inside(name));
        local || self.folders.iter().any(|(other, folder)| folder.kept && inside(other))
    }

    /// Files that are not keys, by their paths.
    pub(super) fn locals(&self) -> impl Iterator<Item = (&str, Ino)> {
        let inodes = self.drafts.values().filter_map(|draft| Some((draft.ino, self.inodes.get(&draft.ino)?)));
        let local = inodes
            .filter(|(ino, inode)| matches!(inode.body, Body::Local(_)) && self.is_current(*ino, inode));
        local.map(|(ino, inode)| (inode.name.as_str(), ino))
    }

    /// There is no directory at `path` any more. Who is in it finds nothing there.
    pub(super) fn remove_folder(&mut self, path: &str) {
        let Some(folder) = self.folders.remove(path) else { return };
        self.overrides.remove(&(path.to_owned() + "/"));
        self.note_change(path);
        if let Some(ino) = folder.ino {
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.unlinked = true;
            }
            self.collect(ino);
        }
    }

    /// The kernel knows the directory at `path` no more.
    pub(super) fn forget_folder(&mut self, path: &str) {
        if let Some(folder) = self.folders.get_mut(path) {
            folder.ino = None;
            if !folder.kept {
                self.folders.remove(path);
            }
        }
    }

    /// The listing shows no directory at `path`.
    fn no_folder(&mut self, path: &str) {
        if self.folders.get(path).is_some_and(|folder| !folder.kept) {
            self.remove_folder(path);
        }
    }

    /// A key that others have set is at `path`: the kernel may not know of a directory on the way, nor that a file has lost
    /// its name to it.
    fn appeared(&mut self, path: &str, may_clash: bool) -> Vec<Notice> {
        let slashes = path.match_indices('/').map(|(at, _)| &path[..at]);
        let Some(unknown) = slashes.into_iter().find(|path| self.folder_ino(path).is_none()) else {
            return Vec::new();
        };
        self.note_change(unknown);
        self.touch(unknown);
        taken_or_given_back(unknown, may_clash)
    }

    /// Others have deleted the last key in the directory at `path`.
    fn emptied(&mut self, path: &str, may_clash: bool) -> Vec<Notice> {
        let Some(folder) = self.folders.get(path) else { return Vec::new() };
        if folder.kept && self.is_inhabited(path) {
            return Vec::new();
        }
        self.remove_folder(path);
        self.touch(path);
        taken_or_given_back(path, may_clash)
    }

    /// The names in the directory of `path` have changed.
    pub(super) fn touch(&mut self, path: &str) {
        let own = match parent(path) {
            "" => &mut self.root_modified,
            parent => match self.folders.get_mut(parent) {
                Some(folder) => &mut folder.modified,
                None => return,
            },
        };
        *own = SystemTime::now().max(*own + Duration::from_micros(1));
    }
}

/// What the kernel must drop when a directory takes the name at `path` from a file, or gives it back.
fn taken_or_given_back(path: &str, may_clash: bool) -> Vec<Notice> {
    let value = may_clash.then(|| join(parent(path), &value_name(base(path))));
    let names = value.into_iter().chain([path.to_owned()]).map(Notice::Entry);
    names.chain([Notice::Listing(parent(path).to_owned())]).collect()
}
