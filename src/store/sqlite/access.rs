//! Explains why a database cannot be written or read: whose permission is missing on which file.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{index, log_of};
use crate::sys;

/// Which file of the database at `path` cannot be written, and why; its log and the index of that are made beside it. `None` if
/// all can be written.
pub(super) fn not_writable(path: &Path) -> Option<String> {
    let files = [path.to_owned(), log_of(path), index::of(path)];
    let file = files.iter().find_map(|file| refusal(file, sys::may_write(file), "written"));
    let directory = || {
        let why = refusal(path.parent()?, sys::may_write(path.parent()?), "written")?;
        Some(format!("the directory {why}"))
    };
    file.or_else(directory)
}

/// As [`not_writable`], for reading.
pub(super) fn not_readable(path: &Path) -> Option<String> {
    [path.to_owned(), log_of(path)].iter().find_map(|file| refusal(file, sys::may_read(file), "read"))
}

/// Why `file` cannot be written or read, by the error of `asked`. A missing file is no reason.
fn refusal(file: &Path, asked: io::Result<()>, done: &str) -> Option<String> {
    let error = asked.err().filter(|error| error.kind() != io::ErrorKind::NotFound)?;
    let shown = file.display();
    if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
        return Some(format!("{shown} is on read-only media"));
    }
    let me = sys::owner().0;
    Some(match std::fs::metadata(file) {
        Ok(_) if error.kind() != io::ErrorKind::PermissionDenied => {
            format!("{shown} cannot be {done}: {error}")
        }
        Ok(_) if me == 0 => format!("{shown} cannot be {done}, not even by root: is it immutable (lsattr)?"),
        Ok(found) if found.uid() == me => {
            let mode = found.mode() & 0o7777;
            format!(
                "{shown} has the mode {mode:04o} and cannot be {done} by {}, to whom it belongs",
                name(me)
            )
        }
        Ok(found) => format!("{shown} belongs to {} and cannot be {done} by {}", name(found.uid()), name(me)),
        Err(_) => format!("{shown} cannot be reached by {}: {error}", name(me)),
    })
}

fn name(user: u32) -> String {
    sys::user_name(user).unwrap_or_else(|| format!("user {user}"))
}
