//! What lies in a directory that is to be mounted on: programs have written it while nothing was mounted there.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Settings;
use super::point::Taken;
use crate::failure::Failure;
use crate::fs::names::Decoded;
use crate::fs::scratch::Class;
use crate::store::{Expect, Key, Store, VALUE_LIMIT};
use crate::{logging, sys};

/// The directory of what is moved aside, below that of the state.
const ASIDE: &str = "aside";

/// What a start does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// It is moved aside.
    Aside,
    /// It is moved aside, and what is a value of a key that the store has not is set.
    Set,
}

/// Moves all that lies in `place` aside, if that is free and it is asked for, sets what is to be set, and says so.
pub(super) async fn clear(
    settings: &Settings,
    taken: &Taken,
    place: &Path,
    store: &dyn Store,
) -> Result<(), Failure> {
    let Some(wanted) = settings.leftovers.filter(|_| matches!(taken, Taken::Free)) else { return Ok(()) };
    let Some(aside) = move_aside(place, &settings.state)? else { return Ok(()) };
    let set = if wanted == Leftovers::Set { set_all(settings, &aside, store).await } else { Vec::new() };
    let shown = aside.display();
    logging::report(&format!("what lay in {} was moved to {shown}", place.display()));
    for (path, done) in set {
        match done {
            Ok(()) => logging::report(&format!("{}, which lay there, is set", path.display())),
            Err(why) => logging::report(&format!("{}, which lay there, is not set: {why}", path.display())),
        }
    }
    Ok(())
}

/// Moves all that lies in `place` to a new directory below `state`; `None` if that is nothing.
fn move_aside(place: &Path, state: &Path) -> Result<Option<PathBuf>, Failure> {
    let cannot = |why: &dyn std::fmt::Display| {
        Failure::Mountpoint(format!("cannot move aside what lies in {}: {why}", place.display()))
    };
    let mut all = paths_in(place).map_err(|error| cannot(&error))?;
    if all.is_empty() {
        return Ok(None);
    }
    if state.starts_with(place) {
        return Err(cannot(&format!("{} is in there, too", state.display())));
    }
    all.sort();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let aside = state.join(ASIDE).join(format!("{now}-{}", std::process::id()));
    sys::create_private_dir_all(&aside).map_err(|error| cannot(&error))?;
    // It may be on another filesystem.
    let moved = Command::new("mv").arg("-t").arg(&aside).arg("--").args(all).output();
    let moved = moved.map_err(|error| cannot(&error))?;
    if !moved.status.success() {
        return Err(cannot(&String::from_utf8_lossy(&moved.stderr).trim()));
    }
    Ok(Some(aside))
}

fn paths_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

/// Sets the files below `aside`; each with what became of it, by its path in there.
async fn set_all(settings: &Settings, aside: &Path, store: &dyn Store) -> Vec<(PathBuf, Result<(), String>)> {
    let mut done = Vec::new();
    let mut directories = vec![aside.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in paths_in(&directory).unwrap_or_default() {
            let kind = path.symlink_metadata().map(|meta| meta.file_type());
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) && settings.fs.names.has_directories() {
                directories.push(path);
                continue;
            }
            let name = path.strip_prefix(aside).unwrap_or(&path).to_owned();
            let set = match kind {
                Ok(kind) if kind.is_file() => {
                    set_one(settings, aside, name.as_os_str().to_owned(), store).await
                }
                Ok(_) => Err("it is no regular file".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            done.push((name, set));
        }
    }
    done
}

/// Sets the file that is called `name` below `aside` and in the mount, unless there is such a key. Who wrote it may still do so, and
/// is not to have others' files set by links.
async fn set_one(settings: &Settings, aside: &Path, name: OsString, store: &dyn Store) -> Result<(), String> {
    if settings.fs.read_only {
        return Err("the mount is read-only".into());
    }
    let key = key_of(settings, &name).ok_or("it has not the name of a key")?;
    let text =
        sys::beneath::read(aside, name.as_ref(), VALUE_LIMIT + 1).map_err(|error| error.to_string())?;
    settings.fs.validate.check(&text).map_err(|fault| fault.to_string())?;
    store.check(&key, &text).map_err(|error| error.to_string())?;
    let set = store.set_key_value(&key, text.into(), Expect::Absent).await;
    set.map(drop).map_err(|error| error.to_string())
}

fn key_of(settings: &Settings, name: &OsString) -> Option<Key> {
    let file = Path::new(name).file_name()?.to_str()?;
    match settings.fs.names.decode(name) {
        Decoded::Key(key) if settings.fs.scratch.class(file, true) == Class::Key => Some(key),
        _ => None,
    }
}
