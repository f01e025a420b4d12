//! Files by their numbers: which path leads to each, and how long it is one.

use std::collections::HashMap;

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
pub(crate) struct Files(HashMap<FileNumber, File>);

impl Files {
    /// Counts a reference.
    pub(super) fn refer_to(&mut self, number: FileNumber) {
        self.0.entry(number).or_default().references += 1;
    }

    /// Takes a reference away. With the last one the file goes; the path that led to it.
    pub(super) fn let_go_of(&mut self, number: FileNumber) -> Option<String> {
        let file = self.0.get_mut(&number)?;
        file.references -= 1;
        if file.references > 0 {
            return None;
        }
        self.0.remove(&number)?.path
    }

    /// Whether no path leads to the file.
    pub(super) fn is_without_path(&self, number: FileNumber) -> bool {
        self.0.get(&number).is_some_and(|file| file.path.is_none())
    }

    pub(super) fn set_path(&mut self, number: FileNumber, path: Option<&str>) {
        self.0.entry(number).or_default().path = path.map(str::to_owned);
    }
}

#[cfg(test)]
impl Files {
    /// Number, path and references of each.
    pub(super) fn all(&self) -> impl Iterator<Item = (FileNumber, Option<&str>, u32)> {
        self.0.iter().map(|(number, file)| (*number, file.path.as_deref(), file.references))
    }
}
