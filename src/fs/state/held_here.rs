//! What a mount has that no store has, and that would end with it.

use std::time::Duration;

use crate::fs::state::drafts::Publish;
use crate::fs::state::nodes::{Body, Content, Handle};
use crate::fs::state::tables::State;
use crate::fs::types::FileNumber;

impl State {
    /// One thing that is in this mount alone, in words. A kept directory is one unless keys are in it.
    pub(crate) fn held_here(&self, has_keys: impl Fn(&str) -> bool) -> Option<String> {
        if let Some((name, deferred)) = self.paths.deferred_renames().next() {
            let backup = &deferred.backup;
            return Some(format!("{name:?} was renamed to {backup:?} a moment ago, and is not in the store"));
        }
        if let Some((name, purpose)) = self.local_file() {
            return Some(match purpose {
                Publish::OnClose => format!("{name:?} has no content yet"),
                Publish::OnRename | Publish::Never => format!("{name:?} is a temporary or scratch file"),
            });
        }
        if let Some(file) = self.files.locks.first_file() {
            return Some(format!("{:?} is locked", self.path_of_file(file)));
        }
        if let Some(name) =
            self.paths.first_attributed().or_else(|| self.directories.root.is_in_memory().then_some("."))
        {
            return Some(format!("{name:?} has a mode, an owner or times of its own"));
        }
        let empty = self.paths.kept().find(|path| !has_keys(path))?;
        Some(format!("the directory {empty:?} has no keys"))
    }

    fn local_file(&self) -> Option<(&str, Publish)> {
        self.drafts.iter().find_map(|(id, draft)| {
            let inode = self.inodes.get(&draft.ino)?;
            let is_it = matches!(inode.body, Body::Local(own) if own == *id);
            (is_it && self.is_current(draft.ino, inode)).then_some((inode.name.as_str(), draft.purpose))
        })
    }

    fn path_of_file(&self, file: FileNumber) -> &str {
        self.inodes.values().find(|inode| inode.file == file).map_or("a removed file", |inode| &inode.name)
    }

    /// Whether somebody has opened a file so lately.
    pub(crate) fn is_opened_within(&self, time: Duration) -> bool {
        self.handles.values().any(|handle| handle.opened.age() < time)
    }

    /// Whether somebody writes a file.
    pub(crate) fn is_written(&self) -> bool {
        let writes = |handle: &Handle| handle.writable && matches!(handle.content, Content::Draft(_));
        self.handles.values().any(writes)
    }

    /// How many files are open.
    pub(crate) fn open_files(&self) -> usize {
        self.handles.len()
    }
}
