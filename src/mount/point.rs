//! The mount point: checks, creates, and frees it of a dead mount.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::beneath::Beside;
use super::replaced::{self, Replaced};
use super::turn::Turn;
use super::{Settings, daemon, mounts};
use crate::failure::Failure;
use crate::store::Location;
use crate::sys;

/// How many of the names in the way a message lists.
const NAMED: usize = 2;

/// Checks the mount point `path` and changes nothing; returns it absolute and without links. Takes the lock of starts, lest it
/// take the keys of a mount that another start makes meanwhile for files below it.
pub(super) fn examine(path: &Path, way: Way, location: &Location) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::Mountpoint(format!("{}: {error}", path.display())))?;
    let (place, there) = resolve(&absolute)?;
    let _turn = Turn::wait(&place)?;
    if let Location::Sqlite(database) = location
        && std::path::absolute(database).is_ok_and(|database| database.starts_with(&place))
    {
        return Err(Failure::Mountpoint(format!(
            "the database {} lies below {}; mount somewhere else",
            database.display(),
            path.display()
        )));
    }
    if there && find(&place, way.replace)? == There::Nothing {
        check_directory(&place, way.nonempty)?;
    }
    Ok(place)
}

/// How to mount.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    /// On a directory that is not empty.
    pub(super) nonempty: bool,
    /// In the place of a mount that lives.
    pub(super) replace: bool,
}

impl Way {
    pub(super) fn of(settings: &Settings) -> Self {
        Self { nonempty: settings.nonempty || settings.leftovers.is_some(), replace: settings.replace }
    }
}

/// What is mounted at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// What a killed kvfs has left.
    Dead,
    /// A mount that is to be replaced.
    Living,
}

/// What a mount has to be moved to.
pub(super) enum Taken {
    /// It can be made there.
    Free,
    /// It is to be made beside, to take over from a dead one.
    Dead(Beside),
    /// It is to be made beside, to replace this one.
    Living(Beside, Replaced),
}

impl Taken {
    /// Where to make the mount, if not at the place itself.
    pub(super) fn beside(&self) -> Option<&Path> {
        match self {
            Self::Free => None,
            Self::Dead(beside) | Self::Living(beside, _) => Some(beside.path()),
        }
    }
}

/// Prepares `place` for the mount. Detaches dead mounts of kvfs there, but for the last one if the mount can be made in `state`: where
/// to do so, to take over from that. The caller holds the lock of starts.
pub(super) fn take(place: &Path, way: Way, state: &Path) -> Result<Taken, Failure> {
    let shown = place.display();
    loop {
        match find(place, way.replace)? {
            There::Nothing => break,
            There::Living => {
                let beside = Beside::make(state).ok_or_else(|| {
                    Failure::Mountpoint(format!("{} cannot be written; make it so", state.display()))
                })?;
                return Ok(Taken::Living(beside, Replaced::open(place)?));
            }
            There::Dead => {}
        }
        if mounts::count(place) == 1
            && let Some(beside) = Beside::make(state)
        {
            tracing::info!("taking over from the dead mount at {shown}");
            return Ok(Taken::Dead(beside));
        }
        tracing::info!("detaching the dead mount at {shown}: for a moment nothing is mounted there");
        if !unmount(place, true) {
            return Err(Failure::Mountpoint(format!(
                "{shown} is a dead mount that cannot be detached; end it with `umount -l {shown}`"
            )));
        }
    }
    std::fs::create_dir_all(place).map_err(|error| {
        let hint = surrounding(place).unwrap_or_else(|| "name a directory that is there".into());
        Failure::Mountpoint(format!("cannot create {shown}: {error}; {hint}"))
    })?;
    check_directory(place, way.nonempty).map(|()| Taken::Free)
}

/// The absolute path without links, and whether it exists. Sends no message to a mount there: it may be dead.
fn resolve(path: &Path) -> Result<(PathBuf, bool), Failure> {
    let shown = path.display();
    let cannot = |error: Error| {
        let hint = if mounts::is_gone(&error) {
            "it lies in a mount whose daemon is gone".into()
        } else if error.kind() == ErrorKind::PermissionDenied {
            "this user may not go there".into()
        } else {
            "name a directory".to_owned()
        };
        Failure::Mountpoint(format!("cannot use {shown}: {error}; {hint}"))
    };
    match open(path) {
        Ok(place) => Ok((name_of(&place).map_err(cannot)?, true)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if let Ok(target) = std::fs::read_link(path) {
                return Err(Failure::Mountpoint(format!(
                    "{shown} is a link to {}, which is not there; make that directory, or name another one",
                    target.display()
                )));
            }
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(cannot(error));
            };
            Ok((resolve(parent)?.0.join(name), false))
        }
        Err(error) => Err(cannot(error)),
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

fn name_of(place: &File) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// Refuses a `path` that is mounted already, unless the mount is dead, or lives and can be [replaced](check) as asked for.
fn find(path: &Path, replace: bool) -> Result<There, Failure> {
    let shown = path.display();
    if !mounts::is_ours(path) {
        return match std::fs::metadata(path) {
            Err(error) if mounts::is_gone(&error) => Err(Failure::Mountpoint(format!(
                "{shown} is a dead mount of another filesystem; end it with `umount -l {shown}`"
            ))),
            _ => Ok(There::Nothing),
        };
    }
    // Cached attributes outlive the daemon: only a message shows that it is alive.
    let why = match (mounts::ask(path), daemon::of(path)) {
        (Err(error), _) if mounts::is_gone(&error) => return Ok(There::Dead),
        (Ok(document), _) if replace => {
            let document = serde_json::from_slice(&document).unwrap_or_default();
            return replaced::check(path, &document).map(|()| There::Living);
        }
        (Err(error), Some(id)) if error.kind() == ErrorKind::TimedOut && daemon::is_stopped(id) => format!(
            " and does not answer, for its kvfs is stopped; continue it with `kill -CONT {id}`, or end it with `umount -f \
             {shown}`"
        ),
        (Err(error), _) if error.kind() == ErrorKind::TimedOut => {
            format!(" and does not answer; end it with `umount -f {shown}` if its kvfs is stuck")
        }
        (Err(error), _) if error.kind() == ErrorKind::PermissionDenied => {
            " by another user; name another directory".into()
        }
        _ => format!(
            "; see `kvfs status`, or `umount {shown}` first, or replace it by `kvfs --replace ...` as root"
        ),
    };
    Err(Failure::Mountpoint(format!("{shown} is mounted already{why}")))
}

/// Refuses a `place` that cannot be mounted on.
fn check_directory(place: &Path, nonempty: bool) -> Result<(), Failure> {
    let shown = place.display();
    let cannot =
        |error: Error| Failure::Mountpoint(format!("cannot use {shown}: {error}; name another directory"));
    let meta = std::fs::metadata(place).map_err(cannot)?;
    if !meta.is_dir() {
        return Err(Failure::Mountpoint(format!("{shown} is not a directory")));
    }
    let (user, _) = sys::owner();
    // The checks of fusermount3.
    let sticky = meta.mode() & libc::S_ISVTX != 0 && meta.uid() != user;
    if !sys::may_mount() && (sticky || sys::may_write(place).is_err()) {
        let owner = meta.uid();
        return Err(Failure::Mountpoint(format!(
            "{shown} belongs to user {owner}; mount on a directory of your own that you may write"
        )));
    }
    if nonempty {
        return Ok(());
    }
    let entries = std::fs::read_dir(place).map_err(cannot)?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    if names.is_empty() { Ok(()) } else { Err(Failure::Mountpoint(not_empty(place, &names))) }
}

/// Refuses a directory with files, which may have been written while nothing was mounted there.
fn not_empty(place: &Path, names: &[String]) -> String {
    let shown = place.display();
    let (first, rest) = names.split_at(names.len().min(NAMED));
    let what = match (first, rest) {
        ([one], _) => format!("{one} lies"),
        ([one, other], []) => format!("{one} and {other} lie"),
        (first, rest) => format!("{} and {} more lie", first.join(", "), rest.len()),
    };
    format!(
        "{shown} is not empty: {what} there, not in the store (written while nothing was mounted?); move that \
         elsewhere, have it moved by -o leftovers=aside or set by -o leftovers=set, or hide it with -o nonempty"
    )
}

/// The message about a place where no directory can be created.
fn surrounding(place: &Path) -> Option<String> {
    let mount = place.ancestors().skip(1).find(|above| mounts::is_ours(above))?;
    Some(format!("it lies in the kvfs mount at {}; name a directory outside of it", mount.display()))
}

/// Unmounts `path`; `lazily` also while files are open there. As a user by way of fusermount3.
pub(super) fn unmount(path: &Path, lazily: bool) -> bool {
    let lazy = if lazily { &["-z"][..] } else { &[] };
    sys::unmount(path, lazily).is_ok()
        || Command::new("fusermount3")
            .args(["-u", "-q"])
            .args(lazy)
            .arg("--")
            .arg(path)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_start_is_doing_at_a_place_is_not_what_lies_there() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().canonicalize().unwrap();
        let other = Turn::wait(&place).unwrap();
        std::fs::write(place.join("db"), "1").unwrap();
        let looked = std::thread::spawn({
            let place = place.clone();
            move || examine(&place, Way::default(), &Location::Memory).map_err(|failure| failure.to_string())
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::fs::remove_file(place.join("db")).unwrap();
        drop(other);
        assert_eq!(looked.join().unwrap(), Ok(place));
    }
}
