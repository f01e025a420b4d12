//! What the relay is answered. It is known by its process id, and nothing of what it asks for is done: it only learns that
//! it was. So the store never hears of it, and a mistake costs an event, never a value. The kernel holds the lock of a
//! directory for it, which nobody else shall have to wait for: nothing waits here.

use std::sync::Arc;
use std::time::Duration;

use crate::fs::core::Fs;
use crate::fs::inotify::queue::{HANDLE, Kind, RelayEvent};
use crate::fs::inotify::relay::TEMPORARY;
use crate::fs::ops::resolve::Resolved;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{is_inside, join};
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::types::{Caller, Found, Ino, Opened};

/// The relay finds nothing there.
const ABSENT: Found = Found { attr: None, ttl: Duration::ZERO };
/// The relay has whatever it found open.
const OPENED: Opened = Opened { fh: HANDLE, direct: false, no_flush: true };

impl Fs {
    /// The event for which the relay asks; `None` for all other callers.
    pub(crate) fn relayed(&self, caller: Caller) -> Option<FsResult<RelayEvent>> {
        self.relay.is(caller).then(|| self.relay.current().ok_or(FsError::NotFound))
    }

    /// What a name stands for, by what is remembered; also in a directory that is gone.
    fn relay_place(&self, within: Ino, name: &str) -> FsResult<Resolved> {
        let state = self.state.lock();
        let directory = match state.inode(within) {
            Ok(inode) if inode.unlinked => inode.name.clone(),
            _ => state.directory_path(within)?,
        };
        drop(state);
        Ok(self.remembered_place(join(&directory, name)))
    }

    /// As [`Fs::relay_place`], of a file.
    fn relay_path(&self, within: Ino, name: &str) -> FsResult<String> {
        match self.relay_place(within, name)? {
            Resolved::File(path) => Ok(path),
            Resolved::Directory(..) | Resolved::Nothing(_) => Err(FsError::NotFound),
        }
    }

    /// The relay finds the inode that may be watched, or nothing where it shall create something.
    pub(crate) fn relay_lookup(
        self: &Arc<Self>,
        caller: Caller,
        event: &RelayEvent,
        within: Ino,
        name: &str,
    ) -> FsResult<Found> {
        match self.relay_place(within, name)? {
            Resolved::Directory(path, _) if event.is(Kind::DirectoryMade, &path) => Ok(ABSENT),
            Resolved::Directory(path, ttl) => Ok(self.found_directory(&mut self.state.lock(), &path, ttl)),
            Resolved::Nothing(_) => Ok(ABSENT),
            Resolved::File(path) => {
                self.forget_removed(&path);
                self.relay_lookup_file(caller, event, &path)
            }
        }
    }

    fn relay_lookup_file(
        self: &Arc<Self>,
        caller: Caller,
        event: &RelayEvent,
        path: &str,
    ) -> FsResult<Found> {
        let known = || self.lookup_known(caller, path, None);
        let mut state = self.state.lock();
        let ino = match event.kind {
            Kind::Replaced if path.ends_with(TEMPORARY) => state.current_or_shadow(event.file()),
            Kind::Deleted if event.name == path && self.is_there(&state, event) => return Ok(ABSENT),
            Kind::Replaced | Kind::Deleted if event.name == path => {
                let is_it = |old: &Ino| state.inode(*old).is_ok_and(|inode| inode.name == path);
                event.old.filter(is_it).unwrap_or_else(|| state.shadow(event.file()))
            }
            // What the kernel saw removed it never uses again, and who is in a directory stays in it.
            Kind::DirectoryRemoved if event.name == path => state.directory_shadow(path),
            Kind::Deleted | Kind::DirectoryRemoved if is_inside(&event.name, path) => {
                state.removed_or_shadow(path)
            }
            Kind::Set if event.name == path => {
                if let Some(home) = state.paths().home(path) {
                    return self.shown_to_relay(&mut state, home);
                }
                drop(state);
                if let Some(found) = known() {
                    return Ok(found);
                }
                state = self.state.lock();
                state.shadow(event.file())
            }
            _ => return Ok(ABSENT),
        };
        self.shown_to_relay(&mut state, ino)
    }

    /// The relay opens whatever it found.
    pub(crate) const fn relay_open(_: &RelayEvent) -> Opened {
        OPENED
    }

    /// The relay creates the file of a key that exists.
    pub(crate) fn relay_create(
        &self,
        event: &RelayEvent,
        within: Ino,
        name: &str,
    ) -> FsResult<(Found, Opened)> {
        let path = self.relay_path(within, name)?;
        if !event.is(Kind::Created, &path) {
            return Err(FsError::NotFound);
        }
        let mut state = self.state.lock();
        if state.named(&path).is_some_and(|(_, inode)| !matches!(inode.body, Body::Key(_))) {
            return Err(FsError::Exists);
        }
        if self.peek_meta(&event.key).is_some_and(|told| told.value.is_none()) {
            return Err(FsError::NotFound);
        }
        // The kernel takes the attributes in this answer for the newest, whatever it was told since: they must not be those
        // of an inode that goes on as a newer version.
        let ino = state.shadow(event.file());
        Ok((self.shown_to_relay(&mut state, ino)?, OPENED))
    }

    /// The relay removes the file of a key that is gone.
    pub(crate) fn relay_unlink(&self, event: &RelayEvent, within: Ino, name: &str) -> FsResult<()> {
        let path = self.relay_path(within, name)?;
        let is_gone = event.is(Kind::Deleted, &path) && !self.is_there(&self.state.lock(), event);
        if is_gone { Ok(()) } else { Err(FsError::NotFound) }
    }

    /// The relay renames the new inode of a key over the old one.
    pub(crate) fn relay_rename(&self, event: &RelayEvent, within: Ino, to: &str) -> FsResult<()> {
        let to = self.relay_path(within, to)?;
        if event.is(Kind::Replaced, &to) { Ok(()) } else { Err(FsError::NotFound) }
    }

    /// The relay makes a directory that exists.
    pub(crate) fn relay_make_directory(
        &self,
        event: &RelayEvent,
        within: Ino,
        name: &str,
    ) -> FsResult<Found> {
        match self.relay_place(within, name)? {
            Resolved::Directory(path, _) if event.is(Kind::DirectoryMade, &path) => {
                Ok(self.found_directory(&mut self.state.lock(), &path, Duration::ZERO))
            }
            Resolved::Directory(..) => Err(FsError::Exists),
            Resolved::File(_) | Resolved::Nothing(_) => Err(FsError::NotFound),
        }
    }

    /// The relay removes a directory that is gone.
    pub(crate) fn relay_remove_directory(&self, event: &RelayEvent, within: Ino, name: &str) -> FsResult<()> {
        match self.relay_place(within, name)? {
            Resolved::File(path) if event.is(Kind::DirectoryRemoved, &path) => Ok(()),
            Resolved::Directory(..) => Err(FsError::NotEmpty),
            Resolved::File(_) | Resolved::Nothing(_) => Err(FsError::NotFound),
        }
    }

    fn shown_to_relay(&self, state: &mut State, ino: Ino) -> FsResult<Found> {
        state.count_lookup(ino, Duration::ZERO);
        let mut attr = self.attr_in(state, ino, None)?;
        attr.links = if attr.directory { 2 } else { 1 };
        Ok(Found { attr: Some(attr), ttl: Duration::ZERO })
    }
}

#[cfg(test)]
mod tests {
    use crate::fs::types::{Access, ROOT};
    use crate::store::{Change, Expect, Key, Store, Text};

    use super::*;

    const RELAY: Caller = Caller { thread: 7, uid: 0, gid: 0 };

    #[tokio::test]
    async fn what_the_relay_creates_is_never_the_inode_that_goes_on_as_a_newer_version() {
        let (fs, elsewhere) = Fs::in_memory(Duration::ZERO);
        fs.start_relay();
        fs.relay().set_pid(RELAY.thread);
        let (key, text) = (Key::from("k"), Text::from(&b"1"[..]));
        let meta = elsewhere.set_key_value(&key, text, Expect::Anything).await.unwrap();
        let caller = Caller { thread: 1, ..RELAY };
        let known = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap();
        fs.take_in(Change::Set(key, meta)).await;
        assert_eq!(fs.relay().next().kind, Kind::Created);
        let access = Access { write: true, append: false, truncate: false };
        let (created, _) = fs.create(RELAY, (ROOT, "k"), 0o666, access, true).unwrap();
        assert_ne!(created.attr.unwrap().ino, known.ino);
    }
}
