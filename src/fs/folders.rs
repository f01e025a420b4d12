//! The directories below the root that the kernel may know, or that were made here.

use std::time::{Duration, SystemTime};

use super::inodes::{Body, Folder, Ino, ROOT, State};
use super::names::{base, is_inside, parent, value_name, ways_to};
use super::{Drop, FsError, FsResult, Notice};
use crate::store::Key;

impl State {
    /// The path of a directory that is still there; empty for the root.
    pub(super) fn directory(&self, ino: Ino) -> FsResult<String> {
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
    pub(super) fn folder_ino(&self, path: &str) -> Option<Ino> {
        if path.is_empty() { Some(ROOT) } else { self.folders.get(path)?.ino }
    }

    /// A notice in the kernel's terms, as far as the kernel may know what it is about.
    pub(super) fn addressed(&self, notice: Notice, has_directories: bool) -> Vec<Drop> {
        match notice {
            Notice::Inode(ino) => vec![Drop::Inode(ino, self.way_to(ino))],
            Notice::Entry(path) => {
                let directories = [self.folder_ino(parent(&path)), self.vanished.get(parent(&path)).copied()];
                // Which of its two names a file has now, or had when the kernel heard of it, is not known.
                let value = has_directories.then(|| value_name(base(&path)));
                let names: Vec<String> = value.into_iter().chain([base(&path).to_owned()]).collect();
                let within = |ino: Ino| names.iter().map(move |name| Drop::Entry(ino, name.clone()));
                directories.into_iter().flatten().flat_map(within).collect()
            }
            Notice::Listing(path) => {
                self.folder_ino(&path).map(|ino| Drop::Inode(ino, self.way_to(ino))).into_iter().collect()
            }
            Notice::Everything => vec![Drop::Everything],
        }
    }

    /// The name by which the kernel comes to an inode.
    fn way_to(&self, ino: Ino) -> Option<(Ino, String)> {
        let inode = self.inodes.get(&ino).filter(|inode| inode.lookups > 0)?;
        Some((self.folder_ino(parent(&inode.name))?, base(&inode.name).to_owned()))
    }

    /// The inode of the directory at `path`, which is there.
    pub(super) fn folder(&mut self, path: &str, modified: SystemTime) -> Ino {
        if let Some(ino) = self.folder_ino(path) {
            return ino;
        }
        let ino = self.add_inode(path, &Key::from(""), Body::Directory);
        let folder = Folder { ino: None, kept: false, modified };
        self.folders.entry(path.to_owned()).or_insert(folder).ino = Some(ino);
        ino
    }

    /// Whether the directory at `path` is there while no key is below it.
    pub(super) fn keeps(&self, path: &str) -> bool {
        self.folders.get(path).is_some_and(|folder| folder.kept)
    }

    /// The directory at `path` stays, and with it those that it is in.
    pub(super) fn keep_folder(&mut self, path: &str) {
        let mut path = path;
        while !path.is_empty() {
            let modified = SystemTime::now();
            let folder =
                self.folders.entry(path.to_owned()).or_insert(Folder { ino: None, kept: false, modified });
            if std::mem::replace(&mut folder.kept, true) {
                return;
            }
            path = parent(path);
        }
    }

    /// Whether a local file or a directory that was made here is in the directory at `path`.
    pub(super) fn is_inhabited(&self, path: &str) -> bool {
        let local = self.locals().any(|(name, _)| is_inside(name, path));
        local || self.folders.iter().any(|(other, folder)| folder.kept && is_inside(other, path))
    }

    /// Files that are not keys, by their paths.
    pub(super) fn locals(&self) -> impl Iterator<Item = (&str, Ino)> {
        let inodes = self.drafts.values().filter_map(|draft| Some((draft.ino, self.inodes.get(&draft.ino)?)));
        let local = inodes
            .filter(|(ino, inode)| matches!(inode.body, Body::Local(_)) && self.is_current(*ino, inode));
        local.map(|(ino, inode)| (inode.name.as_str(), ino))
    }

    /// There is no directory at `path` any more. Who is in it finds nothing there.
    pub(super) fn remove_folder(&mut self, path: &str) {
        let Some(folder) = self.folders.remove(path) else { return };
        self.overrides.remove(&(path.to_owned() + "/"));
        self.note_change(path);
        if let Some(ino) = folder.ino {
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.unlinked = true;
                self.vanished.insert(path.to_owned(), ino);
            }
            self.collect(ino);
        }
    }

    /// The kernel knows the directory at `path` no more.
    pub(super) fn forget_folder(&mut self, path: &str) {
        if let Some(folder) = self.folders.get_mut(path) {
            folder.ino = None;
            if !folder.kept {
                self.folders.remove(path);
            }
        }
    }

    /// A key is at `path`: the kernel may not know of a directory on the way, nor that a file has lost
    /// its name to it.
    pub(super) fn appeared(&mut self, path: &str) -> Vec<Notice> {
        let Some(unknown) = ways_to(path).find(|path| self.folder_ino(path).is_none()) else {
            return Vec::new();
        };
        self.note_change(unknown);
        self.touch(unknown);
        Notice::of_name(unknown)
    }

    /// The last key in the directory at `path` was deleted, `by_others` if that is certain.
    pub(super) fn emptied(&mut self, path: &str, by_others: bool) -> Vec<Notice> {
        if self.keeps(path) && (!by_others || self.is_inhabited(path)) {
            return Vec::new();
        }
        self.remove_folder(path);
        self.note_change(path);
        self.touch(path);
        Notice::of_name(path)
    }

    /// The names in the directory of `path` have changed.
    pub(super) fn touch(&mut self, path: &str) {
        let own = match parent(path) {
            "" => &mut self.root_modified,
            parent => match self.folders.get_mut(parent) {
                Some(folder) => &mut folder.modified,
                None => return,
            },
        };
        *own = SystemTime::now().max(*own + Duration::from_micros(1));
    }
}
