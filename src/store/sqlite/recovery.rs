//! A database that was written over while it was in use, and when it can be used again.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::files::{Id, id_of};
use super::write_monitor::Overwritten;
use crate::sys;

pub(super) struct Recovery {
    path: PathBuf,
    /// Its log.
    log: Option<(PathBuf, Id)>,
    overwritten: Overwritten,
}

/// The new path of a log that does not belong to the database beside it.
fn moved_away(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".old");
    path.into()
}

impl Recovery {
    /// Moves the log away: a process that opened the database with it would mix the two.
    pub(super) fn new(path: &Path, log: Option<(PathBuf, Id)>, overwritten: Overwritten) -> Self {
        if let Some((log, _)) = log.as_ref().filter(|(path, id)| id_of(path) == Some(*id))
            && let Err(error) = fs::rename(log, moved_away(log))
        {
            tracing::error!("{} could not be moved away, remove it: {error}", log.display());
        }
        Self { path: path.to_owned(), log, overwritten }
    }

    /// Whether the file is complete, and no process writes old contents to it any more. To be called while this process has it
    /// not open.
    pub(super) fn check(&self) -> Result<(), String> {
        let begun = |(path, id): &(PathBuf, Id)| id_of(path).is_some_and(|now| now != *id);
        // Another kvfs has opened it, and made a new index.
        if self.overwritten.was_unmixed() && self.log.as_ref().is_some_and(begun) {
            return Ok(());
        }
        if !self.overwritten.is_unmixed() {
            let why = "what was there before may be mixed with it: unmount, copy it again, and mount";
            return Err(why.into());
        }
        match sys::lease::is_open_for_writing(&self.path) {
            Ok(false) => Ok(()),
            Ok(true) => Err("another program still has it open for writing".into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(format!(
                "whether it is still written to cannot be told ({error}): unmount, and mount once it is whole"
            )),
        }
    }
}
