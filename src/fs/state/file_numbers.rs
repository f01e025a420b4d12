//! Which file a path, an inode and a handle are of.

use crate::fs::state::nodes::{Body, Inode};
use crate::fs::state::tables::State;
use crate::fs::types::{FileNumber, Ino};

impl State {
    /// Counts a reference to the file at `path`, which begins with it if there is none.
    pub(super) fn refer_to_file_at(&mut self, path: &str) -> FileNumber {
        let number = self.paths.file(path).unwrap_or_else(|| {
            let number = FileNumber(self.next_id());
            self.give_path(number, path);
            number
        });
        self.files.refer_to(number);
        number
    }

    /// Counts a reference to the file that is opened with the inode: what follows its key is of the file that has the name.
    pub(super) fn refer_to_opened(&mut self, ino: Ino) -> FileNumber {
        let Some(inode) = self.inodes.get(&ino) else { return FileNumber(ino.0) };
        if let Inode { body: Body::Key(_), unlinked: false, name, .. } = inode {
            return self.refer_to_file_at(&name.clone());
        }
        let number = inode.file;
        self.files.refer_to(number);
        number
    }

    /// Whether a descriptor that shows this inode number may be of the file.
    pub(crate) fn may_be_of(&self, file: FileNumber, shown: Ino) -> bool {
        let is_it =
            |ino: Ino| ino == shown || self.inodes.get(&ino).is_some_and(|inode| inode.number == Some(shown));
        let of_another = self.inodes.get(&shown).is_some_and(|inode| inode.file != file);
        !of_another || self.handles.values().any(|handle| handle.file == file && is_it(handle.ino))
    }

    /// Takes a reference away.
    pub(super) fn let_go_of_file(&mut self, number: FileNumber) {
        if let Some(path) = self.files.let_go_of(number) {
            self.paths.take_file(&path);
        }
    }

    fn give_path(&mut self, number: FileNumber, path: &str) {
        self.paths.set_file(path, number);
        self.files.set_path(number, Some(path));
    }

    /// The file at `path` is removed or replaced: what comes to be there is another one.
    pub(crate) fn end_file(&mut self, path: &str) {
        if let Some(number) = self.paths.take_file(path) {
            self.files.set_path(number, None);
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
        let Some(before) = self.inodes.get(&ino).map(|inode| inode.file) else { return };
        let there = self.paths.file(path);
        if there == Some(before) {
            return;
        }
        if there.is_none() && self.files.is_without_path(before) {
            return self.give_path(before, path);
        }
        let now = self.refer_to_file_at(path);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.file = now;
        }
        self.let_go_of_file(before);
    }
}

#[cfg(test)]
impl State {
    /// Paths and files know of each other, and no file is kept that nothing is of.
    pub(super) fn check_files(&self) {
        use std::collections::HashMap;

        let inodes = self.inodes.values().filter(|inode| !matches!(inode.body, Body::Directory));
        let mut references: HashMap<FileNumber, u32> = HashMap::new();
        for number in inodes.map(|inode| inode.file).chain(self.handles.values().map(|handle| handle.file)) {
            *references.entry(number).or_default() += 1;
        }
        let counted: HashMap<_, _> =
            self.files.all().map(|(number, _, references)| (number, references)).collect();
        assert_eq!(counted, references);
        let with_paths = self.files.all().filter_map(|(number, path, _)| Some((path?, number)));
        assert_eq!(with_paths.collect::<HashMap<_, _>>(), self.paths.files().collect());
    }
}
