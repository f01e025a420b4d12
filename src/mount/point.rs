//! The mount point: made, checked, and freed of a dead mount.

use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::mounts;
use crate::failure::Failure;
use crate::store::Location;
use crate::sys;

/// Makes `path` ready to be mounted on; returns it without links and relative parts.
pub(super) fn prepare(path: &Path, nonempty: bool, location: &Location) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let absolute =
        std::path::absolute(path).map_err(|error| Failure::Mountpoint(format!("{shown}: {error}")))?;
    // Before anything touches it: it may be a mount that does not answer.
    check_mounted(&absolute)?;
    match std::fs::metadata(&absolute) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::create_dir_all(&absolute)
                .map_err(|error| Failure::Mountpoint(format!("cannot create {shown}: {error}")))?;
        }
        // A dead mount that is reached by way of a link, or another filesystem's.
        Err(error) if mounts::is_gone(&error) => take_over(&absolute)?,
        Err(error) => return Err(Failure::Mountpoint(format!("cannot use {shown}: {error}"))),
        Ok(meta) if !meta.is_dir() => return Err(Failure::Mountpoint(format!("{shown} is not a directory"))),
        Ok(_) => {}
    }
    let path = absolute
        .canonicalize()
        .map_err(|error| Failure::Mountpoint(format!("cannot use {shown}: {error}")))?;
    check_mounted(&path)?;
    if let Location::Sqlite(database) = location
        && std::path::absolute(database).is_ok_and(|database| database.starts_with(&path))
    {
        return Err(Failure::Mountpoint(format!("the database {} lies below {shown}", database.display())));
    }
    let mut entries = std::fs::read_dir(&path)
        .map_err(|error| Failure::Mountpoint(format!("cannot read {shown}: {error}")))?;
    if !nonempty && entries.next().is_some() {
        return Err(Failure::Mountpoint(format!(
            "{shown} is not empty; choose an empty directory, or hide what is there with -o nonempty"
        )));
    }
    Ok(path)
}

/// Nothing of ours may be mounted at `path`, except what a killed daemon left: that is detached.
fn check_mounted(path: &Path) -> Result<(), Failure> {
    if !mounts::is_ours(path) {
        return Ok(());
    }
    let shown = path.display();
    // What the kernel remembers outlives the daemon: only an answer shows that it is there.
    match mounts::ask(path) {
        Err(error) if mounts::is_gone(&error) => take_over(path),
        Err(error) if error.kind() == ErrorKind::TimedOut => Err(Failure::Mountpoint(format!(
            "{shown} is mounted already and does not answer; end it with `umount -f {shown}` if its kvfs is stuck"
        ))),
        _ => Err(Failure::Mountpoint(format!(
            "{shown} is mounted already; see `kvfs status`, or `umount {shown}` first"
        ))),
    }
}

/// Detaches a mount of ours whose daemon is gone.
fn take_over(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    if !mounts::is_ours(path) {
        let why = format!("{shown} is a dead mount of another filesystem; end it with `umount -l {shown}`");
        return Err(Failure::Mountpoint(why));
    }
    tracing::info!("taking over the dead mount at {shown}");
    let detached = unmount(path, true);
    if detached && std::fs::metadata(path).is_ok() {
        return Ok(());
    }
    Err(Failure::Mountpoint(format!(
        "{shown} is a dead mount that cannot be detached; end it with `umount -l {shown}`"
    )))
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

/// What a person can do about a mount that failed.
pub(super) fn explain(path: &Path, error: &Error) -> Failure {
    let shown = path.display();
    if !Path::new("/dev/fuse").exists() {
        return Failure::Fuse(format!(
            "cannot mount on {shown}: /dev/fuse is missing (install fuse3; in a container add --device /dev/fuse \
             --cap-add SYS_ADMIN)"
        ));
    }
    if error.kind() == ErrorKind::PermissionDenied {
        return Failure::Fuse(format!(
            "cannot mount on {shown}: {error} (be root, or install fuse3; --allow-other needs user_allow_other in \
             /etc/fuse.conf)"
        ));
    }
    Failure::Fuse(format!("cannot mount on {shown}: {error}"))
}
