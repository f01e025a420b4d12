//! What holds of the tables whatever is done to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use proptest::prelude::*;

use super::drafts::{Draft, Publish};
use super::locks::{Family, Kind, Lock, Owner, Range};
use super::nodes::{Body, Content, Handle};
use super::tables::State;
use super::unlinked::{unlinked, unlinked_elsewhere};
use super::versions::Origin;
use crate::fs::clock::SystemClock;
use crate::fs::rules::document::Validate;
use crate::fs::rules::names::parent;
use crate::fs::types::{Fh, FileNumber, Ino};
use crate::store::{Expect, Key, Limits, Meta, Revision, Text};

const NAMES: [&str; 4] = ["a", "b", "d/a", "d/b"];
const DIRECTORIES: [&str; 2] = ["", "d"];
const LIMITS: Limits = Limits::bytes(10_000, 100);
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// One thing that a program, the kernel or somebody else does, to the file or handle of this number.
#[derive(Clone, Debug)]
enum Step {
    Lookup(usize),
    OpenRead(usize),
    OpenWrite(usize, bool),
    Create(usize),
    Write(usize),
    Lock(usize, usize),
    Publish(usize),
    Release(usize),
    Forget(usize),
    Unlink(usize),
    Rename(usize, usize),
    MakeDirectory,
    RemoveDirectory,
    RenameDirectory,
    RemoteSet(usize),
    RemoteDelete(usize),
    Missed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (name, any) = (|| 0..NAMES.len(), || 0..100_usize);
    let step = prop_oneof![
        name().prop_map(Step::Lookup),
        name().prop_map(Step::OpenRead),
        (name(), prop::bool::ANY).prop_map(|(name, follows)| Step::OpenWrite(name, follows)),
        name().prop_map(Step::Create),
        any().prop_map(Step::Write),
        (any(), any()).prop_map(|(handle, owner)| Step::Lock(handle, owner)),
        any().prop_map(Step::Publish),
        any().prop_map(Step::Release),
        any().prop_map(Step::Forget),
        name().prop_map(Step::Unlink),
        (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        Just(Step::MakeDirectory),
        Just(Step::RemoveDirectory),
        Just(Step::RenameDirectory),
        name().prop_map(Step::RemoteSet),
        name().prop_map(Step::RemoteDelete),
        Just(Step::Missed),
    ];
    prop::collection::vec(step, 1..80)
}

/// The tables, and what the kernel and the store know.
struct World {
    state: State,
    lookups: HashMap<Ino, u64>,
    handles: Vec<Fh>,
    store: BTreeMap<String, Meta>,
    revision: u64,
}

impl World {
    fn new() -> Self {
        Self {
            state: State::new(Arc::new(SystemClock)),
            lookups: HashMap::new(),
            handles: Vec::new(),
            store: BTreeMap::new(),
            revision: 0,
        }
    }

    fn meta(&mut self, name: &str) -> Meta {
        self.revision += 1;
        let time = SystemTime::UNIX_EPOCH;
        let meta = Meta {
            id: "i".into(),
            revision: Revision(self.revision),
            size: 1,
            created: time,
            modified: time,
        };
        self.store.insert(name.to_owned(), meta.clone());
        meta
    }

    fn count(&mut self, ino: Ino) {
        self.state.count_lookup(ino);
        *self.lookups.entry(ino).or_default() += 1;
    }

    fn lookup(&mut self, name: &str) -> Option<Ino> {
        let known = self.state.named(name).map(|(ino, _)| ino);
        let ino = match (known, self.store.get(name)) {
            (Some(ino), _) => ino,
            (None, Some(meta)) => self.state.instantiate(name, &Key::from(name), &meta.clone()),
            (None, None) => return None,
        };
        self.count(ino);
        Some(ino)
    }

    fn open(&mut self, ino: Ino, content: Content, writable: bool) {
        let (file, failed, refused) = (FileNumber(0), None, Vec::new());
        let handle = Handle { ino, file, content, writable, append: false, opener: 1, failed, refused };
        self.handles.push(self.state.add_handle(handle));
    }

    fn open_write(&mut self, name: &str, follows: bool) {
        let Some(ino) = self.lookup(name) else { return };
        let inode = self.state.inode(ino).unwrap();
        let (key, body) = (inode.key.clone(), inode.body.clone());
        match body {
            Body::Local(draft) => self.open(ino, Content::Draft(draft), true),
            Body::Key(meta) => {
                let mut draft = Draft::new(b"1".to_vec(), Publish::OnClose, Expect::At(meta.revision), NOW);
                draft.published = Some(meta);
                let draft = self.state.add_draft(draft);
                let target = self.state.add_inode(name, &key, Body::Draft(draft));
                self.state.redirect(1, ino, Some(target));
                if follows {
                    assert_eq!(self.state.redirected(1, name), Some(target));
                    self.count(target);
                    self.open(target, Content::Draft(draft), true);
                }
                self.state.end_redirect(1);
            }
            Body::Draft(_) | Body::Directory => unreachable!("a name leads to {body:?}"),
        }
    }

    fn create(&mut self, name: &str) {
        if self.state.named(name).is_some() || self.store.contains_key(name) {
            return;
        }
        let draft = self.state.add_draft(Draft::new(Vec::new(), Publish::OnClose, Expect::Absent, NOW));
        let ino = self.state.add_inode(name, &Key::from(name), Body::Local(draft));
        self.state.lead_to(name, ino);
        self.state.touch(name);
        self.state.paths_mut().edit_attributes(name, |set| set.mode = Some(0o600));
        self.open(ino, Content::Draft(draft), true);
        self.count(ino);
    }

    fn publish(&mut self, fh: Fh) {
        let handle = self.state.handle(fh).unwrap();
        let (ino, Content::Draft(id)) = (handle.ino, handle.content.clone()) else { return };
        let Some(draft) = self.state.draft(id).filter(|draft| draft.bytes.is_changed() && !draft.orphan)
        else {
            return;
        };
        let (generation, name) = (draft.bytes.generation(), self.state.inode(ino).unwrap().name.clone());
        self.touch_if_new(&name);
        let meta = self.meta(&name);
        self.state.published_draft(ino, id, &name, &meta, generation);
        self.state.install_version(&name, &meta, Origin::LocalWrite);
        self.state.appeared(&name);
    }

    /// A key is about to be set, maybe one that is not there.
    fn touch_if_new(&mut self, name: &str) {
        if !self.store.contains_key(name) && !self.state.is_local(name) {
            self.state.touch(name);
        }
    }

    fn set_elsewhere(&mut self, name: &str) {
        self.touch_if_new(name);
        let (meta, file) = (self.meta(name), self.state.paths.file(name));
        self.state.install_version(name, &meta, Origin::Remote);
        self.state.appeared(name);
        assert!(self.state.paths.file(name).is_none_or(|now| Some(now) == file), "a set is the same file");
    }

    fn lock(&mut self, fh: Fh, owner: usize) {
        let id = (owner % 3) as u64;
        let range = Range { start: id, end: id + 1 };
        let (pid, owner, kind) = (1, Owner { family: Family::Fcntl, id }, Kind::Exclusive);
        let file = self.state.handle(fh).unwrap().file;
        self.state.locks_mut().acquire(file, Lock { owner, handle: fh.0, pid, process: None, kind, range });
    }

    fn release(&mut self, fh: Fh) {
        let newest = |key: &Key, meta: &Meta| self.store.get(key.as_str()) == Some(meta);
        self.state.release(fh, |_| Ok(()), newest);
    }

    fn rename(&mut self, from: &str, to: &str) {
        if from == to {
            return;
        }
        let (key, file) = (Key::from(to), self.state.paths.file(from));
        let local =
            |(ino, inode): (Ino, &super::nodes::Inode)| matches!(inode.body, Body::Local(_)).then_some(ino);
        if let Some(ino) = self.state.named(from).and_then(local) {
            if !self.store.contains_key(to) {
                if self.state.paths().current(to).is_some() {
                    unlinked(&mut self.state, to);
                }
                self.state.move_name(ino, from, to, &key);
                assert_eq!([from, to].map(|name| self.state.paths.file(name)), [None, file]);
            }
        } else if let Some(before) = self.store.remove(from) {
            let meta = self.meta(to);
            self.state.renamed_key(from, to, &key, before.revision, &meta);
            assert_eq!([from, to].map(|name| self.state.paths.file(name)), [None, file]);
        }
    }

    /// All of `d` is in `e` for a moment, and back again.
    fn rename_directory(&mut self) {
        for (from, to) in [("d", "e"), ("e", "d")] {
            self.state.remove_directory(to);
            self.state.move_directory(from, to);
        }
    }

    fn delete_elsewhere(&mut self, name: &str) {
        if self.store.remove(name).is_some() && !self.state.is_local(name) {
            self.state.touch(name);
            unlinked_elsewhere(&mut self.state, name);
            if !self.store.keys().any(|key| parent(key) == "d") {
                self.state.emptied("d", true);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let pick = |number: usize, handles: &[Fh]| handles.get(number % handles.len().max(1)).copied();
        match *step {
            Step::Lookup(name) => _ = self.lookup(NAMES[name]),
            Step::OpenRead(name) => {
                let Some(ino) = self.lookup(NAMES[name]) else { return };
                if let Body::Key(meta) = self.state.inode(ino).unwrap().body.clone() {
                    self.open(ino, Content::Snapshot(Text::from(&b"1"[..]), Some(meta)), false);
                }
            }
            Step::OpenWrite(name, follows) => self.open_write(NAMES[name], follows),
            Step::Create(name) => self.create(NAMES[name]),
            Step::Write(handle) => {
                if let Some(fh) = pick(handle, &self.handles)
                    && let Ok((_, draft)) = self.state.draft_of(fh)
                {
                    draft.write(0, b"2", &LIMITS, Validate::Json, NOW).unwrap();
                }
            }
            Step::Lock(handle, owner) => _ = pick(handle, &self.handles).map(|fh| self.lock(fh, owner)),
            Step::Publish(handle) => _ = pick(handle, &self.handles).map(|fh| self.publish(fh)),
            Step::Release(handle) => {
                if let Some(fh) = pick(handle, &self.handles) {
                    self.handles.retain(|other| *other != fh);
                    self.release(fh);
                }
            }
            Step::Forget(number) => {
                let mut known: Vec<Ino> = self.lookups.keys().copied().collect();
                known.sort();
                if !known.is_empty() {
                    let ino = known[number % known.len()];
                    self.state.forget(ino, self.lookups.remove(&ino).unwrap());
                }
            }
            Step::Unlink(name) => {
                self.store.remove(NAMES[name]);
                unlinked(&mut self.state, NAMES[name]);
                assert_eq!(self.state.paths.file(NAMES[name]), None);
            }
            Step::Rename(from, to) => self.rename(NAMES[from], NAMES[to]),
            Step::MakeDirectory => {
                self.state.keep_directory("d");
                let now = self.state.now();
                self.state.edit_directory("d", |directory| directory.touch(now));
                let ino = self.state.directory_inode("d");
                self.count(ino);
            }
            Step::RemoveDirectory => self.state.remove_directory("d"),
            Step::RenameDirectory => self.rename_directory(),
            Step::RemoteSet(name) => self.set_elsewhere(NAMES[name]),
            Step::RemoteDelete(name) => self.delete_elsewhere(NAMES[name]),
            Step::Missed => self.state.forget_versions(),
        }
    }

    /// The names in a directory, and when they last changed: whether that is known of it alone.
    fn listed(&self, directory: &str) -> (BTreeSet<String>, bool, SystemTime) {
        let locals = self.state.locals().map(|(name, _)| name);
        let names = locals.chain(self.store.keys().map(String::as_str));
        let names = names.filter(|name| parent(name) == directory).map(str::to_owned).collect();
        let known = self.state.directory(directory);
        (names, known.is_some(), known.map_or(self.state.names_modified(), |known| known.modified))
    }

    fn check_times(&self, before: [(BTreeSet<String>, bool, SystemTime); 2]) {
        for (directory, (names, known, modified)) in DIRECTORIES.into_iter().zip(before) {
            let now = self.listed(directory);
            assert!(now.2 >= modified, "the time of {directory:?} goes back");
            assert!(now.0 == names || !(known && now.1) || now.2 > modified, "{directory:?} has changed");
        }
    }

    fn check(&self) {
        let state = &self.state;
        for (path, ino) in state.paths.currents() {
            let inode = state.inode(ino).unwrap_or_else(|_| panic!("{path} leads to nothing"));
            assert!(inode.name == path && !inode.unlinked, "{path} leads to {inode:?}");
            assert!(matches!(inode.body, Body::Key(_) | Body::Local(_)), "{path} leads to {inode:?}");
            assert_eq!(state.paths.file(path), Some(inode.file), "{path} leads to {inode:?}");
        }
        state.check_files();
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

    /// All is closed, forgotten and removed.
    fn end(mut self) {
        for fh in std::mem::take(&mut self.handles) {
            self.release(fh);
            self.check();
        }
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

#[test]
fn a_deletion_elsewhere_says_nothing_of_other_files_that_have_lost_their_names() {
    let mut world = World::new();
    let meta = world.meta("a");
    let ino = world.lookup("a").unwrap();
    unlinked(&mut world.state, "a");
    // By way of /proc/self/fd/N.
    let draft =
        world.state.add_draft(Draft::new(Vec::new(), Publish::OnClose, Expect::At(meta.revision), NOW));
    world.state.own_draft(draft, ino);
    world.open(ino, Content::Draft(draft), true);
    world.meta("b");
    world.lookup("b").unwrap();
    unlinked_elsewhere(&mut world.state, "b");
    assert!(world.state.inode(ino).unwrap().unlinked);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn names_lead_to_live_inodes_drafts_are_owned_counts_and_times_are_right_and_nothing_is_left(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            let before = DIRECTORIES.map(|directory| world.listed(directory));
            world.step(step);
            world.check();
            world.check_times(before);
        }
        world.end();
    }
}
