//! The directories below the root that the kernel may know, or that were made here.

use std::time::SystemTime;

use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{ancestors, base, is_inside, is_within, parent, value_name};
use crate::fs::state::directory::{Directory, Presence};
use crate::fs::state::invalidation::{Invalidation, PathInvalidation};
use crate::fs::state::nodes::{Body, Overrides};
use crate::fs::state::tables::State;
use crate::fs::types::{Ino, ROOT};
use crate::store::{Attributes, Key};

impl State {
    /// The path of a directory that was not removed here; empty for the root. Others may have deleted all keys below it.
    pub(crate) fn directory_path(&self, ino: Ino) -> FsResult<String> {
        if ino == ROOT {
            return Ok(String::new());
        }
        let inode = self.inode(ino)?;
        match inode.body {
            Body::Directory if inode.unlinked => Err(FsError::NotFound),
            Body::Directory => Ok(inode.name.clone()),
            Body::Key(_) | Body::Local(_) | Body::Draft(_) => Err(FsError::NotDirectory),
        }
    }

    /// The inode of the directory at `path`, if the kernel may know it.
    pub(crate) fn directory_ino(&self, path: &str) -> Option<Ino> {
        if path.is_empty() { Some(ROOT) } else { self.paths.directory(path)?.ino }
    }

    /// A notice in the kernel's terms, as far as the kernel may know what it is about.
    pub(crate) fn addressed(
        &self,
        invalidation: PathInvalidation,
        has_directories: bool,
    ) -> Vec<Invalidation> {
        match invalidation {
            PathInvalidation::Inode(ino) => vec![Invalidation::Inode(ino, self.dentry_of(ino))],
            // Who is in a directory that is there, or comes back, stays in it.
            PathInvalidation::Entry(path) if self.directory_ino(&path).is_some() => {
                self.dentries(&path, has_directories, Invalidation::Expired)
            }
            PathInvalidation::Entry(path) => self.dentries(&path, has_directories, Invalidation::Entry),
            PathInvalidation::Listing(path) => self
                .directory_ino(&path)
                .map(|ino| Invalidation::Inode(ino, self.dentry_of(ino)))
                .into_iter()
                .collect(),
            PathInvalidation::Everything => vec![Invalidation::Everything],
        }
    }

    /// A notice of each name that leads to `path`, or led there when the kernel heard of it.
    fn dentries(
        &self,
        path: &str,
        has_directories: bool,
        notice: impl Fn(Ino, String) -> Invalidation,
    ) -> Vec<Invalidation> {
        let directories = [self.directory_ino(parent(path)), self.paths.unlinked_directory(parent(path))];
        // Which of its two names a file has now, or had, is not known.
        let value = has_directories.then(|| value_name(base(path)));
        let names: Vec<String> = value.into_iter().chain([base(path).to_owned()]).collect();
        let within = |ino: Ino| names.iter().map(|name| notice(ino, name.clone())).collect::<Vec<_>>();
        directories.into_iter().flatten().flat_map(within).collect()
    }

    /// The name by which the kernel comes to an inode.
    fn dentry_of(&self, ino: Ino) -> Option<(Ino, String)> {
        let inode = self.inodes.get(&ino).filter(|inode| inode.lookups > 0)?;
        Some((self.directory_ino(parent(&inode.name))?, base(&inode.name).to_owned()))
    }

    /// What is known of the directory at `path`; of the root, of the empty path, always something.
    pub(crate) fn directory(&self, path: &str) -> Option<&Directory> {
        if path.is_empty() { Some(&self.directories.root) } else { self.paths.directory(path) }
    }

    fn directory_mut(&mut self, path: &str) -> Option<&mut Directory> {
        if path.is_empty() { Some(&mut self.directories.root) } else { self.paths.directory_mut(path) }
    }

    /// The directory at `path`, of which from now on something is known.
    pub(crate) fn edit_directory<T>(&mut self, path: &str, change: impl FnOnce(&mut Directory) -> T) -> T {
        match path {
            "" => change(&mut self.directories.root),
            path => self.paths.edit_directory(path, self.directories.names_modified, change),
        }
    }

    /// When the names in a directory last changed of which nothing is known: not later than that.
    pub(crate) const fn names_modified(&self) -> SystemTime {
        self.directories.names_modified
    }

    /// The inode of the directory at `path`, which is there.
    pub(crate) fn directory_inode(&mut self, path: &str) -> Ino {
        if let Some(ino) = self.directory_ino(path) {
            self.has_come_back(path);
            return ino;
        }
        let ino = self.add_inode(path, &Key::from(""), Body::Directory);
        self.edit_directory(path, |directory| directory.ino = Some(ino));
        ino
    }

    /// A key is below the directory at `path`.
    fn has_come_back(&mut self, path: &str) -> bool {
        let gone = self.paths.directory_mut(path).filter(|directory| directory.presence == Presence::Gone);
        gone.map(|directory| directory.presence = Presence::Keys).is_some()
    }

    /// Whether the directory at `path` is there while no key is below it.
    pub(crate) fn keeps(&self, path: &str) -> bool {
        let there = |directory: &Directory| directory.is_kept() || self.is_moving(path);
        self.paths.directory(path).is_some_and(there)
    }

    /// From now on the directory at this path is being renamed, or none is.
    pub(crate) fn set_moving(&mut self, path: Option<String>) {
        self.directories.moving = path;
    }

    /// Whether the directory at `path`, or one that it is in, is being renamed: the store may have done so already.
    pub(crate) fn is_moving(&self, path: &str) -> bool {
        self.directories.moving.as_ref().is_some_and(|from| path == from || is_inside(path, from))
    }

    /// The directory at `path` stays, and with it those that it is in.
    pub(crate) fn keep_directory(&mut self, path: &str) {
        let mut path = path;
        while !path.is_empty() {
            let keep = |directory: &mut Directory| std::mem::replace(&mut directory.presence, Presence::Kept);
            if self.edit_directory(path, keep) == Presence::Kept {
                return;
            }
            path = parent(path);
        }
    }

    /// A key is below the directory at `path`: what stays while none is need not be remembered.
    pub(crate) fn has_key(&mut self, path: &str) {
        if self.paths.directory(path).is_some_and(Directory::is_kept) {
            self.edit_directory(path, |directory| directory.presence = Presence::Keys);
        }
    }

    /// Whether a local file or a directory that was made here is in the directory at `path`.
    pub(crate) fn is_inhabited(&self, path: &str) -> bool {
        let local = self.locals().any(|(name, _)| is_inside(name, path));
        local
            || self
                .paths
                .directories()
                .any(|(other, directory)| directory.is_kept() && is_inside(other, path))
    }

    /// Whether a file that is not a key has the name.
    pub(crate) fn is_local(&self, path: &str) -> bool {
        self.named(path).is_some_and(|(_, inode)| matches!(inode.body, Body::Local(_)))
    }

    /// Files that are not keys, by their paths.
    pub(crate) fn locals(&self) -> impl Iterator<Item = (&str, Ino)> {
        let inodes = self.drafts.values().filter_map(|draft| Some((draft.ino, self.inodes.get(&draft.ino)?)));
        let local = inodes
            .filter(|(ino, inode)| matches!(inode.body, Body::Local(_)) && self.is_current(*ino, inode));
        local.map(|(ino, inode)| (inode.name.as_str(), ino))
    }

    /// Others have deleted the last key below the directory at `path`. Who is in it finds nothing there.
    pub(crate) fn vanished(&mut self, path: &str) {
        self.note_change(path);
        match self.paths.directory(path) {
            Some(Directory { ino: Some(_), .. }) => {
                self.edit_directory(path, |directory| directory.presence = Presence::Gone);
            }
            Some(Directory { ino: None, set, .. }) if set.stored.is_some() => {
                self.edit_directory(path, |directory| directory.presence = Presence::Keys);
            }
            Some(Directory { ino: None, .. }) => _ = self.take_directory(path),
            None => {}
        }
    }

    /// The directory at `path` was removed or replaced here: its inode is never used again, which the kernel counts on.
    pub(crate) fn remove_directory(&mut self, path: &str) {
        let Some(directory) = self.take_directory(path) else { return };
        self.note_change(path);
        if let Some(ino) = directory.ino {
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.unlinked = true;
                self.paths.set_unlinked_directory(path, Some(ino));
            }
            self.collect(ino);
        }
    }

    /// The directories of which the store keeps something, as far as they are `wanted`.
    pub(crate) fn stored_directories(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let root = [("", &self.directories.root)];
        let all = self.paths().directories().chain(root);
        let stored = all.filter(|(path, directory)| directory.set.stored.is_some() && wanted(path));
        stored.map(|(path, _)| path.to_owned()).collect()
    }

    /// The store keeps nothing any more of the directory at `path` and those below it.
    pub(crate) fn forget_stored(&mut self, path: &str) {
        for path in self.stored_directories(|other| is_within(other, path)) {
            self.follow_directory(&path, None);
        }
    }

    /// The store keeps this of the directory at `path`, or nothing: its inode, if that shows something else now.
    pub(crate) fn follow_directory(&mut self, path: &str, kept: Option<&Attributes>) -> Option<Ino> {
        let known = self.directory(path).map(|directory| directory.set).unwrap_or_default();
        let now = known.kept(kept);
        if now == known {
            return None;
        }
        self.edit_directory(path, |directory| directory.set = now);
        let ino = self.directory_ino(path);
        if ino.is_none() {
            self.forget_directory(path);
        }
        ino
    }

    /// The kernel knows the directory at `path` no more.
    pub(crate) fn forget_directory(&mut self, path: &str) {
        let Some(directory) = self.paths.directory_mut(path) else { return };
        directory.ino = None;
        let is_needed = match directory.presence {
            Presence::Keys => directory.set != Overrides::default(),
            Presence::Kept => true,
            Presence::Gone => {
                // Should it come back, it is another one of which the store keeps the same.
                directory.presence = Presence::Keys;
                directory.set.stored.is_some()
            }
        };
        if !is_needed {
            self.take_directory(path);
        }
    }

    /// Nothing is known of the directory at `path` any more; should there be one again, it is not older.
    fn take_directory(&mut self, path: &str) -> Option<Directory> {
        let directory = self.paths.take_directory(path)?;
        self.directories.names_modified = self.directories.names_modified.max(directory.modified);
        Some(directory)
    }

    /// A key is at `path`: the kernel may not know of a directory on the way, nor that a file has lost
    /// its name to it.
    pub(crate) fn appeared(&mut self, path: &str) -> Vec<PathInvalidation> {
        let mut unknown = None;
        for path in ancestors(path) {
            if self.has_come_back(path) || self.directory_ino(path).is_none() {
                unknown = unknown.or(Some(path));
            }
        }
        let Some(unknown) = unknown else { return Vec::new() };
        self.note_change(unknown);
        PathInvalidation::of_name(unknown)
    }

    /// The last key in the directory at `path` was deleted, `by_others` if that is certain.
    pub(crate) fn emptied(&mut self, path: &str, by_others: bool) -> Vec<PathInvalidation> {
        if self.keeps(path) && !by_others {
            return Vec::new();
        }
        if self.is_inhabited(path) {
            self.keep_directory(path);
            return Vec::new();
        }
        self.vanished(path);
        if by_others {
            self.touch(path);
        }
        let mut invalidations = PathInvalidation::of_name(path);
        // It has no links any more.
        invalidations.push(PathInvalidation::Listing(path.to_owned()));
        invalidations
    }

    /// The names in the directory of `path` have changed.
    pub(crate) fn touch(&mut self, path: &str) {
        let now = self.now();
        match self.directory_mut(parent(path)) {
            Some(directory) => directory.touch(now),
            None => self.directories.names_modified = now.max(self.directories.names_modified),
        }
    }

    /// The names in any directory may have changed.
    pub(super) fn touch_all(&mut self) {
        let now = self.now();
        let known: Vec<String> = self.paths.directories().map(|(path, _)| path.to_owned()).collect();
        for path in known.iter().map(String::as_str).chain([""]) {
            self.edit_directory(path, |directory| directory.touch(now));
        }
        self.directories.names_modified = now.max(self.directories.names_modified);
    }
}
