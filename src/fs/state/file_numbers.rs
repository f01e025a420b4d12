//! Which file a path, an inode and a handle are of, and the inode number that programs see of it.
//!
//! That is made of what the store keeps of the key, so that a file of which nothing is remembered has it again, and on every
//! mount of the store: of its id, where the store lets this mount choose the id of a new one; else of the key.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use crate::fs::rules::hash::hash;
use crate::fs::state::nodes::{Body, Content, Handle, Inode, Overrides};
use crate::fs::state::tables::State;
use crate::fs::types::{FileNumber, Ino};
use crate::store::{Key, Meta, Revision};

/// The numbers that are made of something are from here on, and all that are counted are below.
pub(crate) const MADE: u64 = 1 << 62;

/// The inode number made of what is unique in the store.
fn made_of(text: &str) -> Ino {
    let hash = hash(text.as_bytes());
    Ino(MADE | (hash >> 64 ^ hash) as u64 & (MADE - 1))
}

impl State {
    /// Counts a reference to the file at `path`, which begins with it if there is none.
    pub(super) fn refer_to_file_at(&mut self, path: &str, key: &Key, body: &Body) -> FileNumber {
        let number = self.paths.file(path).unwrap_or_else(|| {
            let number = FileNumber(self.next_id());
            let shown = self.made_for(key, body).filter(|shown| !self.is_taken(*shown));
            self.files.begin(number, shown.unwrap_or(Ino(number.0)));
            self.give_path(number, path);
            number
        });
        self.files.refer_to(number);
        number
    }

    /// The number for a file of this `key`, and with this `body`.
    fn made_for(&mut self, key: &Key, body: &Body) -> Option<Ino> {
        if !self.takes_ids {
            return Some(made_of(key.as_str()));
        }
        Some(match body {
            Body::Key(meta) => made_of(&meta.id),
            Body::Local(draft) | Body::Draft(draft) => {
                let draft = self.drafts.get_mut(draft)?;
                let new = || Arc::from(uuid::Uuid::new_v4().to_string());
                let known = draft.published.as_ref().map(|meta| meta.id.clone());
                made_of(known.as_ref().unwrap_or_else(|| draft.id.get_or_insert_with(new)))
            }
            Body::Directory => return None,
        })
    }

    /// Whether a file has the number that is there, or that somebody has open.
    fn is_taken(&self, shown: Ino) -> bool {
        self.files.that_shows(shown).is_some_and(|file| {
            !self.files.is_without_path(file) || self.handles.values().any(|handle| handle.file == file)
        })
    }

    /// The number that programs see of a file: what it shows, or showed when this version of it was replaced.
    pub(crate) fn number_of(&self, ino: Ino, inode: &Inode) -> Ino {
        inode.number.or_else(|| self.files.shown(inode.file)).unwrap_or(ino)
    }

    /// The number that programs see of the file of a key at `path`.
    pub(crate) fn number_at(&self, path: &str, key: &Key, meta: &Meta) -> Ino {
        let known = self.paths.file(path).and_then(|file| self.files.shown(file));
        known.unwrap_or_else(|| made_of(if self.takes_ids { &meta.id } else { key.as_str() }))
    }

    /// The name leads to this version of its file from now on. Who reads an older one keeps the number, and by the name finds
    /// another one, as after a replacement: by that `tail -F` notices.
    pub(super) fn leave_readers_behind(&mut self, name: &str, revision: Revision) {
        let Some(file) = self.paths.file(name) else { return };
        let current = self.paths.current(name);
        let reads_older = |handle: &&Handle| match &handle.content {
            Content::Snapshot(_, read) if handle.file == file && current != Some(handle.ino) => {
                let inode = self.inodes.get(&handle.ino);
                read.as_ref().is_none_or(|read| read.revision < revision)
                    && inode.is_some_and(|inode| inode.number.is_none() && matches!(inode.body, Body::Key(_)))
            }
            Content::Snapshot(..) | Content::Draft(_) => false,
        };
        let left: Vec<Ino> = self.handles.values().filter(reads_older).map(|handle| handle.ino).collect();
        if left.is_empty() {
            return;
        }
        let next = Ino(self.next_id());
        let before = self.files.show(file, next);
        for ino in left {
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.number = before;
            }
        }
    }

    /// Counts a reference to the file that is opened with the inode: what follows its key is of the file that has the name.
    pub(super) fn refer_to_opened(&mut self, ino: Ino) -> FileNumber {
        let Some(inode) = self.inodes.get(&ino) else { return FileNumber(ino.0) };
        if let Inode { body: Body::Key(_), unlinked: false, name, key, .. } = inode {
            if let Some(number) = self.paths.file(name) {
                self.files.refer_to(number);
                return number;
            }
            let (name, key, body) = (name.clone(), key.clone(), inode.body.clone());
            return self.refer_to_file_at(&name, &key, &body);
        }
        let number = inode.file;
        self.files.refer_to(number);
        number
    }

    /// Whether a descriptor that shows this inode number may be of the file.
    pub(crate) fn may_be_of(&self, file: FileNumber, shown: Ino) -> bool {
        let is_it = |ino: Ino| self.inode(ino).is_ok_and(|inode| self.number_of(ino, inode) == shown);
        let files = self.handles.values().filter(|handle| is_it(handle.ino)).map(|handle| handle.file);
        let files: Vec<FileNumber> = files.collect();
        files.is_empty() || files.contains(&file)
    }

    /// Whether the inode is of a file that was removed or replaced. One that nobody has open any more follows its key.
    pub(crate) fn has_lost_name(&self, ino: Ino, inode: &Inode) -> bool {
        let held = |handle: &Handle| handle.ino == ino && handle.file == inode.file;
        inode.unlinked || self.files.is_without_path(inode.file) && self.handles.values().any(held)
    }

    /// What chmod and the like said of the file that an inode is of.
    pub(crate) fn attributes_of(&self, ino: Ino, inode: &Inode) -> Option<Overrides> {
        let lost = self.has_lost_name(ino, inode);
        if lost { self.files.attributes(inode.file) } else { self.paths.attributes(&inode.name) }
    }

    pub(crate) fn set_attributes_of(&mut self, ino: Ino, attributes: Option<Overrides>) {
        let Some(inode) = self.inodes.get(&ino) else { return };
        if self.has_lost_name(ino, inode) {
            self.files.set_attributes(inode.file, attributes);
        } else {
            let name = inode.name.clone();
            self.paths.set_attributes(&name, attributes);
        }
    }

    /// The other inodes to which the name of `ino` leads, or comes back: who has bound a file elsewhere may have one that it has
    /// lost.
    pub(crate) fn others_of_name(&self, ino: Ino) -> Vec<Ino> {
        let Some(inode) = self.inodes.get(&ino).filter(|inode| !self.has_lost_name(ino, inode)) else {
            return Vec::new();
        };
        let inos = [self.paths.current(&inode.name), self.paths.home(&inode.name)];
        inos.into_iter().flatten().filter(|other| *other != ino).collect()
    }

    /// utimes(2) of the file that `ino` is of: what is written to it and not saved yet is as of then, too.
    pub(crate) fn set_modified(&mut self, ino: Ino, modified: SystemTime) {
        let Some(file) = self.inodes.get(&ino).map(|inode| inode.file) else { return };
        for handle in self.handles.values().filter(|handle| handle.file == file) {
            if let Content::Draft(id) = handle.content
                && let Some(draft) = self.drafts.get_mut(&id)
            {
                draft.bytes.set_modified(modified);
            }
        }
    }

    /// The inodes by which the file at `path` is written. Of those by which it is read the kernel must drop nothing.
    pub(crate) fn writers(&self, path: &str) -> HashSet<Ino> {
        let file = self.paths.file(path);
        let of_it =
            |handle: &&Handle| Some(handle.file) == file && matches!(handle.content, Content::Draft(_));
        self.handles.values().filter(of_it).map(|handle| handle.ino).collect()
    }

    /// Takes a reference away.
    pub(super) fn let_go_of_file(&mut self, number: FileNumber) {
        let last = self.files.let_go_of(number);
        for path in last.into_iter().chain(self.files.end_idle()) {
            self.paths.take_file(&path);
        }
    }

    fn give_path(&mut self, number: FileNumber, path: &str) {
        self.paths.set_file(path, number);
        self.files.set_path(number, path);
    }

    /// The file at `path` is removed or replaced: what comes to be there is another one.
    pub(crate) fn end_file(&mut self, path: &str) {
        if let Some(number) = self.paths.take_file(path) {
            self.files.lose_path(number, self.paths.attributes(path));
        }
    }

    /// The file at `from` is at `to`, in the place of what was there.
    pub(super) fn rename_file(&mut self, from: &str, to: &str) {
        self.end_file(to);
        if let Some(number) = self.paths.take_file(from) {
            self.give_path(number, to);
        }
    }

    /// The inode comes to be what `path` leads to. If that is another file by now, it is of that one from now on.
    pub(super) fn lead_to_file(&mut self, path: &str, ino: Ino) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.number = None;
        let before = inode.file;
        let there = self.paths.file(path);
        if there == Some(before) {
            return;
        }
        if there.is_none() && self.files.is_without_path(before) {
            return self.give_path(before, path);
        }
        let Some(inode) = self.inodes.get(&ino) else { return };
        let (key, body) = (inode.key.clone(), inode.body.clone());
        let now = self.refer_to_file_at(path, &key, &body);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.file = now;
        }
        self.let_go_of_file(before);
    }
}

#[cfg(test)]
impl State {
    /// Paths and files know of each other, and references are counted.
    pub(super) fn check_files(&self) {
        use std::collections::HashMap;

        let inodes = self.inodes.values().filter(|inode| !matches!(inode.body, Body::Directory));
        let mut references: HashMap<FileNumber, u32> = HashMap::new();
        for number in inodes.map(|inode| inode.file).chain(self.handles.values().map(|handle| handle.file)) {
            *references.entry(number).or_default() += 1;
        }
        let counted = self.files.all().map(|(number, _, references)| (number, references));
        let counted: HashMap<_, _> = counted.filter(|(_, references)| *references > 0).collect();
        assert_eq!(counted, references);
        let with_paths = self.files.all().filter_map(|(number, path, _)| Some((path?, number)));
        assert_eq!(with_paths.collect::<HashMap<_, _>>(), self.paths.files().collect());
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use crate::fs::clock::SystemClock;
    use crate::fs::state::drafts::{Draft, Publish};
    use crate::fs::state::versions::Origin;
    use crate::store::{Expect, Text};

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn meta(id: &str) -> Meta {
        Meta { id: id.into(), revision: Revision(1), size: 1, created: NOW, modified: NOW, attributes: None }
    }

    fn shown(state: &State, ino: Ino) -> Ino {
        state.number_of(ino, state.inode(ino).unwrap())
    }

    #[test]
    fn a_number_is_the_same_for_every_version_of_kvfs() {
        let numbers = ["", "8c7a8e0e-2f4b-4d44-9d3b-0f4cbbf6f5a1", "app/db"].map(|text| made_of(text).0);
        assert_eq!(
            numbers,
            [5_681_860_869_490_656_463, 6_859_391_834_538_290_231, 8_036_140_395_900_252_592]
        );
        assert!(numbers.into_iter().all(|number| number >= MADE && i64::try_from(number).is_ok()));
    }

    /// What a new file shows, and what its key does once it is set with `id` and everything about it is forgotten.
    fn before_and_after(takes_ids: bool, id: &str) -> (Ino, Ino) {
        let (mut state, key) = (State::new(Arc::new(SystemClock), takes_ids), Key::from("k"));
        let draft = state.add_draft(Draft::new(Vec::new(), Publish::OnClose, Expect::Absent, NOW));
        let ino = state.add_inode("k", &key, Body::Local(draft));
        state.lead_to("k", ino);
        let made = shown(&state, ino);
        let id = state.draft(draft).unwrap().new_id().unwrap_or(id.into());
        state.become_key(ino, "k", &key, meta(&id));
        assert_eq!(shown(&state, ino), made);
        state.collect(ino);
        let number = state.number_at("k", &key, &meta(&id));
        let (ino, _) = state.instantiate("k", &key, &meta(&id));
        assert_eq!(shown(&state, ino), number);
        (made, number)
    }

    #[test]
    fn a_file_made_here_has_the_number_that_others_see_whoever_gives_ids() {
        for takes_ids in [true, false] {
            let (made, found) = before_and_after(takes_ids, "an id of the store");
            assert_eq!(made, found, "takes ids: {takes_ids}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_a_file_up_and_opens_it_sees_one_number_although_it_is_forgotten_in_between() {
        let (mut state, key) = (State::new(Arc::new(SystemClock), true), Key::from("k"));
        let (first, _) = state.instantiate("k", &key, &meta("i"));
        state.count_lookup(first, std::time::Duration::ZERO);
        let made = shown(&state, first);
        let content = Content::Snapshot(Text::from(&b"1"[..]), Some(meta("i")));
        let reader = state.add_handle(Handle::new(1, first, content, false));
        let next = Meta { revision: Revision(2), ..meta("i") };
        state.install_version("k", &next, Origin::Read);
        let looked = |state: &mut State| {
            let (ino, _) = state.instantiate("k", &key, &next);
            let number = shown(state, ino);
            state.collect(ino);
            number
        };
        let renumbered = looked(&mut state);
        assert_ne!(renumbered, made);
        state.remove_handle(reader);
        state.forget(first, 1);
        assert_eq!(looked(&mut state), renumbered);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        // Whatever is forgotten next.
        state.instantiate("other", &Key::from("other"), &meta("o"));
        let other = state.instantiate("other", &Key::from("other"), &meta("o")).0;
        state.collect(other);
        assert_eq!(looked(&mut state), made);
    }

    #[test]
    fn a_number_that_another_file_has_is_not_given_again() {
        let mut state = State::new(Arc::new(SystemClock), true);
        let inos = ["a", "b"].map(|name| state.instantiate(name, &Key::from(name), &meta("i")).0);
        let [a, b] = inos.map(|ino| shown(&state, ino));
        assert!(a != b && b.0 < MADE, "{a:?} {b:?}");
        // Renamed elsewhere: nobody has it open under its old name.
        state.count_lookup(inos[0], std::time::Duration::ZERO);
        state.gone("a");
        let c = state.instantiate("c", &Key::from("c"), &meta("i")).0;
        assert_eq!(shown(&state, c), a);
    }
}
