//! Where a mount keeps rejected texts, values that were deleted, and its log: the first place that can be written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::sys;

/// The directory of rejected texts and deleted values.
pub(super) const REJECTED: &str = "rejected";
pub(super) const LOG: &str = "kvfs.log";
/// The sticky bit: users cannot replace files of others in the directory.
const STICKY: u32 = 0o1000;

/// The first of `place` and `others` that can be written, and a line about it unless it is `place`. If none can be written it
/// is `place`, too: that may change.
pub(super) fn choose(place: &Path, others: &[PathBuf]) -> (PathBuf, Option<String>) {
    let Err(error) = try_out(place) else { return (place.to_owned(), None) };
    let why = format!("{} cannot be written: {error}", place.display());
    let mut whys = vec![why.clone()];
    for other in others {
        match try_out(other) {
            Ok(()) => {
                let note = format!("{why}; rejected texts and the log are kept in {}", other.display());
                return (other.clone(), Some(note));
            }
            Err(error) => whys.push(format!("nor can {}: {error}", other.display())),
        }
    }
    let note = format!(
        "rejected texts will be lost, for {}; set XDG_STATE_HOME to a directory that can be written",
        whys.join(", ")
    );
    (place.to_owned(), Some(note))
}

/// Writes a file there and removes it.
fn try_out(place: &Path) -> io::Result<()> {
    sys::create_private_dir_all(place)?;
    check_owner(place)?;
    let within = place.join(REJECTED);
    sys::create_private_dir_all(&within)?;
    let file = within.join(format!(".{}", std::process::id()));
    // Left by a killed process with the same process id.
    _ = fs::remove_file(&file);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?.write_all(b"\n");
    fs::remove_file(&file)?;
    written
}

/// Refuses a `place` in a directory that all users can write, unless it is private to this user: another user may have made it to
/// read the texts, or put a link there.
fn check_owner(place: &Path) -> io::Result<()> {
    let around = place.parent().map(fs::metadata).transpose()?.map_or(0, |meta| meta.mode());
    if around & 0o002 == 0 {
        return Ok(());
    }
    let meta = fs::symlink_metadata(place)?;
    let why = if !meta.is_dir() {
        "it is a link"
    } else if meta.uid() != sys::owner().0 {
        "it belongs to another user"
    } else if meta.mode() & 0o077 != 0 {
        "others may go there"
    } else if around & STICKY == 0 {
        "anybody may replace it"
    } else {
        return Ok(());
    };
    Err(io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_first_place_that_can_be_written_is_taken_and_in_a_shared_directory_ones_own_only() {
        let home = TempDir::new().unwrap();
        let path = |name: &str| home.path().join(name);
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("tmp")).unwrap();
        fs::create_dir(path("elsewhere")).unwrap();
        fs::set_permissions(path("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink(path("elsewhere"), path("tmp/link")).unwrap();
        symlink(path("elsewhere"), path("own")).unwrap();
        fs::create_dir(path("tmp/open")).unwrap();
        fs::set_permissions(path("tmp/open"), fs::Permissions::from_mode(0o755)).unwrap();

        let first = path("state/kvfs");
        assert_eq!(choose(&first, &[path("other")]), (first.clone(), None));
        assert!(first.join(REJECTED).is_dir() && !path("other").exists());
        assert_eq!(choose(&path("own"), &[]), (path("own"), None));
        assert_eq!(fs::read_dir(first.join(REJECTED)).unwrap().count(), 0);

        let denied = path("file/kvfs");
        let (chosen, note) = choose(&denied, &[path("tmp/link"), path("tmp/open"), path("tmp/new")]);
        assert_eq!(chosen, path("tmp/new"));
        assert_eq!(fs::metadata(&chosen).unwrap().mode() & 0o777, 0o700);
        let note = note.unwrap();
        assert!(
            note.starts_with(&format!("{} cannot be written: Not a directory", denied.display())),
            "{note}"
        );
        assert!(note.ends_with(&format!(" are kept in {}", chosen.display())), "{note}");

        let (chosen, note) = choose(&denied, &[path("tmp/link"), path("tmp/open")]);
        let note = note.unwrap();
        assert_eq!(chosen, denied);
        assert!(note.starts_with("rejected texts will be lost, for "), "{note}");
        let others = format!(
            ", nor can {}: it is a link, nor can {}: others may go there; set XDG_STATE_HOME",
            path("tmp/link").display(),
            path("tmp/open").display()
        );
        assert!(note.contains(&others), "{note}");
    }
}
