//! The tables as a kernel and a store would use them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::drafts::{Draft, Publish};
use super::super::invalidation::PathInvalidation;
use super::super::locks::{Family, Kind, Lock, Owner, Range};
use super::super::nodes::{Body, Content, Handle, Inode};
use super::super::tables::State;
use super::super::unlinked::{unlinked, unlinked_elsewhere};
use super::super::versions::Origin;
use super::NOW;
use crate::fs::clock::SystemClock;
use crate::fs::rules::names::parent;
use crate::fs::types::{Fh, Ino};
use crate::store::{Expect, Key, Meta, Revision, Text};

/// The tables, and what the kernel and the store know.
pub(super) struct World {
    pub(super) state: State,
    pub(super) lookups: HashMap<Ino, u64>,
    /// The dentries that the kernel uses without a question.
    pub(super) dentries: HashMap<String, Ino>,
    pub(super) handles: Vec<Fh>,
    pub(super) store: BTreeMap<String, Meta>,
    pub(super) revision: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(Arc::new(SystemClock), true),
            lookups: HashMap::new(),
            dentries: HashMap::new(),
            handles: Vec::new(),
            store: BTreeMap::new(),
            revision: 0,
        }
    }

    pub(super) fn meta(&mut self, name: &str) -> Meta {
        self.revision += 1;
        let time = SystemTime::UNIX_EPOCH;
        let id = self.store.get(name).map(|meta| meta.id.clone());
        let meta = Meta {
            id: id.unwrap_or_else(|| self.revision.to_string().into()),
            revision: Revision(self.revision),
            size: 1,
            created: time,
            modified: time,
            attributes: None,
        };
        self.store.insert(name.to_owned(), meta.clone());
        meta
    }

    pub(super) fn count(&mut self, ino: Ino, ttl: Duration) {
        self.state.count_lookup(ino, ttl);
        *self.lookups.entry(ino).or_default() += 1;
    }

    /// The kernel takes notices in.
    pub(super) fn drop(&mut self, notices: Vec<PathInvalidation>) {
        for notice in notices {
            match notice {
                PathInvalidation::Entry(name) => {
                    self.dentries.remove(&name);
                }
                PathInvalidation::Inode(ino) => {
                    let inode = self.state.inode_mut(ino);
                    if let Some(inode) = inode
                        && inode.cached.begin_invalidation()
                    {
                        inode.cached.end_invalidation();
                    }
                }
                PathInvalidation::Listing(_) | PathInvalidation::Everything => {}
            }
        }
    }

    pub(super) fn lookup(&mut self, name: &str) -> Option<Ino> {
        if let Some(ino) = self.dentries.get(name) {
            return Some(*ino);
        }
        let known = self.state.named(name).map(|(ino, _)| ino);
        let (ino, notices) = match (known, self.store.get(name)) {
            (Some(ino), _) => (ino, Vec::new()),
            (None, Some(meta)) => self.state.instantiate(name, &Key::from(name), &meta.clone()),
            (None, None) => return None,
        };
        let lasts = !self.state.is_away(name) && matches!(self.state.inode(ino).unwrap().body, Body::Key(_));
        self.count(ino, if lasts { Duration::MAX } else { Duration::ZERO });
        if lasts {
            self.dentries.insert(name.to_owned(), ino);
        }
        self.drop(notices);
        Some(ino)
    }

    pub(super) fn open(&mut self, ino: Ino, content: Content, writable: bool) {
        self.handles.push(self.state.add_handle(Handle::new(1, ino, content, writable)));
    }

    /// Opens what a lookup finds for writing: where nobody else has it open, on the inode itself; else on one of its own.
    pub(super) fn open_write(&mut self, name: &str, follows: bool) {
        let Some(ino) = self.lookup(name) else { return };
        let inode = self.state.inode(ino).unwrap();
        let (key, meta) = match inode.body.clone() {
            Body::Local(draft) => return self.open(ino, Content::Draft(draft), true),
            Body::Key(meta) => (inode.key.clone(), meta),
            body => panic!("a name leads to {body:?}"),
        };
        let mut draft = Draft::new(b"1".to_vec(), Publish::OnClose, Expect::At(meta.revision), NOW);
        draft.published = Some(meta);
        let draft = self.state.add_draft(draft);
        if self.state.is_free(ino) {
            let notice = self.state.write_on(ino, draft);
            self.open(ino, Content::Draft(draft), true);
            return self.drop(notice.into_iter().collect());
        }
        let target = self.state.add_inode(name, &key, Body::Draft(draft));
        self.state.redirect(1, ino, Some(target));
        if follows {
            // The kernel looks the name up, whatever dentry it has.
            self.dentries.remove(name);
            self.state.drop_dentries(name);
            assert_eq!(self.state.redirected(1, name), Some(target));
            self.count(target, Duration::ZERO);
            self.open(target, Content::Draft(draft), true);
        }
        self.state.end_redirect(1);
    }

    pub(super) fn create(&mut self, name: &str) {
        if self.state.named(name).is_some() || self.store.contains_key(name) {
            return;
        }
        let draft = self.state.add_draft(Draft::new(Vec::new(), Publish::OnClose, Expect::Absent, NOW));
        let ino = self.state.add_inode(name, &Key::from(name), Body::Local(draft));
        self.state.lead_to(name, ino);
        self.state.touch(name);
        self.state.paths_mut().edit_attributes(name, |set| set.mode = Some(0o600));
        self.open(ino, Content::Draft(draft), true);
        self.count(ino, Duration::ZERO);
    }

    /// Publishes what a handle writes, or that with what others have set before it.
    pub(super) fn publish(&mut self, fh: Fh, merged: bool) {
        let handle = self.state.handle(fh).unwrap();
        let (ino, Content::Draft(id)) = (handle.ino, handle.content.clone()) else { return };
        let Some(draft) = self.state.draft(id).filter(|draft| draft.bytes.is_changed() && !draft.orphan)
        else {
            return;
        };
        let (moment, name) = (draft.bytes.moment(), self.state.inode(ino).unwrap().name.clone());
        self.touch_if_new(&name);
        let meta = self.meta(&name);
        self.state.published_draft(ino, id, &name, &meta, moment);
        if let Some(draft) = self.state.draft_mut(id).filter(|_| merged) {
            draft.base = Some(Text::from(&b"12"[..]));
        }
        let notices = self.state.install_version(&name, &meta, Origin::LocalWrite);
        assert_eq!(notices, [], "a write(2) waits for the kernel, which waits for it");
        self.state.appeared(&name);
    }

    /// A key is about to be set, maybe one that is not there.
    pub(super) fn touch_if_new(&mut self, name: &str) {
        if !self.store.contains_key(name) && !self.state.is_local(name) {
            self.state.touch(name);
        }
    }

    pub(super) fn set_elsewhere(&mut self, name: &str) {
        self.touch_if_new(name);
        let (meta, file) = (self.meta(name), self.state.paths.file(name));
        let notices = self.state.install_version(name, &meta, Origin::Remote);
        self.drop(notices);
        self.state.appeared(name);
        assert!(self.state.paths.file(name).is_none_or(|now| Some(now) == file), "a set is the same file");
    }

    pub(super) fn lock(&mut self, fh: Fh, owner: usize) {
        let id = (owner % 3) as u64;
        let range = Range { start: id, end: id + 1 };
        let (pid, owner, kind) = (1, Owner { family: Family::Fcntl, id }, Kind::Exclusive);
        let file = self.state.handle(fh).unwrap().file;
        self.state.locks_mut().acquire(file, Lock { owner, handle: fh.0, pid, process: None, kind, range });
    }

    pub(super) fn release(&mut self, fh: Fh) {
        let newest = |key: &Key| self.store.get(key.as_str()).cloned();
        let released = self.state.release(fh, |_| Ok(()), newest);
        self.drop(released.invalidations);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if from == to {
            return;
        }
        // The kernel takes its dentry along.
        let moved = self.dentries.remove(from);
        self.dentries.remove(to);
        let (key, file) = (Key::from(to), self.state.paths.file(from));
        let local = |(ino, inode): (Ino, &Inode)| matches!(inode.body, Body::Local(_)).then_some(ino);
        if let Some(ino) = self.state.named(from).and_then(local) {
            if !self.store.contains_key(to) {
                if self.state.paths().current(to).is_some() {
                    unlinked(&mut self.state, to);
                }
                self.state.move_name(ino, from, to, &key);
                assert_eq!([from, to].map(|name| self.state.paths.file(name)), [None, file]);
            }
        } else if let Some(before) = self.store.remove(from) {
            let meta = Meta { id: before.id.clone(), ..self.meta(to) };
            self.store.insert(to.to_owned(), meta.clone());
            if let Some(ino) = moved {
                self.dentries.insert(to.to_owned(), ino);
            }
            let notices = self.state.renamed_key(from, to, &key, before.revision, &meta);
            self.drop(notices);
            assert_eq!([from, to].map(|name| self.state.paths.file(name)), [None, file]);
        }
    }

    /// All of `d` is in `e` for a moment, and back again.
    pub(super) fn rename_directory(&mut self) {
        for (from, to) in [("d", "e"), ("e", "d")] {
            self.state.remove_directory(to);
            self.state.move_directory(from, to);
        }
    }

    pub(super) fn delete_elsewhere(&mut self, name: &str) {
        if self.store.remove(name).is_some() && !self.state.is_local(name) {
            self.state.touch(name);
            unlinked_elsewhere(&mut self.state, name);
            self.dentries.remove(name);
            if !self.store.keys().any(|key| parent(key) == "d") {
                self.state.emptied("d", true);
            }
        }
    }
}
