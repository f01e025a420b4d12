//! What holds after each step.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use super::super::nodes::{Body, Content, Handle, Inode};
use super::super::unlinked::unlinked;
use super::world::World;
use super::{DIRECTORIES, NAMES};
use crate::fs::rules::names::parent;
use crate::fs::types::{Fh, Ino};

impl World {
    /// The names in a directory, and when they last changed: whether that is known of it alone.
    pub(super) fn listed(&self, directory: &str) -> (BTreeSet<String>, bool, SystemTime) {
        let locals = self.state.locals().map(|(name, _)| name);
        let names = locals.chain(self.store.keys().map(String::as_str));
        let names = names.filter(|name| parent(name) == directory).map(str::to_owned).collect();
        let known = self.state.directory(directory);
        (names, known.is_some(), known.map_or(self.state.names_modified(), |known| known.modified))
    }

    /// The numbers that the readers see of their files.
    pub(super) fn numbers(&self) -> HashMap<Fh, Ino> {
        let readers = self.state.handles.iter().filter(|(_, handle)| handle.is_reader());
        let number = |ino| self.state.number_of(ino, self.state.inode(ino).unwrap());
        readers.map(|(fh, handle)| (*fh, number(handle.ino))).collect()
    }

    /// Files have their own numbers; who reads an older version keeps that of the file, which has another one by its name.
    pub(super) fn check_numbers(&self, before: &HashMap<Fh, Ino>) {
        let state = &self.state;
        let mut shown = BTreeSet::new();
        let mut named = state.paths.files().filter_map(|(_, file)| state.files.shown(file));
        assert!(named.all(|number| shown.insert(number)), "two files show one number");
        for (fh, number) in self.numbers() {
            let handle = state.handle(fh).unwrap();
            assert!(
                before.get(&fh).is_none_or(|before| *before == number),
                "{handle:?} shows another number"
            );
            let inode = state.inode(handle.ino).unwrap();
            if let Content::Snapshot(_, Some(read)) = &handle.content
                && let Some((ino, Inode { body: Body::Key(meta), file, .. })) = state.named(&inode.name)
                && (inode.file, true) == (*file, ino != handle.ino && read.revision < meta.revision)
            {
                assert_ne!(state.number_of(ino, state.inode(ino).unwrap()), number, "{handle:?}");
            }
        }
    }

    pub(super) fn check_times(&self, before: [(BTreeSet<String>, bool, SystemTime); 2]) {
        for (directory, (names, known, modified)) in DIRECTORIES.into_iter().zip(before) {
            let now = self.listed(directory);
            assert!(now.2 >= modified, "the time of {directory:?} goes back");
            assert!(now.0 == names || !(known && now.1) || now.2 > modified, "{directory:?} has changed");
        }
    }

    pub(super) fn check(&self) {
        let state = &self.state;
        for (path, ino) in state.paths.currents() {
            let inode = state.inode(ino).unwrap_or_else(|_| panic!("{path} leads to nothing"));
            assert!(inode.name == path && !inode.unlinked, "{path} leads to {inode:?}");
            assert!(matches!(inode.body, Body::Key(_) | Body::Local(_)), "{path} leads to {inode:?}");
            let (file, number) = (state.paths.file(path), inode.number);
            assert_eq!((file, number), (Some(inode.file), None), "{path} leads to {inode:?}");
        }
        state.check_files();
        self.check_homes();
        for (file, lock) in state.files.locks.all() {
            let handle = state.handle(Fh(lock.handle));
            assert!(handle.is_ok_and(|handle| handle.file == file), "{lock:?} is of no open file");
        }
        let counted = (state.paths.kept_directories(), state.paths.attributed());
        assert_eq!(counted, state.paths.recounted());
        for (id, draft) in &state.drafts {
            let inode = state.inode(draft.ino).unwrap_or_else(|_| panic!("nobody owns {draft:?}"));
            assert!(state.paths.drafts(&inode.name).contains(id), "{inode:?} is not found by its name");
            let open = |handle: &Handle| matches!(handle.content, Content::Draft(other) if other == *id);
            let of_handles = state.handles.values().any(open);
            assert!(inode.holds(*id) || of_handles, "{inode:?} does not hold {draft:?}");
            let writers = state.handles.values().filter(|handle| handle.writable && open(handle)).count();
            assert_eq!(draft.handles as usize, writers);
        }
        for (ino, inode) in &state.inodes {
            assert_eq!(inode.lookups, self.lookups.get(ino).copied().unwrap_or_default(), "{inode:?}");
            if matches!(inode.body, Body::Directory) {
                let found = state.directory_ino(&inode.name) == Some(*ino);
                assert_ne!(
                    found, inode.unlinked,
                    "{inode:?} is another one when it comes back, or is one that was removed"
                );
            }
            let handles = || state.handles.values().filter(|handle| handle.ino == *ino);
            assert_eq!(inode.handles as usize, handles().count(), "{inode:?}");
            assert_eq!(inode.readers as usize, handles().filter(|handle| handle.is_reader()).count());
        }
        assert!(
            self.lookups.keys().all(|ino| state.inodes.contains_key(ino)),
            "the kernel knows what is gone"
        );
    }

    /// A name comes back to an inode that is of it, for which it has a reason to be away; and the kernel goes by dentries of
    /// names that are at home alone.
    pub(super) fn check_homes(&self) {
        for (name, ino) in self.state.paths.homes() {
            let inode = self.state.inode(ino).unwrap();
            assert!(inode.name == name && !inode.unlinked, "{name} comes back to {inode:?}");
            assert!(matches!(inode.body, Body::Key(_) | Body::Draft(_)), "{name} comes back to {inode:?}");
            assert_ne!(self.state.paths.current(name), Some(ino), "{name} is where it comes back to");
            let has_reason = inode.handles > 0 || self.state.is_drafted(name);
            let is_known = self.state.named(name).is_some();
            assert!(has_reason || !is_known, "{name} does not come back to {inode:?}");
        }
        for (name, ino) in &self.dentries {
            assert!(!self.state.is_drafted(name), "the kernel finds {name} by itself while it is written");
            assert_eq!(self.state.paths.current(name), Some(*ino), "the kernel finds another {name}");
        }
    }

    /// All is closed, forgotten and removed.
    pub(super) fn end(mut self) {
        for fh in std::mem::take(&mut self.handles) {
            self.release(fh);
            self.check();
        }
        self.dentries.clear();
        for (ino, lookups) in std::mem::take(&mut self.lookups) {
            self.state.forget(ino, lookups);
        }
        let local = |ino: &Ino| matches!(self.state.inodes[ino].body, Body::Local(_));
        assert!(self.state.inodes.keys().all(local), "{:?}", self.state.inodes);
        for name in NAMES {
            unlinked(&mut self.state, name);
        }
        self.state.remove_directory("d");
        assert!(
            self.state.inodes.is_empty() && self.state.handles.is_empty() && self.state.drafts.is_empty()
        );
        assert_eq!(self.state.files.locks.all().count(), 0);
        assert!(self.state.paths.is_empty(), "{:?}", self.state.paths);
    }
}
