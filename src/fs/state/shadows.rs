//! Inodes that only the inotify relay finds.

use crate::fs::state::directory::Presence;
use crate::fs::state::nodes::Body;
use crate::fs::state::tables::State;
use crate::fs::types::Ino;
use crate::store::{Key, Meta};

impl State {
    /// The inode of the name, or one that stands for it.
    pub(crate) fn current_or_shadow(&mut self, (name, key, meta): (&str, &Key, &Meta)) -> Ino {
        match self.named(name) {
            Some((ino, inode)) if matches!(inode.body, Body::Key(_)) => ino,
            _ => self.shadow((name, key, meta)),
        }
    }

    /// The inode of a directory that is gone, which may be watched, or one that stands for it.
    pub(crate) fn removed_or_shadow(&mut self, path: &str) -> Ino {
        let gone = self.directory(path).filter(|directory| directory.presence == Presence::Gone);
        if let Some(ino) = gone.and_then(|gone| gone.ino).or_else(|| self.paths.unlinked_directory(path)) {
            return ino;
        }
        self.directory_shadow(path)
    }

    /// An inode that stands for a directory that is gone.
    pub(crate) fn directory_shadow(&mut self, path: &str) -> Ino {
        self.unnamed(path, &Key::from(""), Body::Directory)
    }

    pub(crate) fn shadow(&mut self, (name, key, meta): (&str, &Key, &Meta)) -> Ino {
        self.unnamed(name, key, Body::Key(meta.clone()))
    }

    /// An inode that no name leads to, for as long as the kernel refers to it.
    fn unnamed(&mut self, name: &str, key: &Key, body: Body) -> Ino {
        let ino = self.add_inode(name, key, body);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.unlinked = true;
        }
        ino
    }
}
