//! Changes made elsewhere, for those who watch files by inotify (`--notify`).
//!
//! inotify is silent for what does not go through the mount. So a process of this mount, the relay, goes through it:
//! it opens a file that was set, creates one that is new, renames one over another whose inode is kept by readers, and
//! removes one that is gone. What it is answered is in `fs/door`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cache::{KeyChange, KeyChanges, Keys};
use crate::fs::core::Fs;
use crate::fs::inotify::queue::{Before, Kind, Relay, RelayEvent};
use crate::fs::rules::names::ancestors;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::tables::State;
use crate::store::{Change, Key, Meta};

/// The name from which the relay renames; nobody else finds it.
pub const TEMPORARY: &str = ".kvfs-relay";

impl Fs {
    /// Where those who watch files are told of changes made elsewhere.
    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    /// From now on those who watch files are told.
    pub fn start_relay(&self) {
        self.state.lock().set_relay();
        self.relay.on.store(true, Ordering::Release);
    }

    /// Makes the kernel forget the names that must be new to it for the order to be carried out. Not to be called by the
    /// threads that answer it.
    pub fn forget_dentries(&self, event: &RelayEvent) {
        if let Some(done) = self.invalidate(self.dentries_to_forget(event)) {
            // An error means that the kernel is gone.
            _ = done.blocking_recv();
        }
    }

    /// What stands in the way of the order: also what the kernel knows to be absent, since somebody looked for it.
    fn dentries_to_forget(&self, event: &RelayEvent) -> Vec<PathInvalidation> {
        let mut names: Vec<&str> = match event.kind {
            Kind::Set => return Vec::new(),
            Kind::Created | Kind::Replaced | Kind::DirectoryMade => Vec::new(),
            Kind::Deleted if self.is_there(&self.state.lock(), event) => return Vec::new(),
            Kind::Deleted | Kind::DirectoryRemoved => ancestors(&event.name).collect(),
        };
        let keys = self.cache.peek_keys().filter(|_| self.settings.names.has_directories());
        names.retain(|way| keys.as_ref().is_some_and(|keys| !self.is_directory(way, &keys.value)));
        names.push(&event.name);
        names.into_iter().map(|name| PathInvalidation::Entry(name.to_owned())).collect()
    }

    /// What is known of files before the tables take their changes in; nothing if there is no relay.
    pub(crate) fn before(&self, news: &KeyChanges) -> Vec<Before> {
        if !self.relay.is_on() {
            return news.changes.iter().map(|_| Before::default()).collect();
        }
        let (state, keys) = (self.state.lock(), news.before.as_ref());
        let before = news.changes.iter().map(|KeyChange { change, was_there, .. }| {
            let key = change.key();
            let ino = key.and_then(|key| state.watched(&self.settings.names.encode(key)));
            let directories = key.zip(keys).map(|(key, keys)| self.directories_of(&state, key, keys));
            Before { ino, there: *was_there, directories: directories.unwrap_or_default() }
        });
        before.collect()
    }

    fn directories_of(&self, state: &State, key: &Key, keys: &Keys) -> Vec<(String, bool)> {
        if !self.settings.names.has_directories() {
            return Vec::new();
        }
        let path = self.settings.names.encode(key);
        let there = |way: &str| state.keeps(way) || self.has_keys(way, keys);
        ancestors(&path).map(|way| (way.to_owned(), there(way))).collect()
    }

    /// Orders what follows from `changes`, after which there are these `keys`.
    pub(crate) fn announce(self: &Arc<Self>, changes: Vec<(Change, Before)>, keys: Option<&Keys>) {
        if !self.relay.is_on() {
            return;
        }
        let mut emptied = BTreeSet::new();
        for (change, before) in changes {
            let (kind, key, meta) = match change {
                Change::Set(key, meta) => (self.kind_of_set(&key, &meta, &before), key, meta),
                Change::Deleted(key, _) => (Kind::Deleted, key, Meta::nothing(self.settings.clock.now())),
                Change::Prefix(..) | Change::Everything | Change::Paused | Change::Resumed => continue,
            };
            let name = self.settings.names.encode(&key);
            let directories = before.directories;
            match kind {
                Kind::Deleted => {
                    emptied.extend(directories.into_iter().filter_map(|(path, there)| there.then_some(path)));
                }
                _ => directories
                    .iter()
                    .filter(|(_, there)| !there)
                    .for_each(|(new, _)| self.announce_directory(new, false, keys)),
            }
            self.state.lock().no_longer_replaced(&name, before.ino);
            self.relay.add(RelayEvent { kind, name, key, meta, old: before.ino });
        }
        // A directory goes after all that was in it.
        emptied.iter().rev().for_each(|old| self.announce_directory(old, true, keys));
    }

    /// Orders what is to be told of a directory that was there, or was not, before a change.
    fn announce_directory(&self, path: &str, was_there: bool, keys: Option<&Keys>) {
        let Some(keys) = keys else { return };
        let kind = match (was_there, self.is_directory(path, keys)) {
            (false, true) => Kind::DirectoryMade,
            (true, false) => Kind::DirectoryRemoved,
            (true, true) | (false, false) => return,
        };
        self.relay.add(RelayEvent {
            kind,
            name: path.to_owned(),
            key: Key::from(""),
            meta: Meta::nothing(self.settings.clock.now()),
            old: None,
        });
    }

    fn kind_of_set(&self, key: &Key, meta: &Meta, before: &Before) -> Kind {
        let name = self.settings.names.encode(key);
        match before.ino {
            // The first version, which somebody has looked at before it was told of.
            _ if meta.created == meta.modified => Kind::Created,
            Some(old) if self.state.lock().belongs_to(&name, old) => Kind::Set,
            Some(_) => Kind::Replaced,
            None if before.there.unwrap_or(true) => Kind::Set,
            None => Kind::Created,
        }
    }

    /// Whether a file that was deleted is there again.
    pub(crate) fn is_there(&self, state: &State, event: &RelayEvent) -> bool {
        state.paths().current(&event.name).is_some()
            || self.cache.peek(&event.key).is_some_and(|answer| answer.value.is_some())
    }
}
