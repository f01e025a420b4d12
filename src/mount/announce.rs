//! The line that a successful mount prints: what is mounted where, and how to end it.

use std::fmt;
use std::path::PathBuf;

use super::Settings;
use crate::logging;
use crate::store::Location;
use crate::sys;

/// The line, for when the mount answers.
pub(super) struct Announcement {
    what: String,
    is_new: bool,
    mountpoint: PathBuf,
}

impl Announcement {
    /// To be called before the store is opened, to know whether it is new; `None` with `--quiet`.
    pub(super) fn prepare(settings: &Settings) -> Option<Self> {
        let mountpoint = std::path::absolute(&settings.mountpoint).ok().filter(|_| !settings.quiet)?;
        let (what, is_new) = match &settings.location {
            Location::Sqlite(path) => (path.display().to_string(), !path.exists()),
            other => (other.to_string(), false),
        };
        Some(Self { what, is_new, mountpoint })
    }

    pub(super) fn make(&self) {
        logging::report(&self.to_string());
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, mountpoint) = (&self.what, self.mountpoint.display());
        let new = if self.is_new { " (new)" } else { "" };
        let umount = if sys::owner().0 == 0 { "umount" } else { "fusermount3 -u" };
        let end = format!("end it with: {umount} {mountpoint}");
        write!(f, "{what}{new} is mounted on {mountpoint}; {end}; refusals are explained by: kvfs why")
    }
}
