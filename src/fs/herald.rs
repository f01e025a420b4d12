//! Changes made elsewhere, for those who watch files by inotify (`--notify`).
//!
//! inotify is silent for what does not go through the mount. So a process of this mount, the herald, goes through it:
//! it opens a file that was set, creates one that is new, renames one over another whose inode is kept by readers, and
//! removes one that is gone. It is known by its process id, and nothing of what it asks for is done: it only learns
//! that it was. So the store never hears of it, and a mistake costs an event, never a value.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::inodes::{Body, Fh, Ino, State};
use super::names::{is_inside, join, ways_to};
use super::{Caller, Found, Fs, FsError, FsResult, Notice, Opened};
use crate::cache::Keys;
use crate::store::{Change, Key, Meta, Revision};

/// The herald's handle on every file.
pub(super) const HANDLE: Fh = Fh(u64::MAX);
/// The name from which the herald renames; nobody else finds it.
pub const TEMPORARY: &str = ".kvfs-herald";
/// Most orders that wait.
const MOST: usize = 16_384;

/// What the herald shall make the kernel tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The file has a new value.
    Set,
    /// The file is new.
    Created,
    /// The file has a new value and a new inode: readers hold the old one.
    Replaced,
    /// The file is gone.
    Deleted,
    /// The directory is new.
    DirectoryMade,
    /// The directory is gone.
    DirectoryRemoved,
}

/// One event to be made.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which.
    pub kind: Kind,
    /// The file name.
    pub name: String,
    key: Key,
    meta: Meta,
    /// The inode that the kernel knew under this name, which may be watched.
    old: Option<Ino>,
}

/// The orders, and who carries them out.
#[derive(Default)]
pub struct Herald {
    on: AtomicBool,
    process: AtomicU32,
    orders: Mutex<Orders>,
    wake: Condvar,
}

#[derive(Default)]
struct Orders {
    waiting: VecDeque<Order>,
    names: HashSet<(Kind, String)>,
    current: Option<Order>,
    dropped: bool,
}

/// What was known of a file before a change of its key was taken in.
#[derive(Debug, Default)]
pub(super) struct Before {
    ino: Option<Ino>,
    there: Option<bool>,
    /// The directories on the way to it, outermost first, and whether they are there.
    directories: Vec<(String, bool)>,
}

impl Herald {
    /// Makes the process `id` the herald; 0 for none. To be called before it does anything, and after its end.
    pub fn employ(&self, id: u32) {
        self.orders.lock().current = None;
        self.process.store(id, Ordering::Release);
    }

    /// Waits for the next order, which is carried out from now on.
    pub fn next(&self) -> Order {
        let mut orders = self.orders.lock();
        orders.current = None;
        loop {
            if let Some(order) = orders.waiting.pop_front() {
                orders.names.remove(&(order.kind, order.name.clone()));
                orders.current = Some(order.clone());
                return order;
            }
            orders.dropped = false;
            self.wake.wait(&mut orders);
        }
    }

    /// Whether there are any who are told.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    pub(super) fn is(&self, caller: Caller) -> bool {
        caller.thread != 0 && caller.thread == self.process.load(Ordering::Acquire)
    }

    fn current(&self) -> Option<Order> {
        self.orders.lock().current.clone()
    }

    fn add(&self, mut order: Order) {
        let mut orders = self.orders.lock();
        let is_waiting = |kind, name: &str| orders.names.contains(&(kind, name.to_owned()));
        if matches!(order.kind, Kind::Set | Kind::Replaced) && is_waiting(Kind::Deleted, &order.name) {
            order.kind = Kind::Created;
        }
        // Each order is about how things are when it is carried out: one of a kind is enough.
        if is_waiting(order.kind, &order.name) {
            return;
        }
        if orders.waiting.len() >= MOST {
            if !std::mem::replace(&mut orders.dropped, true) {
                tracing::warn!("too many changes at once: programs that watch files are not told of some");
            }
            return;
        }
        orders.names.insert((order.kind, order.name.clone()));
        orders.waiting.push_back(order);
        self.wake.notify_one();
    }
}

impl Fs {
    /// Where those who watch files are told of changes made elsewhere.
    pub fn herald(&self) -> &Herald {
        &self.herald
    }

    /// From now on those who watch files are told.
    pub fn start_herald(&self) {
        self.state.lock().heralded = true;
        self.herald.on.store(true, Ordering::Release);
    }

    /// Makes the kernel forget the names that must be new to it for the order to be carried out. Not to be called by the
    /// threads that answer it.
    pub fn prepare(&self, order: &Order) {
        if let Some(done) = self.notify(self.to_forget(order)) {
            // An error means that the kernel is gone.
            _ = done.blocking_recv();
        }
    }

    /// What stands in the way of the order: also what the kernel knows to be absent, since somebody looked for it.
    fn to_forget(&self, order: &Order) -> Vec<Notice> {
        let mut names: Vec<&str> = match order.kind {
            Kind::Set => return Vec::new(),
            Kind::Created | Kind::Replaced | Kind::DirectoryMade => Vec::new(),
            Kind::Deleted if self.is_there(&self.state.lock(), order) => return Vec::new(),
            Kind::Deleted | Kind::DirectoryRemoved => ways_to(&order.name).collect(),
        };
        let keys = self.cache.peek_keys().filter(|_| self.settings.names.has_directories());
        names.retain(|way| keys.as_ref().is_some_and(|keys| !self.is_directory(way, &keys.value)));
        names.push(&order.name);
        names.into_iter().map(|name| Notice::Entry(name.to_owned())).collect()
    }

    /// What is known of files before `changes` are taken in, when there were these `keys`; nothing if there is no herald.
    pub(super) fn before(
        &self,
        changes: &[Change],
        keys: Option<&Keys>,
        was_there: impl Fn(&Key) -> Option<bool>,
    ) -> Vec<Before> {
        if !self.herald.is_on() {
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
        ways_to(&path).map(|way| (way.to_owned(), there(way))).collect()
    }

    /// Orders what follows from `changes`.
    pub(super) fn announce(self: &Arc<Self>, changes: Vec<(Change, Before)>) {
        if !self.herald.is_on() {
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
            self.herald.add(Order { kind, name, key, meta, old: before.ino });
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
        self.herald.add(Order { kind, name: path.to_owned(), key: Key::from(""), meta: nobody(), old: None });
    }

    fn kind_of_set(&self, key: &Key, meta: &Meta, before: &Before) -> Kind {
        let name = self.settings.names.encode(key);
        match before.ino {
            // The first version, which somebody has looked at before it was told of.
            _ if meta.created == meta.modified => Kind::Created,
            Some(old) if self.state.lock().names.get(&name) == Some(&old) => Kind::Set,
            Some(_) => Kind::Replaced,
            None if before.there.unwrap_or(true) => Kind::Set,
            None => Kind::Created,
        }
    }

    /// What the herald shall find; `None` for others, and where it shall find what they find.
    pub(super) fn herald_lookup(&self, caller: Caller, name: &str) -> Option<Found> {
        let order = self.herald_order(caller)?;
        let absent = Found { attr: None, ttl: Duration::ZERO };
        let mut state = self.state.lock();
        let ino = match order.kind {
            Kind::Replaced if name.ends_with(TEMPORARY) => state.current_or_shadow(&order),
            Kind::Replaced | Kind::Deleted if order.name == name => {
                if order.kind == Kind::Deleted && self.is_there(&state, &order) {
                    return Some(absent);
                }
                let is_it = |old: &Ino| state.inodes.get(old).is_some_and(|inode| inode.name == name);
                order.old.filter(is_it).unwrap_or_else(|| state.shadow(&order))
            }
            Kind::DirectoryRemoved if order.name == name => state.vanished_or_shadow(name),
            Kind::Deleted | Kind::DirectoryRemoved if is_inside(&order.name, name) => {
                state.vanished_or_shadow(name)
            }
            Kind::Created if order.name == name => return Some(absent),
            _ => return None,
        };
        self.heralded(&mut state, ino).ok()
    }

    /// The path of what the herald asks for in a directory that is gone.
    pub(super) fn herald_path(&self, caller: Caller, within: Ino, name: &str) -> Option<String> {
        let state = self.herald.is(caller).then(|| self.state.lock())?;
        let directory = state.inodes.get(&within).filter(|inode| inode.unlinked)?;
        Some(join(&directory.name, name))
    }

    /// Whether a directory shall be new to the herald.
    pub(super) fn is_new_to_herald(&self, caller: Caller, path: &str) -> bool {
        let order = self.herald_order(caller);
        order.is_some_and(|order| order.kind == Kind::DirectoryMade && order.name == path)
    }

    /// The herald makes a directory that exists, or removes one that is gone.
    pub(super) fn herald_directory(&self, caller: Caller, path: &str) -> Option<FsResult<()>> {
        self.herald.is(caller).then(|| {
            let order = self.herald_order(caller).filter(|order| order.name == path);
            let known = |order: &Order| matches!(order.kind, Kind::DirectoryMade | Kind::DirectoryRemoved);
            order.filter(known).map(drop).ok_or(FsError::NotFound)
        })
    }

    /// The herald opens whatever it found.
    pub(super) fn herald_open(&self, caller: Caller) -> Option<Opened> {
        self.herald.is(caller).then_some(Opened { fh: HANDLE, direct: false, quiet: true })
    }

    /// The herald creates the file of a key that exists.
    pub(super) fn herald_create(&self, caller: Caller, name: &str) -> Option<FsResult<(Found, Opened)>> {
        let opened = self.herald_open(caller)?;
        let order = self.herald_order(caller);
        let Some(order) = order.filter(|order| order.kind == Kind::Created && order.name == name) else {
            return Some(Err(FsError::NotFound));
        };
        let mut state = self.state.lock();
        let local = state.named(name).is_some_and(|(_, inode)| !matches!(inode.body, Body::Key(_)));
        let gone = self.peek_meta(&order.key).is_some_and(|told| told.value.is_none());
        if local || gone {
            return Some(Err(if local { FsError::Exists } else { FsError::NotFound }));
        }
        // The kernel takes the attributes in this answer for the newest, whatever it was told since: they must not be those
        // of an inode that goes on as a newer version.
        let ino = state.shadow(&order);
        Some(self.heralded(&mut state, ino).map(|found| (found, opened)))
    }

    /// The herald removes the file of a key that is gone.
    pub(super) fn herald_unlink(&self, caller: Caller, name: &str) -> Option<FsResult<()>> {
        self.herald.is(caller).then(|| {
            let order = self.herald_order(caller).filter(|order| order.name == name);
            let order = order.filter(|order| order.kind == Kind::Deleted).ok_or(FsError::NotFound)?;
            if self.is_there(&self.state.lock(), &order) { Err(FsError::NotFound) } else { Ok(()) }
        })
    }

    /// The herald renames the new inode of a key over the old one.
    pub(super) fn herald_rename(&self, caller: Caller, to: &str) -> Option<FsResult<()>> {
        self.herald.is(caller).then(|| {
            let order = self.herald_order(caller).filter(|order| order.kind == Kind::Replaced);
            order.filter(|order| order.name == to).map(drop).ok_or(FsError::NotFound)
        })
    }

    fn herald_order(&self, caller: Caller) -> Option<Order> {
        self.herald.is(caller).then(|| self.herald.current())?
    }

    /// Whether a file that was deleted is there again.
    fn is_there(&self, state: &State, order: &Order) -> bool {
        state.names.contains_key(&order.name)
            || self.cache.peek(&order.key).is_some_and(|answer| answer.value.is_some())
    }

    fn heralded(&self, state: &mut State, ino: Ino) -> FsResult<Found> {
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.lookups += 1;
        }
        let mut attr = self.attr_in(state, ino, None)?;
        attr.links = if attr.directory { 2 } else { 1 };
        Ok(Found { attr: Some(attr), ttl: Duration::ZERO })
    }
}

impl State {
    /// The inode of the name, or one that stands for it.
    fn current_or_shadow(&mut self, order: &Order) -> Ino {
        match self.named(&order.name) {
            Some((ino, inode)) if matches!(inode.body, Body::Key(_)) => ino,
            _ => self.shadow(order),
        }
    }

    /// The inode of a directory that is gone, which may be watched, or one that stands for it.
    fn vanished_or_shadow(&mut self, path: &str) -> Ino {
        if let Some(ino) = self.vanished.get(path) {
            return *ino;
        }
        self.unnamed(path, &Key::from(""), Body::Directory)
    }

    fn shadow(&mut self, order: &Order) -> Ino {
        self.unnamed(&order.name, &order.key, Body::Key(order.meta.clone()))
    }

    /// An inode that no name leads to, for as long as the kernel refers to it.
    fn unnamed(&mut self, name: &str, key: &Key, body: Body) -> Ino {
        let ino = self.add_inode(name, key, body);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.unlinked = true;
        }
        ino
    }
}

/// Of a key that is gone.
fn nobody() -> Meta {
    let time = std::time::SystemTime::now();
    Meta { id: "".into(), revision: Revision::default(), size: 0, created: time, modified: time }
}

#[cfg(test)]
mod tests {
    use super::super::{Access, ROOT};
    use super::*;
    use crate::store::{Expect, Store, Text};

    const HERALD: Caller = Caller { thread: 7, uid: 0, gid: 0 };

    #[tokio::test]
    async fn what_the_herald_creates_is_never_the_inode_that_goes_on_as_a_newer_version() {
        let (fs, elsewhere) = Fs::in_memory(Duration::ZERO);
        fs.start_herald();
        fs.herald().employ(HERALD.thread);
        let (key, text) = (Key::from("k"), Text::from(&b"1"[..]));
        let meta = elsewhere.set_key_value(&key, text, Expect::Anything).await.unwrap();
        let caller = Caller { thread: 1, ..HERALD };
        let known = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap();
        fs.take_in_all(vec![Change::Set(key, meta)], |_| None).await;
        assert_eq!(fs.herald().next().kind, Kind::Created);
        let access = Access { write: true, append: false, truncate: false };
        let (created, _) = fs.create(HERALD, (ROOT, "k"), 0o666, access, true).unwrap();
        assert_ne!(created.attr.unwrap().ino, known.ino);
    }
}
