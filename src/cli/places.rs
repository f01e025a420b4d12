//! Stores and directories as people name them; an error names the line to type.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::directory;
use crate::failure::Failure;
use crate::store::Location;
use crate::sys;

/// The store that `text` names; a database by its absolute path.
pub(super) fn locate(text: Option<&str>) -> Result<Location, Failure> {
    let location = Location::parse(text, &data_home()).map_err(Failure::Usage)?;
    let Location::Sqlite(path) = location else { return Ok(location) };
    let path =
        std::path::absolute(&path).map_err(|error| Failure::Store(format!("{}: {error}", path.display())))?;
    check_database(&path)?;
    Ok(Location::Sqlite(path))
}

/// As [`locate`], for a store that must exist.
pub(super) fn locate_existing(text: &str) -> Result<Location, Failure> {
    let location = locate(Some(text))?;
    match &location {
        Location::Sqlite(path) if !path.exists() => {
            Err(Failure::Store(format!("there is no database {}; correct the path", path.display())))
        }
        _ => Ok(location),
    }
}

/// The data directory, of the embedded store.
pub(super) fn data_home() -> PathBuf {
    directory("XDG_DATA_HOME", ".local/share")
}

/// The directory of the log and of rejected texts, and the alternatives if it cannot be written.
pub(super) fn of_state() -> (PathBuf, Vec<PathBuf>) {
    let (user, _) = sys::owner();
    let home = std::env::home_dir().map(|home| home.join(".local/state/kvfs"));
    let system = (user == 0).then(|| PathBuf::from("/var/lib/kvfs"));
    let temporary = std::env::temp_dir().join(format!("kvfs-{user}"));
    let first = directory("XDG_STATE_HOME", ".local/state").join("kvfs");
    let others = home.into_iter().chain(system).chain([temporary]).filter(|other| *other != first);
    (first.clone(), others.collect())
}

/// Refuses a `path` that cannot be a database, as far as that is known without opening it.
fn check_database(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let why = match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            format!("{shown} is a directory; name a file in it: sqlite:{}", path.join("kv.db").display())
        }
        Ok(meta) if sys::may_read(path).is_err() => {
            let (owner, (user, _)) = (std::os::unix::fs::MetadataExt::uid(&meta), sys::owner());
            format!("{shown}: permission denied: it belongs to user {owner}, and user {user} may not read it")
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            format!(
                "{shown}: permission denied: user {} may not enter a directory of the path",
                sys::owner().0
            )
        }
        Err(error) if error.kind() == ErrorKind::NotFound => match path.parent() {
            // That of the embedded store is created.
            Some(parent) if !parent.is_dir() && !path.starts_with(data_home()) => {
                let parent = parent.display();
                format!("there is no directory {parent}; correct the path, or make it: mkdir -p {parent}")
            }
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    Err(Failure::Store(why))
}

/// The store and the mount point among the words of a mount. `option` is the store that `--store` or its variable names.
pub(super) fn of_mount(words: &[OsString], option: Option<&str>) -> Result<(Location, PathBuf), Failure> {
    let usage = |why: String| Err(Failure::Usage(why));
    let is_store = |word: &str| Location::parse(Some(word), Path::new("/")).is_ok();
    match words {
        [] => usage("name the directory to mount on, as in `kvfs /mnt/kv` (see kvfs --help)".into()),
        [only] => {
            let (word, path) = (only.to_string_lossy(), Path::new(only));
            if Location::looks_like(&word) {
                locate(Some(&word))?;
                return usage(format!(
                    "{word} is a store; name the directory to mount it on, too: kvfs {word} /mnt/kv"
                ));
            }
            if path.is_file() {
                return usage(format!(
                    "{word} is a file; a database is mounted so: kvfs sqlite:{word} /mnt/kv"
                ));
            }
            let from = std::env::var("KVFS_STORE").is_ok_and(|set| Some(&*set) == option);
            let from = if from { "KVFS_STORE" } else { "--store" };
            let store = locate(option)
                .map_err(|failure| if option.is_some() { failure.of(from) } else { failure })?;
            Ok((store, path.into()))
        }
        [store, mountpoint, ..] => {
            let Some(word) = store.to_str() else { return usage("the store must be UTF-8".into()) };
            let place = mountpoint.to_string_lossy();
            let is_place = !Location::looks_like(&place) || Path::new(mountpoint).symlink_metadata().is_ok();
            if is_place {
                return Ok((locate(Some(word))?, mountpoint.into()));
            }
            if !is_store(word) && is_store(&place) {
                return usage(format!("the store comes before the directory: kvfs {place} {word}"));
            }
            usage(format!("{place} is a store, too; name the directory to mount on: kvfs {word} /mnt/kv"))
        }
    }
}
