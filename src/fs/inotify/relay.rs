//! Changes made elsewhere, for those who watch files by inotify (`--notify`).
//!
//! inotify is silent for what does not go through the mount. So a process of this mount, the relay, goes through it:
//! it opens a file that was set, creates one that is new, renames one over another whose inode is kept by readers, and
//! removes one that is gone. It is known by its process id, and nothing of what it asks for is done: it only learns
//! that it was. So the store never hears of it, and a mistake costs an event, never a value.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::Keys;
use crate::fs::core::Fs;
use crate::fs::inotify::queue::{HANDLE, Kind, Relay, RelayEvent, nobody};
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{ancestors, is_inside, join};
use crate::fs::state::deferred::Before;
use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::types::{Caller, Found, Ino, Opened};
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

    /// What is known of files before `changes` are taken in, when there were these `keys`; nothing if there is no relay.
    pub(crate) fn before(
        &self,
        changes: &[Change],
        keys: Option<&Keys>,
        was_there: impl Fn(&Key) -> Option<bool>,
    ) -> Vec<Before> {
        if !self.relay.is_on() {
            return changes.iter().map(|_| Before::default()).collect();
        }
        let of_keys = changes.iter().map(Change::key);
        let state = self.state.lock();
        let before = of_keys.map(|key| {
            let ino = key.and_then(|key| state.watched(&self.settings.names.encode(key)));
            let directories = key.zip(keys).map(|(key, keys)| self.directories_of(&state, key, keys));
            let directories = directories.unwrap_or_default();
            Before { ino, there: key.and_then(&was_there), directories }
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

    /// Orders what follows from `changes`.
    pub(crate) fn announce(self: &Arc<Self>, changes: Vec<(Change, Before)>) {
        if !self.relay.is_on() {
            return;
        }
        let mut emptied = BTreeSet::new();
        for (change, before) in changes {
            let (kind, key, meta) = match change {
                Change::Set(key, meta) => (self.kind_of_set(&key, &meta, &before), key, meta),
                Change::Deleted(key, _) => (Kind::Deleted, key, nobody()),
                Change::Everything | Change::Paused | Change::Resumed => continue,
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
                    .for_each(|(new, _)| self.announce_directory(new, false)),
            }
            self.state.lock().no_longer_replaced(&name, before.ino);
            self.relay.add(RelayEvent { kind, name, key, meta, old: before.ino });
        }
        // A directory goes after all that was in it.
        emptied.iter().rev().for_each(|old| self.announce_directory(old, true));
    }

    /// Orders what is to be told of a directory that was there, or was not, before a change.
    fn announce_directory(&self, path: &str, was_there: bool) {
        let Some(keys) = self.cache.peek_keys() else { return };
        let kind = match (was_there, self.is_directory(path, &keys.value)) {
            (false, true) => Kind::DirectoryMade,
            (true, false) => Kind::DirectoryRemoved,
            (true, true) | (false, false) => return,
        };
        self.relay.add(RelayEvent {
            kind,
            name: path.to_owned(),
            key: Key::from(""),
            meta: nobody(),
            old: None,
        });
    }

    fn kind_of_set(&self, key: &Key, meta: &Meta, before: &Before) -> Kind {
        let name = self.settings.names.encode(key);
        match before.ino {
            // The first version, which somebody has looked at before it was told of.
            _ if meta.created == meta.modified => Kind::Created,
            Some(old) if self.state.lock().paths().current(&name) == Some(old) => Kind::Set,
            Some(_) => Kind::Replaced,
            None if before.there.unwrap_or(true) => Kind::Set,
            None => Kind::Created,
        }
    }

    /// What the relay shall find; `None` for others, and where it shall find what they find.
    pub(crate) fn relay_lookup(&self, caller: Caller, name: &str) -> Option<Found> {
        let event = self.relay_event(caller)?;
        let absent = Found { attr: None, ttl: Duration::ZERO };
        let mut state = self.state.lock();
        let ino = match event.kind {
            Kind::Replaced if name.ends_with(TEMPORARY) => state.current_or_shadow(event.file()),
            Kind::Replaced | Kind::Deleted if event.name == name => {
                if event.kind == Kind::Deleted && self.is_there(&state, &event) {
                    return Some(absent);
                }
                let is_it = |old: &Ino| state.inode(*old).ok().is_some_and(|inode| inode.name == name);
                event.old.filter(is_it).unwrap_or_else(|| state.shadow(event.file()))
            }
            Kind::DirectoryRemoved if event.name == name => state.removed_or_shadow(name),
            Kind::Deleted | Kind::DirectoryRemoved if is_inside(&event.name, name) => {
                state.removed_or_shadow(name)
            }
            Kind::Created if event.name == name => return Some(absent),
            _ => return None,
        };
        self.shown_to_relay(&mut state, ino).ok()
    }

    /// The path of what the relay asks for in a directory that is gone.
    pub(crate) fn relay_path(&self, caller: Caller, within: Ino, name: &str) -> Option<String> {
        let state = self.relay.is(caller).then(|| self.state.lock())?;
        let directory = state.inode(within).ok().filter(|inode| inode.unlinked)?;
        Some(join(&directory.name, name))
    }

    /// Whether a directory shall be new to the relay.
    pub(crate) fn is_new_to_relay(&self, caller: Caller, path: &str) -> bool {
        let event = self.relay_event(caller);
        event.is_some_and(|event| event.kind == Kind::DirectoryMade && event.name == path)
    }

    /// The relay makes a directory that exists, or removes one that is gone.
    pub(crate) fn relay_directory(&self, caller: Caller, path: &str) -> Option<FsResult<()>> {
        self.relay.is(caller).then(|| {
            let event = self.relay_event(caller).filter(|event| event.name == path);
            let known =
                |event: &RelayEvent| matches!(event.kind, Kind::DirectoryMade | Kind::DirectoryRemoved);
            event.filter(known).map(drop).ok_or(FsError::NotFound)
        })
    }

    /// The relay opens whatever it found.
    pub(crate) fn relay_open(&self, caller: Caller) -> Option<Opened> {
        self.relay.is(caller).then_some(Opened { fh: HANDLE, direct: false, no_flush: true })
    }

    /// The relay creates the file of a key that exists.
    pub(crate) fn relay_create(&self, caller: Caller, name: &str) -> Option<FsResult<(Found, Opened)>> {
        let opened = self.relay_open(caller)?;
        let event = self.relay_event(caller);
        let Some(event) = event.filter(|event| event.kind == Kind::Created && event.name == name) else {
            return Some(Err(FsError::NotFound));
        };
        let mut state = self.state.lock();
        let local = state.named(name).is_some_and(|(_, inode)| !matches!(inode.body, Body::Key(_)));
        let gone = self.peek_meta(&event.key).is_some_and(|told| told.value.is_none());
        if local || gone {
            return Some(Err(if local { FsError::Exists } else { FsError::NotFound }));
        }
        // The kernel takes the attributes in this answer for the newest, whatever it was told since: they must not be those
        // of an inode that goes on as a newer version.
        let ino = state.shadow(event.file());
        Some(self.shown_to_relay(&mut state, ino).map(|found| (found, opened)))
    }

    /// The relay removes the file of a key that is gone.
    pub(crate) fn relay_unlink(&self, caller: Caller, name: &str) -> Option<FsResult<()>> {
        self.relay.is(caller).then(|| {
            let event = self.relay_event(caller).filter(|event| event.name == name);
            let event = event.filter(|event| event.kind == Kind::Deleted).ok_or(FsError::NotFound)?;
            if self.is_there(&self.state.lock(), &event) { Err(FsError::NotFound) } else { Ok(()) }
        })
    }

    /// The relay renames the new inode of a key over the old one.
    pub(crate) fn relay_rename(&self, caller: Caller, to: &str) -> Option<FsResult<()>> {
        self.relay.is(caller).then(|| {
            let event = self.relay_event(caller).filter(|event| event.kind == Kind::Replaced);
            event.filter(|event| event.name == to).map(drop).ok_or(FsError::NotFound)
        })
    }

    fn relay_event(&self, caller: Caller) -> Option<RelayEvent> {
        self.relay.is(caller).then(|| self.relay.current())?
    }

    /// Whether a file that was deleted is there again.
    fn is_there(&self, state: &State, event: &RelayEvent) -> bool {
        state.paths().current(&event.name).is_some()
            || self.cache.peek(&event.key).is_some_and(|answer| answer.value.is_some())
    }

    fn shown_to_relay(&self, state: &mut State, ino: Ino) -> FsResult<Found> {
        state.count_lookup(ino);
        let mut attr = self.attr_in(state, ino, None)?;
        attr.links = if attr.directory { 2 } else { 1 };
        Ok(Found { attr: Some(attr), ttl: Duration::ZERO })
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Store;

    use crate::fs::types::{Access, ROOT};
    use crate::store::{Expect, Text};

    use super::*;

    const HERALD: Caller = Caller { thread: 7, uid: 0, gid: 0 };

    #[tokio::test]
    async fn what_the_relay_creates_is_never_the_inode_that_goes_on_as_a_newer_version() {
        let (fs, elsewhere) = Fs::in_memory(Duration::ZERO);
        fs.start_relay();
        fs.relay().set_pid(HERALD.thread);
        let (key, text) = (Key::from("k"), Text::from(&b"1"[..]));
        let meta = elsewhere.set_key_value(&key, text, Expect::Anything).await.unwrap();
        let caller = Caller { thread: 1, ..HERALD };
        let known = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap();
        fs.apply_all(vec![Change::Set(key, meta)], |_| None).await;
        assert_eq!(fs.relay().next().kind, Kind::Created);
        let access = Access { write: true, append: false, truncate: false };
        let (created, _) = fs.create(HERALD, (ROOT, "k"), 0o666, access, true).unwrap();
        assert_ne!(created.attr.unwrap().ino, known.ino);
    }
}
