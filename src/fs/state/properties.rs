//! What holds of the tables whatever is done to them.

mod checks;
mod world;

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use self::world::World;
use super::drafts::{Draft, Publish};
use super::nodes::{Body, Content};
use super::unlinked::{unlinked, unlinked_elsewhere};
use crate::fs::rules::document::Validate;
use crate::fs::types::{Fh, Ino};
use crate::store::{Expect, Limits, Text};

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
    Publish(usize, bool),
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
        (any(), prop::bool::ANY).prop_map(|(handle, merged)| Step::Publish(handle, merged)),
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

impl World {
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
            Step::Publish(handle, merged) => {
                _ = pick(handle, &self.handles).map(|fh| self.publish(fh, merged));
            }
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
                    self.dentries.retain(|_, other| *other != ino);
                    self.state.forget(ino, self.lookups.remove(&ino).unwrap());
                }
            }
            Step::Unlink(name) => {
                self.store.remove(NAMES[name]);
                self.dentries.remove(NAMES[name]);
                unlinked(&mut self.state, NAMES[name]);
                assert_eq!(self.state.paths.file(NAMES[name]), None);
            }
            Step::Rename(from, to) => self.rename(NAMES[from], NAMES[to]),
            Step::MakeDirectory => {
                self.state.keep_directory("d");
                let now = self.state.now();
                self.state.edit_directory("d", |directory| directory.touch(now));
                let ino = self.state.directory_inode("d");
                self.count(ino, Duration::ZERO);
            }
            Step::RemoveDirectory => self.state.remove_directory("d"),
            Step::RenameDirectory => self.rename_directory(),
            Step::RemoteSet(name) => self.set_elsewhere(NAMES[name]),
            Step::RemoteDelete(name) => self.delete_elsewhere(NAMES[name]),
            Step::Missed => {
                self.state.forget_versions();
                self.dentries.clear();
            }
        }
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
            let numbers = world.numbers();
            world.step(step);
            world.check();
            world.check_numbers(&numbers);
            world.check_times(before);
        }
        world.end();
    }
}
