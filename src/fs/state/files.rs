//! Files by their numbers: which path leads to each, what programs see of it, how long it is one, and who has locked it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::fs::state::locks::Locks;
use crate::fs::state::nodes::Overrides;
use crate::fs::types::{ByNumber, FileNumber, Ino};

/// One file.
#[derive(Debug)]
struct File {
    /// The path that leads to it; none once it is removed or replaced.
    path: Option<String>,
    /// The inode number that programs see.
    shown: Ino,
    /// What chmod and the like said of it, once no path leads to it.
    attributes: Option<Overrides>,
    /// Inodes and handles that are of it.
    references: u32,
    /// Whether it shows another number than it began with.
    renumbered: bool,
    /// Since when nothing is of it.
    idle: Option<Instant>,
}

/// For so long a file shows a number that it did not begin with although nothing is of it any more: who has looked it up opens it
/// next, and compares (cp).
const KEPT: Duration = Duration::from_secs(1);

/// All files of which there are inodes or handles.
#[derive(Debug, Default)]
pub(crate) struct Files {
    by_number: ByNumber<FileNumber, File>,
    /// The last file that began with each inode number.
    by_shown: ByNumber<Ino, FileNumber>,
    /// Those that are kept although nothing is of them, unless something is again.
    idle: VecDeque<(Instant, FileNumber)>,
    /// flock(2) and fcntl(2).
    pub(super) locks: Locks,
}

impl Files {
    /// A file begins, to which nothing refers yet.
    pub(super) fn begin(&mut self, number: FileNumber, shown: Ino) {
        let file = File { path: None, shown, attributes: None, references: 0, renumbered: false, idle: None };
        self.by_number.insert(number, file);
        self.by_shown.insert(shown, number);
    }

    /// Counts a reference.
    pub(super) fn refer_to(&mut self, number: FileNumber) {
        if let Some(file) = self.by_number.get_mut(&number) {
            file.references += 1;
            file.idle = None;
        }
    }

    /// Takes a reference away. With the last one the file goes, now or later; the path that led to it.
    pub(super) fn let_go_of(&mut self, number: FileNumber) -> Option<String> {
        let file = self.by_number.get_mut(&number)?;
        file.references -= 1;
        if file.references > 0 {
            return None;
        }
        if file.renumbered {
            let now = Instant::now();
            file.idle = Some(now);
            self.idle.push_back((now, number));
            return None;
        }
        self.end(number)
    }

    /// Ends the files that were kept for long enough; the paths that led to them.
    pub(super) fn end_idle(&mut self) -> Vec<String> {
        let mut paths = Vec::new();
        while let Some((since, number)) =
            self.idle.front().copied().filter(|(since, _)| since.elapsed() >= KEPT)
        {
            self.idle.pop_front();
            if self.by_number.get(&number).is_some_and(|file| file.idle == Some(since)) {
                paths.extend(self.end(number));
            }
        }
        paths
    }

    fn end(&mut self, number: FileNumber) -> Option<String> {
        let file = self.by_number.remove(&number)?;
        self.no_longer_shows(number, file.shown);
        file.path
    }

    /// Whether no path leads to the file.
    pub(super) fn is_without_path(&self, number: FileNumber) -> bool {
        self.by_number.get(&number).is_some_and(|file| file.path.is_none())
    }

    pub(super) fn set_path(&mut self, number: FileNumber, path: &str) {
        if let Some(file) = self.by_number.get_mut(&number) {
            (file.path, file.attributes) = (Some(path.to_owned()), None);
        }
    }

    /// No path leads to the file any more, of which chmod and the like said this.
    pub(super) fn lose_path(&mut self, number: FileNumber, attributes: Option<Overrides>) {
        if let Some(file) = self.by_number.get_mut(&number) {
            (file.path, file.attributes) = (None, attributes);
        }
    }

    /// What chmod and the like said of a file without a path.
    pub(super) fn attributes(&self, number: FileNumber) -> Option<Overrides> {
        self.by_number.get(&number)?.attributes
    }

    pub(super) fn set_attributes(&mut self, number: FileNumber, attributes: Option<Overrides>) {
        if let Some(file) = self.by_number.get_mut(&number) {
            file.attributes = attributes;
        }
    }

    /// The inode number that programs see.
    pub(super) fn shown(&self, number: FileNumber) -> Option<Ino> {
        Some(self.by_number.get(&number)?.shown)
    }

    /// The file shows this number from now on; the one that it showed before.
    pub(super) fn show(&mut self, number: FileNumber, shown: Ino) -> Option<Ino> {
        let file = self.by_number.get_mut(&number)?;
        file.renumbered = true;
        let before = std::mem::replace(&mut file.shown, shown);
        self.no_longer_shows(number, before);
        Some(before)
    }

    /// A file that shows this number.
    pub(super) fn that_shows(&self, shown: Ino) -> Option<FileNumber> {
        self.by_shown.get(&shown).copied()
    }

    fn no_longer_shows(&mut self, number: FileNumber, shown: Ino) {
        if self.by_shown.get(&shown) == Some(&number) {
            self.by_shown.remove(&shown);
        }
    }
}

#[cfg(test)]
impl Files {
    /// Number, path and references of each.
    pub(super) fn all(&self) -> impl Iterator<Item = (FileNumber, Option<&str>, u32)> {
        self.by_number.iter().map(|(number, file)| (*number, file.path.as_deref(), file.references))
    }
}
