//! What is noted of what was refused, and read by `user.kvfs.last_error` and `kvfs why`.

use crate::fs::core::Fs;
use crate::fs::refusals::{Kept, Refusal};
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::rules::names::{Decoded, base, is_inside};
use crate::fs::state::nodes::Body;
use crate::fs::types::{Ino, ROOT};

impl Fs {
    /// Remembers why an operation on `name` failed.
    pub fn note(&self, name: &str, error: &FsError) {
        self.refusals.lock().add(
            name,
            Some(error.clone()),
            &error.to_string(),
            None,
            self.settings.clock.now(),
        );
    }

    /// Remembers what failed that no program waited for.
    pub(crate) fn note_late(&self, name: &str, reason: &str) {
        self.refusals.lock().add(name, None, reason, None, self.settings.clock.now());
    }

    /// Remembers that the text of `name` was not published, and what became of it.
    pub(crate) fn note_text(&self, name: &str, error: Option<FsError>, reason: &str, kept: Option<Kept>) {
        self.refusals.lock().add(name, error, reason, kept, self.settings.clock.now());
    }

    /// The last failure noted.
    pub fn last_error(&self) -> Option<Refusal> {
        self.refusals.lock().last().cloned()
    }

    /// The last failure noted of a file.
    pub(crate) fn last_error_of(&self, name: &str) -> Option<Refusal> {
        self.refusals.lock().iter().rfind(|refusal| refusal.name == name).cloned()
    }

    /// What was refused of late of a file, or in a directory, the newest at the end; and by what name it is known there.
    pub fn refusals(&self, ino: Ino) -> FsResult<Vec<(String, Refusal)>> {
        let (path, directory) = if ino == ROOT {
            (String::new(), true)
        } else {
            let state = self.state.lock();
            let inode = state.inode(ino)?;
            (inode.name.clone(), matches!(inode.body, Body::Directory))
        };
        let named = |refusal: &Refusal| {
            let name = refusal.name.as_str();
            match (directory, path.as_str()) {
                (true, "") => Some(name),
                (true, path) if is_inside(name, path) => Some(&name[path.len() + 1..]),
                (_, path) => (name == path).then(|| base(name)),
            }
            .map(|name| (name.to_owned(), refusal.clone()))
        };
        Ok(self.refusals.lock().iter().filter_map(named).collect())
    }

    /// The key whose file is at `path`, if a key can have it.
    pub fn key_at(&self, path: &str) -> Option<String> {
        match self.settings.names.decode(path.as_ref()) {
            Decoded::Key(key) => Some(key.as_str().to_owned()),
            Decoded::Alias | Decoded::Foreign | Decoded::Impossible => None,
        }
    }
}
