//! The directory as a list. An open directory is a snapshot of the names; offsets are positions in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::inodes::{Body, Ino, ROOT, State};
use super::names::Names;
use super::versions::By;
use super::{Attr, Caller, Fs, FsResult};
use crate::cache::{Answer, FOREVER};
use crate::store::{Key, Listing, Meta};

/// The names at the moment the directory was opened, or was last read from the start.
pub struct Directory {
    /// Count of changes when the snapshot was asked for, and the mark of an open directory.
    since: u64,
    _open: Arc<()>,
    keys: Arc<Listing>,
    ttl: Duration,
    /// Local files.
    locals: Vec<(String, Ino)>,
    /// Keys being replaced that the opener no longer sees.
    hidden: Vec<Key>,
    /// Somebody has read from its start.
    begun: AtomicBool,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// File name.
    pub name: String,
    /// Inode number; for a key without an inode yet, a stand-in.
    pub ino: Ino,
    /// True for `.` and `..`.
    pub directory: bool,
    /// Position of the next line.
    pub next: u64,
}

/// Stand-ins for inode numbers count down from here.
const STAND_IN: u64 = u64::MAX >> 1;

impl Fs {
    /// Takes a snapshot of the names.
    pub async fn open_directory(self: Arc<Self>, caller: Caller) -> FsResult<Directory> {
        // Before the snapshot, so that no change falls between the two.
        let (since, open) = self.state.lock().open_directory();
        let listing = self.cache.list_keys().await?;
        let state = self.state.lock();
        let hidden = state.hidden.values().filter(|hidden| hidden.gone_for(caller.thread));
        let hidden: Vec<Key> = hidden.map(|hidden| hidden.key.clone()).collect();
        let keys = listing.value;
        let listed = |wanted: &Key| {
            !hidden.contains(wanted) && keys.binary_search_by(|(key, _)| key.cmp(wanted)).is_ok()
        };
        let local = |(name, ino): (&String, &Ino)| match state.inodes.get(ino) {
            Some(inode) if matches!(inode.body, Body::Local(_)) => {
                // A key of the same name, set by somebody else, is listed as such.
                (!listed(&inode.key) || self.settings.names.encode(&inode.key) != *name)
                    .then(|| (name.clone(), *ino))
            }
            _ => None,
        };
        let mut locals: Vec<(String, Ino)> = state.names.iter().filter_map(local).collect();
        locals.sort();
        let begun = AtomicBool::new(false);
        Ok(Directory { since, _open: open, keys, ttl: listing.ttl, locals, hidden, begun })
    }

    /// The snapshot for a read of `directory` from `offset` on: who starts over, as rewinddir(3) does, reads a new
    /// one; positions are those of the present one.
    pub async fn directory_at(
        self: Arc<Self>,
        caller: Caller,
        directory: Arc<Directory>,
        offset: u64,
    ) -> FsResult<Arc<Directory>> {
        if offset > 0 || !directory.begun.swap(true, Ordering::Relaxed) {
            return Ok(directory);
        }
        let directory = self.open_directory(caller).await?;
        directory.begun.store(true, Ordering::Relaxed);
        Ok(Arc::new(directory))
    }

    /// The lines of `directory` from position `offset` on, until `take` has had enough (it returns true).
    pub fn read_directory(&self, directory: &Directory, offset: u64, mut take: impl FnMut(&Item) -> bool) {
        let state = self.state.lock();
        for position in offset.. {
            match directory.item(&state, position, &self.settings.names) {
                Line::Item(item) if take(&item) => return,
                Line::Item(_) | Line::Skip => {}
                Line::End => return,
            }
        }
    }

    /// As [`Fs::read_directory`], with attributes; each line taken counts one reference to its inode, except
    /// `.` and `..`.
    pub fn read_directory_plus(
        self: &Arc<Self>,
        directory: &Directory,
        offset: u64,
        mut take: impl FnMut(&Item, &Attr, Duration) -> bool,
    ) {
        let mut notices = Vec::new();
        let mut state = self.state.lock();
        for position in offset.. {
            let mut item = match directory.item(&state, position, &self.settings.names) {
                Line::Item(item) => item,
                Line::Skip => continue,
                Line::End => break,
            };
            let mut ttl = Duration::ZERO;
            if !item.directory {
                if let Some((key, meta)) = directory.key(position) {
                    let lasting = if self.cache.is_pushed() { FOREVER } else { directory.ttl };
                    let changed = state.changed_since(&item.name, directory.since);
                    (item.ino, ttl) = match self.peek_meta(key).filter(|_| changed) {
                        // Gone since the directory was opened.
                        Some(Answer { value: None, .. }) => continue,
                        Some(Answer { value: Some(meta), ttl, .. }) => {
                            (state.instantiate(&item.name, key, &meta), ttl.min(lasting))
                        }
                        // Changed or gone: the name is listed, and looked up by who wants more of it.
                        None if changed => {
                            (state.add_inode(&item.name, key, Body::Key(meta.clone())), Duration::ZERO)
                        }
                        None => {
                            notices.extend(state.adopt(&item.name, meta, By::Mount));
                            (state.instantiate(&item.name, key, meta), lasting)
                        }
                    };
                }
                if let Some(inode) = state.inodes.get_mut(&item.ino) {
                    inode.lookups += 1;
                }
            }
            let full = match self.attr_in(&state, item.ino, None) {
                Ok(attr) => take(&item, &attr, ttl),
                Err(_) => false,
            };
            if full {
                if !item.directory {
                    state.forget(item.ino, 1);
                }
                break;
            }
        }
        drop(state);
        self.settle_later(notices);
    }
}

enum Line {
    Item(Item),
    Skip,
    End,
}

impl Directory {
    fn key(&self, position: u64) -> Option<&(Key, Meta)> {
        self.keys.get(usize::try_from(position.checked_sub(2)?).ok()?)
    }

    fn item(&self, state: &State, position: u64, names: &Names) -> Line {
        let next = position + 1;
        if position < 2 {
            let name = if position == 0 { "." } else { ".." };
            return Line::Item(Item { name: name.into(), ino: ROOT, directory: true, next });
        }
        if let Some((key, _)) = self.key(position) {
            if self.hidden.contains(key) {
                return Line::Skip;
            }
            let name = names.encode(key);
            let ino = state.names.get(&name).copied().unwrap_or(Ino(STAND_IN - position));
            return Line::Item(Item { name, ino, directory: false, next });
        }
        let index = position.saturating_sub(2 + self.keys.len() as u64);
        match usize::try_from(index).ok().and_then(|index| self.locals.get(index)) {
            // Renamed or removed since the directory was opened.
            Some((name, ino)) if state.names.get(name) != Some(ino) => Line::Skip,
            Some((name, ino)) => Line::Item(Item { name: name.clone(), ino: *ino, directory: false, next }),
            None => Line::End,
        }
    }
}

impl State {
    /// The inode of a key that a listing shows.
    fn instantiate(&mut self, name: &str, key: &Key, meta: &Meta) -> Ino {
        if let Some(ino) = self.names.get(name) {
            return *ino;
        }
        let ino = self.add_inode(name, key, Body::Key(meta.clone()));
        self.names.insert(name.to_owned(), ino);
        ino
    }
}
