//! The identity of a file: device and inode.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Device and inode.
pub(super) type Id = (u64, u64);

pub(super) fn id(file: &Metadata) -> Id {
    (file.dev(), file.ino())
}

pub(super) fn id_of(path: &Path) -> Option<Id> {
    fs::metadata(path).ok().as_ref().map(id)
}

/// A file beside the database: its log, or the index of that.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
