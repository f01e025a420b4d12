//! Files by their numbers: which path leads to each, how long it is one, and who has locked it.

use std::collections::HashMap;

use crate::fs::state::locks::Locks;
use crate::fs::types::FileNumber;

/// One file.
#[derive(Debug, Default)]
struct File {
    /// The path that leads to it; none once it is removed or replaced.
    path: Option<String>,
    /// Inodes and handles that are of it.
    references: u32,
}

/// All files of which there are inodes or handles.
#[derive(Debug, Default)]
pub(crate) struct Files {
    by_number: HashMap<FileNumber, File>,
    /// flock(2) and fcntl(2).
    pub(super) locks: Locks,
}

impl Files {
    /// Counts a reference.
    pub(super) fn refer_to(&mut self, number: FileNumber) {
        self.by_number.entry(number).or_default().references += 1;
    }

    /// Takes a reference away. With the last one the file goes; the path that led to it.
    pub(super) fn let_go_of(&mut self, number: FileNumber) -> Option<String> {
        let file = self.by_number.get_mut(&number)?;
        file.references -= 1;
        if file.references > 0 {
            return None;
        }
        self.by_number.remove(&number)?.path
    }

    /// Whether no path leads to the file.
    pub(super) fn is_without_path(&self, number: FileNumber) -> bool {
        self.by_number.get(&number).is_some_and(|file| file.path.is_none())
    }

    pub(super) fn set_path(&mut self, number: FileNumber, path: Option<&str>) {
        self.by_number.entry(number).or_default().path = path.map(str::to_owned);
    }
}

#[cfg(test)]
impl Files {
    /// Number, path and references of each.
    pub(super) fn all(&self) -> impl Iterator<Item = (FileNumber, Option<&str>, u32)> {
        self.by_number.iter().map(|(number, file)| (*number, file.path.as_deref(), file.references))
    }
}
