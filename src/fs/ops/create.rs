//! New files. Creating one never asks the store: the kernel holds the whole directory while it waits.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::fs::core::Fs;
use crate::fs::ops::granted::draft_of;
use crate::fs::ops::hand_over::Begun;
use crate::fs::ops::resolve::Resolved;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{Decoded, base, parent};
use crate::fs::rules::scratch::Class;
use crate::fs::settings::OfNew;
use crate::fs::state::drafts::{Draft, Publish};
use crate::fs::state::nodes::{Body, Content, Handle, Overrides};
use crate::fs::state::tables::State;
use crate::fs::state::unlinked::unlinked;
use crate::fs::types::{Access, Caller, DraftId, Found, Ino, Opened, SETGID};
use crate::store::{Expect, Key};

/// A new local file, in the place of what the tables may still have under its name.
fn add_local(state: &mut State, name: &str, key: &Key, draft: DraftId) -> Ino {
    state.remove_name(name);
    state.end_file(name);
    let ino = state.add_inode(name, key, Body::Local(draft));
    state.lead_to(name, ino);
    ino
}

/// What becomes of a new file of this class, whose name a key can have or not.
const fn purpose_of_new(class: Class, fit_for_key: bool) -> Publish {
    match class {
        Class::Key if fit_for_key => Publish::OnClose,
        Class::Soft if fit_for_key => Publish::OnRename,
        Class::Key | Class::Soft | Class::Hard => Publish::Never,
    }
}

impl Fs {
    /// As [`Fs::create`], for all but the relay.
    pub(crate) fn create_file(
        &self,
        caller: Caller,
        (within, name): (Ino, &str),
        mode: u32,
        access: Access,
        exclusive: bool,
    ) -> FsResult<(Found, Opened)> {
        self.writable()?;
        let (name, mut state) = self.place_of_new(within, name)?;
        let removed = state.take_predecessor(&name, caller.thread);
        let created = self.create_at(&mut state, caller, &name, mode, access, exclusive);
        match (&created, removed) {
            (Ok((_, opened)), Some(removed)) => {
                if let Ok((_, draft)) = state.draft_of(opened.fh) {
                    draft.predecessor = Some(removed);
                }
            }
            (Err(why), Some(removed)) if !why.is_routine() => state.not_made(&name, removed, why.clone()),
            (_, None) | (Err(_), Some(_)) => {}
        }
        created
    }

    fn create_at(
        &self,
        state: &mut State,
        caller: Caller,
        name: &str,
        mode: u32,
        access: Access,
        exclusive: bool,
    ) -> FsResult<(Found, Opened)> {
        if exclusive && state.paths().current(name).is_some() {
            return Err(FsError::Exists);
        }
        let class = self.settings.scratch.class(base(name), exclusive);
        let key = self.key_for_new(name)?;
        // The kernel found no such file, but another process may have set the key since.
        let entry = key.as_ref().and_then(|key| self.cache.peek(key)?.value);
        let deferred = state.paths().deferred_rename(name).is_some();
        if exclusive && entry.is_some() && !deferred {
            return Err(FsError::Exists);
        }
        // The successor of a key that was renamed to a backup is a new file for who writes it.
        let entry = entry.filter(|_| !deferred);
        let there = entry.is_some();
        let purpose = if there { Publish::OnClose } else { purpose_of_new(class, key.is_some()) };
        let key = key.unwrap_or_else(|| Key::from(name));
        if let Some(error) = self.cache.outage().filter(|_| purpose == Publish::OnClose && !deferred) {
            return Err(error.into());
        }
        // Who asks for no truncation means to go on from what is there: nothing, as far as it knows.
        let expect =
            if access.truncate && !exclusive || deferred { Expect::Anything } else { Expect::Absent };
        let mut draft = match entry {
            Some(entry) => draft_of(entry, access),
            None => Draft::new(Vec::new(), purpose, expect, state.now()),
        };
        draft.exclusive = exclusive;
        let attributes = self.attributes_of_new(state, name, caller, mode, false);
        if !there {
            self.room_for_name(state)?;
            state.room_for_attributes(state.paths().attributes(name).as_ref(), &attributes)?;
        }
        let draft = state.add_draft_of_key(name, caller.thread, draft);
        let ino = if there {
            state.add_inode(name, &key, Body::Draft(draft))
        } else {
            let ino = add_local(state, name, &key, draft);
            state.keep_directory(parent(name));
            state.touch(name);
            state.paths_mut().set_attributes(name, Some(attributes));
            ino
        };
        let fh = state.add_handle(Handle::new(caller.thread, ino, Content::Draft(draft), true));
        state.end_redirect(caller.thread);
        state.count_lookup(ino, Duration::ZERO);
        let attr = self.attr_in(state, ino, None)?;
        Ok((Found { attr: Some(attr), ttl: Duration::ZERO }, Opened { fh, direct: false, no_flush: false }))
    }

    /// mknod(2) of a regular file: creates and closes it, which sets the empty value where any bytes are one.
    pub async fn make_file(
        self: Arc<Self>,
        caller: Caller,
        (within, name): (Ino, &str),
        mode: u32,
    ) -> FsResult<Found> {
        let access = Access { write: true, append: false, truncate: false };
        let _change = self.admit(caller, Begun::New(within, name)).await?;
        let (found, Opened { fh, .. }) = self.create_file(caller, (within, name), mode, access, true)?;
        let closed = match self.publish_complete(fh).await {
            Err(error) => Err(self.put_back_at_close(fh, error).await),
            Ok(()) => Ok(()),
        };
        self.clone().release(fh).await;
        if let (Err(_), Some(attr)) = (&closed, found.attr) {
            let mut state = self.state.lock();
            let name = state.inode(attr.ino)?.name.clone();
            if state.paths().current(&name) == Some(attr.ino) {
                unlinked(&mut state, &name);
            }
            state.forget(attr.ino, 1);
        }
        closed.map(|()| found)
    }

    /// The path of a new file, and the tables, in which its directory is where it was.
    fn place_of_new(&self, within: Ino, name: &str) -> FsResult<(String, MutexGuard<'_, State>)> {
        loop {
            let path = match self.known_place(within, name)? {
                Resolved::File(path) => path,
                Resolved::Directory(..) => return Err(FsError::IsDirectory),
                Resolved::Nothing(_) => return Err(FsError::BadName),
            };
            let state = self.state.lock();
            if state.directory_path(within)? == parent(&path) {
                return Ok((path, state));
            }
        }
    }

    /// What is to be known of the file or directory that `caller` makes at `path` with `mode`, as on a local disk. Where the store
    /// keeps none of that the options decide, as they do after a restart.
    pub(crate) fn attributes_of_new(
        &self,
        state: &State,
        path: &str,
        caller: Caller,
        mode: u32,
        is_directory: bool,
    ) -> Overrides {
        let settings = &self.settings;
        let usual = if is_directory { 0o777 } else { 0o666 } & !settings.umask;
        let (mut mode, uid, mut gid) = match settings.of_new {
            OfNew { uid, gid, umask } if self.cache.keeps_attributes() => {
                (mode & 0o7777 & !umask, uid.unwrap_or(caller.uid), gid.unwrap_or(caller.gid))
            }
            _ => (usual, settings.uid, settings.gid),
        };
        if let Some(group) = self.group_in(state, parent(path)) {
            gid = group;
            mode |= if is_directory { SETGID } else { 0 };
        }
        let own = |set: u32, default: u32| (set != default).then_some(set);
        Overrides {
            mode: own(mode, usual),
            uid: own(uid, settings.uid),
            gid: own(gid, settings.gid),
            changed: Some(settings.clock.now()),
            ..Overrides::default()
        }
    }

    /// The group that the directory at `path` gives to what is new in it, if it does.
    fn group_in(&self, state: &State, path: &str) -> Option<u32> {
        let set = state.directory(path)?.set;
        let gives = set.mode.is_some_and(|mode| mode & SETGID != 0);
        gives.then(|| set.gid.unwrap_or(self.settings.gid))
    }

    /// The key for a new file called `name`; `None` for a name that no key can have and a scratch file may.
    pub(crate) fn key_for_new(&self, name: &str) -> FsResult<Option<Key>> {
        let refused = match self.settings.names.decode(name.as_ref()) {
            Decoded::Key(key) => match self.cache.limits().check(&key, &[]) {
                Ok(()) => return Ok(Some(key)),
                Err(error) => error.into(),
            },
            Decoded::Foreign if self.settings.names.decode_directory(name) == Decoded::Foreign => {
                FsError::BadName
            }
            Decoded::Foreign => FsError::NoExtension(self.settings.names.extension().to_owned()),
            Decoded::Alias | Decoded::Impossible => return Err(FsError::BadName),
        };
        // Whether it is created exclusively matters no more: it can be nothing but a scratch file.
        match self.settings.scratch.class(base(name), true) {
            Class::Hard | Class::Soft => Ok(None),
            Class::Key => Err(refused),
        }
    }
}
