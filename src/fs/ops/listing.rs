//! Directories as lists. An open directory is a snapshot of the names; offsets are positions in it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cache::{Answer, FOREVER, Keys};
use crate::fs::core::Fs;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{Names, base, join, parent, value_name};
use crate::fs::state::file_numbers::MADE;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::state::versions::Origin;
use crate::fs::types::{Attr, Caller, Ino, ROOT};
use crate::store::{Key, Meta};

/// The names at the moment the directory was opened, or was last read from the start.
pub struct OpenDirectory {
    /// Count of changes when the snapshot was asked for, and the mark of an open directory.
    since: u64,
    _open: Arc<()>,
    ino: Ino,
    /// The directory that it is in.
    within: Ino,
    path: String,
    keys: Keys,
    /// What is in it because of the keys at these positions; if there is no separator, the files of all keys.
    children: Option<Vec<(Kind, usize)>>,
    ttl: Duration,
    /// Local files and directories that were made here.
    locals: Vec<(String, Ino, Kind)>,
    /// Keys being replaced that the opener no longer sees.
    hidden: Vec<Key>,
    /// Somebody has read from its start.
    begun: AtomicBool,
}

/// What a line is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    File,
    /// A file whose name a directory has taken.
    Value,
    Directory,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// File name.
    pub name: String,
    /// Inode number that programs see; for a directory that has none yet, a stand-in.
    pub number: Ino,
    /// True for directories, `.` and `..` among them.
    pub directory: bool,
    /// Position of the next line.
    pub next: u64,
}

/// Stand-ins for inode numbers count down from here.
const STAND_IN: u64 = MADE - 1;

impl Fs {
    /// Opens a directory. One that is gone can be opened by who is in it, and has no names to be read, until it is there again.
    pub async fn open_directory(self: Arc<Self>, caller: Caller, ino: Ino) -> FsResult<OpenDirectory> {
        match self.clone().names_in(caller, ino).await {
            Err(FsError::NotFound) if self.state.lock().inode(ino).is_ok() => Ok(self.without_names(ino)),
            opened => opened,
        }
    }

    /// A directory that is gone. Whether it is back is looked for when its names are read.
    fn without_names(&self, ino: Ino) -> OpenDirectory {
        let state = self.state.lock();
        let (since, open) = state.listings().open();
        OpenDirectory {
            since,
            _open: open,
            ino,
            within: ROOT,
            path: state.directory_path(ino).unwrap_or_default(),
            keys: Keys::default(),
            children: None,
            ttl: Duration::ZERO,
            locals: Vec::new(),
            hidden: Vec::new(),
            begun: AtomicBool::new(true),
        }
    }

    /// Takes a snapshot of the names in a directory.
    async fn names_in(self: Arc<Self>, caller: Caller, ino: Ino) -> FsResult<OpenDirectory> {
        // Before the snapshot, so that no change falls between the two.
        let (since, open) = self.state.lock().listings().open();
        let (path, Answer { value: keys, ttl, .. }) = self.listed(ino).await?;
        let children = self.settings.names.has_directories().then(|| self.children(&path, &keys));
        let state = self.state.lock();
        let hidden = state
            .paths()
            .deferred_renames()
            .map(|(_, deferred)| deferred)
            .filter(|hidden| hidden.invisible_to(caller.thread));
        let hidden: Vec<Key> = hidden.map(|hidden| hidden.key.clone()).collect();
        let local = |(name, ino): (&str, Ino)| {
            let key = &state.inode(ino).ok()?.key;
            // A key of the same name, set by somebody else, is listed as such.
            let listed = !hidden.contains(key) && keys.meta(key).is_some();
            let clashes =
                self.settings.names.has_directories() && (state.keeps(name) || self.has_keys(name, &keys));
            let kind = if clashes { Kind::Value } else { Kind::File };
            let shown = parent(name) == path && !(listed && self.settings.names.encode(key) == name);
            shown.then(|| (name.to_owned(), ino, kind))
        };
        let mut locals: Vec<_> = state.locals().filter_map(local).collect();
        let made = state
            .paths()
            .directories()
            .filter(|(other, directory)| directory.is_kept() && parent(other) == path);
        for (other, directory) in made.filter(|(other, _)| !self.has_keys(other, &keys)) {
            locals.push((other.to_owned(), directory.ino.unwrap_or(Ino(STAND_IN)), Kind::Directory));
        }
        locals.sort();
        let within = state.directory_ino(parent(&path)).unwrap_or(ROOT);
        let begun = AtomicBool::new(false);
        Ok(OpenDirectory {
            since,
            _open: open,
            ino,
            within,
            path,
            keys,
            children,
            ttl,
            locals,
            hidden,
            begun,
        })
    }

    /// The path of a directory that is there, and the keys of a moment at which it has this path.
    async fn listed(&self, ino: Ino) -> FsResult<(String, Answer<Keys>)> {
        loop {
            let path = self.state.lock().directory_path(ino)?;
            let listing = self.keys().await?;
            if self.await_move(ino, &path).await? {
                continue;
            }
            let there = self.is_directory(&path, &listing.value);
            return if there { Ok((path, listing)) } else { Err(FsError::NotFound) };
        }
    }

    /// What is in the directory at `path` because of keys, in their order.
    fn children(&self, path: &str, keys: &Keys) -> Vec<(Kind, usize)> {
        let (separator, mut children) = (self.settings.names.separator(), Vec::new());
        let Some(prefix) = self.prefix(path, keys) else { return children };
        let range = keys.below(&prefix);
        let (mut position, mut directories) = (range.start, HashSet::new());
        while let Some((key, _)) = keys.at(position).filter(|_| position < range.end) {
            let rest = &key.as_str()[prefix.len()..];
            if let Some(end) = rest.find(separator) {
                children.push((Kind::Directory, position));
                directories.insert(self.settings.names.directory(&rest[..end]));
                let inside = &key.as_str()[..prefix.len() + end + separator.len()];
                position = keys.first(position, |key| !key.starts_with(inside));
            } else {
                children.push((Kind::File, position));
                position += 1;
            }
        }
        {
            let state = self.state.lock();
            let made = state
                .paths()
                .directories()
                .filter(|(other, directory)| directory.is_kept() && parent(other) == path);
            directories.extend(made.map(|(other, _)| base(other).to_owned()));
        }
        if !directories.is_empty() {
            let taken = |key: &Key| directories.contains(base(&self.settings.names.encode(key)));
            for (kind, position) in children.iter_mut().filter(|(kind, _)| *kind == Kind::File) {
                if keys.at(*position).is_some_and(|(key, _)| taken(key)) {
                    *kind = Kind::Value;
                }
            }
        }
        children
    }

    /// The snapshot for a read of `directory` from `offset` on: who starts over, as rewinddir(3) does, reads a new
    /// one; positions are those of the present one.
    pub async fn directory_at(
        self: Arc<Self>,
        caller: Caller,
        directory: Arc<OpenDirectory>,
        offset: u64,
    ) -> FsResult<Arc<OpenDirectory>> {
        let begins = directory.begun.swap(true, Ordering::Relaxed) && offset == 0;
        // In a directory that was renamed the same names are in the same order.
        let moved = self.state.lock().directory_path(directory.ino).is_ok_and(|path| path != directory.path);
        if !begins && !moved {
            return Ok(directory);
        }
        let directory = self.names_in(caller, directory.ino).await?;
        directory.begun.store(true, Ordering::Relaxed);
        Ok(Arc::new(directory))
    }

    /// The lines of `directory` from position `offset` on, until `take` has had enough (it returns true).
    pub fn read_directory(
        &self,
        directory: &OpenDirectory,
        offset: u64,
        mut take: impl FnMut(&Item) -> bool,
    ) {
        let state = self.state.lock();
        for position in offset.. {
            match directory.item(&state, position, &self.settings.names) {
                Line::Item(item, _) if take(&item) => return,
                Line::Item(..) | Line::Skip => {}
                Line::End => return,
            }
        }
    }

    /// As [`Fs::read_directory`], with attributes; each line taken counts one reference to its inode, except
    /// `.` and `..`.
    pub fn read_directory_plus(
        self: &Arc<Self>,
        directory: &OpenDirectory,
        offset: u64,
        mut take: impl FnMut(&Item, &Attr, Duration) -> bool,
    ) {
        let mut invalidations = Vec::new();
        let mut state = self.state.lock();
        for position in offset.. {
            let (item, known) = match directory.item(&state, position, &self.settings.names) {
                Line::Item(item, known) => (item, known),
                Line::Skip => continue,
                Line::End => break,
            };
            let counted = position >= 2;
            let entered = if counted {
                self.enter(&mut state, directory, position, (&item, known), &mut invalidations)
            } else {
                known.map(|ino| (ino, Duration::ZERO))
            };
            let Some((ino, ttl)) = entered else { continue };
            if counted {
                state.count_lookup(ino, ttl);
            }
            let full = match self.attr_in(&state, ino, None) {
                Ok(attr) => take(&item, &attr, ttl),
                Err(_) => false,
            };
            if full {
                if counted {
                    state.forget(ino, 1);
                }
                break;
            }
        }
        drop(state);
        self.invalidate_later(invalidations);
    }

    /// The inode of a line, and for how long the name leads to it; `None` if it is gone since the directory was opened.
    fn enter(
        &self,
        state: &mut State,
        directory: &OpenDirectory,
        position: u64,
        (item, known): (&Item, Option<Ino>),
        invalidations: &mut Vec<PathInvalidation>,
    ) -> Option<(Ino, Duration)> {
        let lasting = match self.gates.try_stay() {
            Some(_) if self.cache.is_pushed() => FOREVER,
            Some(_) => directory.ttl,
            // While a directory is renamed it is not certain for long where things are.
            None => Duration::ZERO,
        };
        let shown = join(&directory.path, &item.name);
        if item.directory {
            let changed = state.listings().changed_since(&shown, directory.since);
            let keys = self.cache.peek_keys().filter(|_| changed && !state.keeps(&shown));
            let gone = keys.as_ref().is_some_and(|keys| !self.has_keys(&shown, &keys.value));
            let ttl = if changed { Duration::ZERO } else { lasting };
            return (!gone).then(|| (state.directory_inode(&shown), ttl));
        }
        let Some((key, meta)) = directory.key(position) else {
            let ino = known?;
            let unpublished = state.is_unpublished_to(ino, 0);
            let ino = if unpublished { state.empty_stand_in(ino) } else { ino };
            return Some((ino, Duration::ZERO));
        };
        let clashes = matches!(directory.child(position), Some((Kind::Value, _)));
        let path = &if clashes { self.settings.names.encode(key) } else { shown };
        let changed = state.listings().changed_since(path, directory.since);
        let most = |state: &State| if state.is_away(path) { Duration::ZERO } else { lasting };
        match self.peek_meta(key).filter(|_| changed) {
            Some(Answer { value: None, .. }) => None,
            Some(Answer { value: Some(meta), ttl, .. }) => {
                let (ino, dropped) = state.instantiate(path, key, &meta);
                invalidations.extend(dropped);
                Some((ino, ttl.min(most(state))))
            }
            // Changed or gone: the name is listed, and looked up by who wants more of it.
            None if changed => Some((state.add_inode(path, key, Body::Key(meta.clone())), Duration::ZERO)),
            None => {
                invalidations.extend(state.install_version(path, meta, Origin::Read));
                let (ino, dropped) = state.instantiate(path, key, meta);
                invalidations.extend(dropped);
                Some((ino, most(state)))
            }
        }
    }
}

enum Line {
    /// And the inode, where it must be this one.
    Item(Item, Option<Ino>),
    Skip,
    End,
}

impl OpenDirectory {
    /// How many lines there are because of keys.
    fn len(&self) -> usize {
        self.children.as_ref().map_or(self.keys.len(), Vec::len)
    }

    fn child(&self, position: u64) -> Option<(Kind, usize)> {
        let index = usize::try_from(position.checked_sub(2)?).ok()?;
        match &self.children {
            Some(children) => children.get(index).copied(),
            None => (index < self.keys.len()).then_some((Kind::File, index)),
        }
    }

    /// The key of the file at a position.
    fn key(&self, position: u64) -> Option<&(Key, Meta)> {
        let (kind, index) = self.child(position)?;
        self.keys.at(index).filter(|_| kind != Kind::Directory)
    }

    fn item(&self, state: &State, position: u64, names: &Names) -> Line {
        let line = |name: &str, number: Option<Ino>, kind: Kind, known: Option<Ino>| {
            let name = if kind == Kind::Value { value_name(name) } else { name.to_owned() };
            let number = number.unwrap_or(Ino(STAND_IN - position));
            let item = Item { name, number, directory: kind == Kind::Directory, next: position + 1 };
            Line::Item(item, known)
        };
        if position < 2 {
            let (name, ino) = if position == 0 { (".", self.ino) } else { ("..", self.within) };
            return line(name, Some(ino), Kind::Directory, Some(ino));
        }
        if let Some((kind, index)) = self.child(position) {
            let Some((key, meta)) = self.keys.at(index) else { return Line::End };
            let path = names.encode(key);
            if kind == Kind::Directory {
                let depth = self.path.len() + usize::from(!self.path.is_empty());
                let end = path[depth..].find('/').map_or(path.len(), |end| depth + end);
                return line(&path[depth..end], state.directory_ino(&path[..end]), kind, None);
            }
            if self.hidden.contains(key) {
                return Line::Skip;
            }
            return line(base(&path), Some(state.number_at(&path, key, meta)), kind, None);
        }
        let index = position.saturating_sub(2 + self.len() as u64);
        match usize::try_from(index).ok().and_then(|index| self.locals.get(index)) {
            Some((path, _, Kind::Directory)) if state.keeps(path) => {
                line(base(path), state.directory_ino(path), Kind::Directory, None)
            }
            Some((path, ino, kind)) if state.paths().current(path) == Some(*ino) => {
                let number = state.inode(*ino).ok().map(|inode| state.number_of(*ino, inode));
                line(base(path), number, *kind, Some(*ino))
            }
            // Renamed or removed since the directory was opened.
            Some(_) => Line::Skip,
            None => Line::End,
        }
    }
}
