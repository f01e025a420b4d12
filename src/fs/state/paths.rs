//! One record per path: all that is known of a name and is not in the store.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::SystemTime;

use lru::LruCache;

use crate::by_name::ByName;
use crate::fs::rules::error::FsError;
use crate::fs::state::backups::DeferredRename;
use crate::fs::state::directory::Directory;
use crate::fs::state::nodes::Overrides;
use crate::fs::types::{DraftId, FileNumber, Ino};
use crate::store::Revision;

/// What a path is.
#[derive(Debug, Default)]
struct Record {
    /// The inode that a lookup gives: of a key's current version, or of a local file.
    current: Option<Ino>,
    /// The file that it is, as long as any inode or handle is of it.
    file: Option<FileNumber>,
    /// What few paths have.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    /// The directory there.
    directory: Option<Directory>,
    /// A directory that is gone and that the kernel still refers to, because somebody is in it.
    unlinked_directory: Option<Ino>,
    /// Of the file, also of those that have lost the name.
    drafts: Vec<DraftId>,
    attributes: Option<Overrides>,
    /// The inode that the file has had, while somebody has that open: the name comes back to it.
    home: Option<Ino>,
    /// The key was renamed to a backup name.
    deferred_rename: Option<DeferredRename>,
    /// Why the last text written to the file was not published, until one is.
    failure: Option<FsError>,
    /// The inode that the file had when changes were missed, or that went on as no newer version, for those who watch it.
    replaced: Option<Ino>,
}

impl Rest {
    fn is_empty(&self) -> bool {
        self.directory.is_none()
            && self.unlinked_directory.is_none()
            && self.drafts.is_empty()
            && self.attributes.is_none()
            && self.home.is_none()
            && self.deferred_rename.is_none()
            && self.failure.is_none()
            && self.replaced.is_none()
    }
}

impl Rest {
    /// Directories that are kept, and attributes that were asked for and are in no store.
    fn counted(&self) -> (usize, usize) {
        let directory = self.directory.as_ref();
        let asked_for = [
            self.attributes.is_some_and(|set| set.are_in_memory()),
            directory.is_some_and(Directory::is_in_memory),
        ];
        (
            usize::from(directory.is_some_and(Directory::is_kept)),
            asked_for.into_iter().filter(|is| *is).count(),
        )
    }
}

/// The records. One that says nothing is not kept.
#[derive(Debug)]
pub(crate) struct Paths {
    records: ByName<String, Record>,
    /// Those that have a directory, a deferred rename.
    directories: BTreeSet<String>,
    deferred_renames: BTreeSet<String>,
    /// Inodes that are replaced are kept in mind (`--notify`).
    keeps_replaced: bool,
    /// Inodes that have lost their names, while the kernel knows them.
    lost: ByName<String, Ino>,
    /// How many directories are kept.
    kept_directories: usize,
    /// Of how many files and directories attributes were asked for that no store has.
    attributed: usize,
    /// Files that were written here last, whether or not the kernel still knows them: who wrote one has seen its time.
    written: LruCache<String, ()>,
}

/// How many of those there are.
const WRITTEN: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

impl Default for Paths {
    fn default() -> Self {
        Self {
            records: ByName::default(),
            directories: BTreeSet::new(),
            deferred_renames: BTreeSet::new(),
            keeps_replaced: false,
            lost: ByName::default(),
            kept_directories: 0,
            attributed: 0,
            written: LruCache::new(WRITTEN),
        }
    }
}

impl Paths {
    /// Nothing is known of any path.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.lost.is_empty()
    }

    /// Of how many paths something is known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The files that have paths.
    #[cfg(test)]
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, FileNumber)> {
        self.records.iter().filter_map(|(path, record)| Some((path.as_str(), record.file?)))
    }

    /// The inodes that names come back to.
    #[cfg(test)]
    pub(super) fn homes(&self) -> impl Iterator<Item = (&str, Ino)> {
        self.records.iter().filter_map(|(path, record)| Some((path.as_str(), record.rest.as_ref()?.home?)))
    }

    /// What is counted, counted anew.
    #[cfg(test)]
    pub(super) fn recounted(&self) -> (usize, usize) {
        let counted =
            self.records.values().filter_map(|record| record.rest.as_ref()).map(|rest| rest.counted());
        counted.fold((0, 0), |all, (kept, attributed)| (all.0 + kept, all.1 + attributed))
    }

    fn rest(&self, path: &str) -> Option<&Rest> {
        self.records.get(path)?.rest.as_deref()
    }

    fn rest_mut(&mut self, path: &str) -> Option<&mut Rest> {
        self.records.get_mut(path)?.rest.as_deref_mut()
    }

    /// Changes what few paths have of `path`.
    fn edit<T>(&mut self, path: &str, change: impl FnOnce(&mut Rest) -> T) -> T {
        let record = match self.records.get_mut(path) {
            Some(record) => record,
            None => self.records.entry(path.to_owned()).or_default(),
        };
        let rest = record.rest.get_or_insert_default();
        let before = rest.counted();
        let changed = change(rest);
        let now = rest.counted();
        self.kept_directories = self.kept_directories + now.0 - before.0;
        self.attributed = self.attributed + now.1 - before.1;
        let is = [rest.directory.is_some(), rest.deferred_rename.is_some()];
        let indexes = [&mut self.directories, &mut self.deferred_renames];
        for (index, is) in indexes.into_iter().zip(is) {
            match (is, index.contains(path)) {
                (true, false) => _ = index.insert(path.to_owned()),
                (false, true) => _ = index.remove(path),
                (true, true) | (false, false) => {}
            }
        }
        self.sweep(path);
        changed
    }

    fn sweep(&mut self, path: &str) {
        let Some(record) = self.records.get_mut(path) else { return };
        record.rest.take_if(|rest| rest.is_empty());
        if record.current.is_none() && record.file.is_none() && record.rest.is_none() {
            self.records.remove(path);
        }
    }

    /// The inode that a lookup of the name gives.
    pub(crate) fn current(&self, path: &str) -> Option<Ino> {
        self.records.get(path)?.current
    }

    /// All of them.
    pub(crate) fn currents(&self) -> impl Iterator<Item = (&str, Ino)> {
        self.records.iter().filter_map(|(path, record)| Some((path.as_str(), record.current?)))
    }

    /// Makes `ino` what a lookup gives; returns what it gave before.
    pub(super) fn set_current(&mut self, path: &str, ino: Ino) -> Option<Ino> {
        if let Some(record) = self.records.get_mut(path) {
            record.current.replace(ino)
        } else {
            self.records.insert(path.to_owned(), Record { current: Some(ino), ..Record::default() });
            None
        }
    }

    /// A lookup of the name finds nothing in the tables from now on.
    pub(super) fn take_current(&mut self, path: &str) -> Option<Ino> {
        let taken = self.records.get_mut(path)?.current.take();
        self.sweep(path);
        taken
    }

    /// The number of the file at `path`.
    pub(super) fn file(&self, path: &str) -> Option<FileNumber> {
        self.records.get(path)?.file
    }

    pub(super) fn set_file(&mut self, path: &str, file: FileNumber) {
        if let Some(record) = self.records.get_mut(path) {
            record.file = Some(file);
        } else {
            self.records.insert(path.to_owned(), Record { file: Some(file), ..Record::default() });
        }
    }

    pub(super) fn take_file(&mut self, path: &str) -> Option<FileNumber> {
        let taken = self.records.get_mut(path)?.file.take();
        self.sweep(path);
        taken
    }

    /// The directory at `path`.
    pub(crate) fn directory(&self, path: &str) -> Option<&Directory> {
        self.rest(path)?.directory.as_ref()
    }

    pub(super) fn directory_mut(&mut self, path: &str) -> Option<&mut Directory> {
        self.rest_mut(path)?.directory.as_mut()
    }

    /// Changes the directory at `path`, which is made as one that changed at `modified` if there is none.
    pub(super) fn edit_directory<T>(
        &mut self,
        path: &str,
        modified: SystemTime,
        change: impl FnOnce(&mut Directory) -> T,
    ) -> T {
        self.edit(path, |rest| change(rest.directory.get_or_insert_with(|| Directory::new(modified))))
    }

    /// Takes the directory at `path` away, and what chmod and the like said of it.
    pub(super) fn take_directory(&mut self, path: &str) -> Option<Directory> {
        self.directory(path)?;
        self.edit(path, |rest| rest.directory.take())
    }

    pub(super) fn put_directory(&mut self, path: &str, directory: Directory) {
        self.edit(path, |rest| rest.directory = Some(directory));
    }

    /// The directories that are known, by their paths.
    pub(crate) fn directories(&self) -> impl Iterator<Item = (&str, &Directory)> {
        self.directories.iter().filter_map(|path| Some((path.as_str(), self.directory(path)?)))
    }

    /// A directory that was at `path` and that somebody is still in.
    pub(crate) fn unlinked_directory(&self, path: &str) -> Option<Ino> {
        self.rest(path)?.unlinked_directory
    }

    pub(super) fn set_unlinked_directory(&mut self, path: &str, ino: Option<Ino>) {
        self.edit(path, |rest| rest.unlinked_directory = ino);
    }

    /// The drafts of the file, also of those that have lost the name.
    pub(super) fn drafts(&self, path: &str) -> Vec<DraftId> {
        self.rest(path).map_or_else(Vec::new, |rest| rest.drafts.clone())
    }

    pub(super) fn add_draft(&mut self, path: &str, id: DraftId) {
        self.edit(path, |rest| rest.drafts.push(id));
    }

    pub(super) fn remove_draft(&mut self, path: &str, id: DraftId) {
        self.edit(path, |rest| rest.drafts.retain(|other| *other != id));
    }

    /// What chmod, chown and utimes said of the file.
    pub(crate) fn attributes(&self, path: &str) -> Option<Overrides> {
        self.rest(path)?.attributes
    }

    pub(crate) fn edit_attributes<T>(&mut self, path: &str, change: impl FnOnce(&mut Overrides) -> T) -> T {
        self.edit(path, |rest| change(rest.attributes.get_or_insert_default()))
    }

    /// What was the version `before` of the key is `now` this one, with the same value.
    pub(super) fn version_became(&mut self, path: &str, before: Revision, now: Revision) {
        if self.attributes(path).is_some_and(|set| set.version == Some(before)) {
            self.edit_attributes(path, |set| set.version = Some(now));
        }
    }

    /// No inode of the file is known any more: nobody can tell that what was not asked for is forgotten.
    pub(super) fn forget_attributes(&mut self, path: &str) {
        let known = |rest: &Rest| rest.drafts.is_empty() && rest.attributes.is_some();
        let is_free = self.current(path).is_none()
            && self.rest(path).is_some_and(known)
            && !self.written.contains(path);
        if is_free && !self.attributes(path).is_some_and(|set| set.are_in_memory()) {
            self.set_attributes(path, None);
        }
    }

    /// The file was written. Of those that were long before only what was asked for is kept.
    pub(super) fn note_written(&mut self, path: &str) {
        let pushed = self.written.push(path.to_owned(), ());
        if let Some((old, ())) = pushed.filter(|(old, ())| old != path) {
            self.forget_attributes(&old);
        }
    }

    /// How many directories stay while no key is below them.
    pub(super) const fn kept_directories(&self) -> usize {
        self.kept_directories
    }

    /// Of how many files and directories attributes were asked for that no store has.
    pub(super) const fn attributed(&self) -> usize {
        self.attributed
    }

    /// One of those.
    pub(super) fn first_attributed(&self) -> Option<&str> {
        let is_one = |rest: &Rest| rest.counted().1 > 0;
        let mut records = self.records.iter().filter(|_| self.attributed > 0);
        records.find(|(_, record)| record.rest.as_deref().is_some_and(is_one)).map(|(path, _)| path.as_str())
    }

    /// The directories that are kept.
    pub(super) fn kept(&self) -> impl Iterator<Item = &str> {
        let is_one = |path: &&String| self.rest(path).is_some_and(|rest| rest.counted().0 > 0);
        self.directories.iter().filter(is_one).map(String::as_str)
    }

    pub(crate) fn set_attributes(&mut self, path: &str, attributes: Option<Overrides>) {
        if attributes.is_some() || self.attributes(path).is_some() {
            self.edit(path, |rest| rest.attributes = attributes);
        }
    }

    /// The inode that the name comes back to.
    pub(crate) fn home(&self, path: &str) -> Option<Ino> {
        self.rest(path)?.home
    }

    /// The name comes back to `ino`, unless there is another one to which it does.
    pub(super) fn set_home(&mut self, path: &str, ino: Ino) {
        if self.home(path).is_none() {
            self.edit(path, |rest| rest.home = Some(ino));
        }
    }

    /// The name does not come back to `ino`.
    pub(super) fn leave_home(&mut self, path: &str, ino: Ino) {
        if self.home(path) == Some(ino) {
            self.edit(path, |rest| rest.home = None);
        }
    }

    /// The key at `path` was renamed to a backup name.
    pub(crate) fn deferred_rename(&self, path: &str) -> Option<&DeferredRename> {
        self.rest(path)?.deferred_rename.as_ref()
    }

    pub(super) fn deferred_rename_mut(&mut self, path: &str) -> Option<&mut DeferredRename> {
        self.rest_mut(path)?.deferred_rename.as_mut()
    }

    /// All such, by the paths that the keys had.
    pub(crate) fn deferred_renames(&self) -> impl Iterator<Item = (&str, &DeferredRename)> {
        self.deferred_renames.iter().filter_map(|path| Some((path.as_str(), self.deferred_rename(path)?)))
    }

    pub(crate) fn set_deferred_rename(&mut self, path: &str, deferred: DeferredRename) {
        self.edit(path, |rest| rest.deferred_rename = Some(deferred));
    }

    pub(crate) fn take_deferred_rename(&mut self, path: &str) -> Option<DeferredRename> {
        self.deferred_rename(path)?;
        self.edit(path, |rest| rest.deferred_rename.take())
    }

    /// Why the last text written to the file was not published.
    pub(crate) fn failure(&self, path: &str) -> Option<&FsError> {
        self.rest(path)?.failure.as_ref()
    }

    pub(crate) fn set_failure(&mut self, path: &str, failure: Option<FsError>) {
        if failure.is_some() || self.failure(path).is_some() {
            self.edit(path, |rest| rest.failure = failure);
        }
    }

    /// From now on inodes that are replaced are kept in mind.
    pub(super) const fn keep_replaced(&mut self) {
        self.keeps_replaced = true;
    }

    pub(super) const fn keeps_replaced(&self) -> bool {
        self.keeps_replaced
    }

    /// The inode that those may watch who watched the file before it had its present one.
    pub(super) fn replaced(&self, path: &str) -> Option<Ino> {
        self.rest(path)?.replaced
    }

    pub(super) fn set_replaced(&mut self, path: &str, ino: Option<Ino>) {
        if self.replaced(path) == ino {
            return;
        }
        self.edit(path, |rest| rest.replaced = ino);
    }

    /// The inode has lost the name at `path`.
    pub(super) fn lose(&mut self, path: &str, ino: Ino) {
        self.lost.insert(path.to_owned(), ino);
    }

    /// The inode that has lost the name at `path`, and was not asked for since.
    pub(super) fn take_lost(&mut self, path: &str) -> Option<Ino> {
        self.lost.remove(path)
    }

    /// The inode is not known any more.
    pub(super) fn forget_lost(&mut self, path: &str, ino: Ino) {
        if self.lost.get(path) == Some(&ino) {
            self.lost.remove(path);
        }
    }

    /// The file at `from` is at `to`: its inode, and what chmod and the like said.
    pub(super) fn rename_file(&mut self, ino: Ino, from: &str, to: &str) {
        self.take_current(from);
        self.set_current(to, ino);
        let attributes = self.attributes(from);
        self.set_attributes(from, None);
        self.set_attributes(to, attributes);
        self.set_failure(from, None);
        self.set_failure(to, None);
    }
}
