//! The flags of a mount.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Level, directory, places, units};
use crate::failure::Failure;
use crate::fs::document::Validate;
use crate::fs::names::Names;
use crate::fs::scratch::Patterns;
use crate::mount::Settings;
use crate::store::Location;
use crate::{cache, fs, fuse, sys};

#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags are bools")]
pub(super) struct Mount {
    /// The store, if not the embedded one, and the directory to mount on
    #[arg(value_name = "[STORE] MOUNTPOINT", num_args = 1..=2)]
    places: Vec<OsString>,
    /// Stay in the foreground and log to standard error
    #[arg(short, long, env = "KVFS_FOREGROUND")]
    foreground: bool,
    /// Say nothing of success
    #[arg(short, long, env = "KVFS_QUIET")]
    quiet: bool,
    /// The store, as an alternative to the argument
    #[arg(long, env = "KVFS_STORE", hide = true)]
    store: Option<String>,
    /// How old an answer may be where the store does not push changes
    #[arg(long, env = "KVFS_MAX_AGE", value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    max_age: Duration,
    /// How old the last known value may be while the store is down; 0 turns it off
    #[arg(long, env = "KVFS_MAX_STALE", value_name = "TIME", default_value = "1h", value_parser = units::duration)]
    max_stale: Duration,
    /// How long a call may wait for the store
    #[arg(long, env = "KVFS_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = units::deadline)]
    timeout: Duration,
    /// Bytes of values to remember
    #[arg(long, env = "KVFS_CACHE_SIZE", value_name = "BYTES", default_value = "64M", value_parser = units::bytes)]
    cache_size: usize,
    /// Keys to remember
    #[arg(long, env = "KVFS_CACHE_ENTRIES", value_name = "N", default_value = "100000", value_parser = units::count)]
    cache_entries: NonZeroUsize,
    /// What counts as a value
    #[arg(long, env = "KVFS_VALIDATE", value_name = "WHAT", default_value = "json", ignore_case = true)]
    validate: Valid,
    /// What file names end in, as in `.json`: the file `app.json` is the key `app`
    #[arg(long, env = "KVFS_EXTENSION", value_name = "EXT")]
    extension: Option<String>,
    /// What is between the parts of a key: with `--separator /` the key `app/db` is the file `db` in the directory `app`
    #[arg(long, env = "KVFS_SEPARATOR", value_name = "SEP", conflicts_with = "flat")]
    separator: Option<String>,
    /// Show all keys in one directory, whatever the store
    #[arg(long, env = "KVFS_FLAT")]
    flat: bool,
    /// More names of scratch files, as globs; `none` turns scratch files off
    #[arg(long, env = "KVFS_SCRATCH", value_name = "GLOB", value_delimiter = ':')]
    scratch: Vec<String>,
    /// Have inotify tell of changes made elsewhere, as of those made through this mount
    #[arg(long, env = "KVFS_NOTIFY")]
    notify: bool,
    /// Refuse all changes
    #[arg(long, short = 'r', env = "KVFS_READ_ONLY")]
    read_only: bool,
    /// Let other users in, within the permission bits
    #[arg(long, env = "KVFS_ALLOW_OTHER")]
    allow_other: bool,
    /// Let root in, within the permission bits
    #[arg(long, env = "KVFS_ALLOW_ROOT")]
    allow_root: bool,
    /// Unmount when the daemon is killed; else every access fails then, until the next start on the same place
    #[arg(long, env = "KVFS_AUTO_UNMOUNT")]
    auto_unmount: bool,
    /// What the mount table calls the store
    #[arg(long, env = "KVFS_FSNAME", value_name = "NAME")]
    fsname: Option<String>,
    /// Have a mount that is there refuse changes (with --read-only), or let them through again
    #[arg(long, hide = true)]
    remount: bool,
    /// Owner of the files, by number or name
    #[arg(long, env = "KVFS_UID", value_name = "USER", value_parser = units::user)]
    uid: Option<u32>,
    /// Group of the files, by number or name
    #[arg(long, env = "KVFS_GID", value_name = "GROUP", value_parser = units::group)]
    gid: Option<u32>,
    /// Permission bits taken away from 0666 (files) and 0777 (the directory)
    #[arg(long, env = "KVFS_UMASK", value_name = "OCTAL", value_parser = units::octal)]
    umask: Option<u32>,
    /// Mount on a directory that is not empty
    #[arg(long, env = "KVFS_NONEMPTY")]
    nonempty: bool,
    /// What to log: error, warn, info, debug or trace
    #[arg(long, env = "KVFS_LOG_LEVEL", value_name = "LEVEL", default_value = "warn", ignore_case = true)]
    log_level: Level,
}

#[derive(Clone, Copy, ValueEnum)]
enum Valid {
    /// One JSON text
    Json,
    /// Any bytes
    None,
}

impl Valid {
    fn on(self, location: &Location) -> Result<Validate, Failure> {
        match self {
            Self::Json => Ok(Validate::Json),
            Self::None if location.keeps_bytes() => Ok(Validate::None),
            Self::None => Err(Failure::Usage(format!(
                "--validate none: {location} keeps JSON only; leave the option away, or mount a store that keeps bytes \
                 (sqlite:PATH)"
            ))),
        }
    }
}

impl Mount {
    pub(super) fn settings(self) -> Result<Settings, Failure> {
        let (location, mountpoint) = match self.places.last().filter(|_| self.remount) {
            // The other word is what the mount table calls the store.
            Some(place) => (Location::Memory, place.into()),
            None => places::of_mount(&self.places, self.store.as_deref())?,
        };
        let state = directory("XDG_STATE_HOME", ".local/state").join("kvfs");
        let (uid, gid) = sys::owner();
        let umask = self.umask.unwrap_or_else(sys::umask);
        let scratch = Patterns::new(&self.scratch).map_err(Failure::Usage)?;
        let validate = self.validate.on(&location)?;
        let names = self.names(&location).map_err(Failure::Usage)?;
        Ok(Settings {
            fuse: fuse::Settings {
                source: self.fsname.clone().unwrap_or_else(|| location.to_string()),
                // The kernel would not let the herald in.
                read_only: self.read_only && !self.notify,
                allow_other: self.allow_other,
                allow_root: self.allow_root,
            },
            location,
            mountpoint,
            foreground: self.foreground,
            quiet: self.quiet,
            nonempty: self.nonempty,
            remount: self.remount,
            auto_unmount: self.auto_unmount,
            notify: self.notify,
            timeout: self.timeout,
            cache: cache::Settings {
                entries: self.cache_entries,
                bytes: self.cache_size,
                max_age: self.max_age,
                max_stale: self.max_stale,
            },
            fs: fs::Settings {
                read_only: self.read_only,
                uid: self.uid.unwrap_or(uid),
                gid: self.gid.unwrap_or(gid),
                umask,
                validate,
                names,
                scratch,
                aside: state.join("rejected"),
            },
            log_file: state.join("kvfs.log"),
            log_level: self.log_level.name(),
        })
    }

    /// How keys are called.
    fn names(&self, location: &Location) -> Result<Names, String> {
        let extension = self.extension.as_deref().filter(|text| !text.is_empty());
        let names = extension.map_or_else(|| Ok(Names::default()), Names::with_extension)?;
        match self.separator.as_deref().or(location.separator()).filter(|_| !self.flat) {
            Some(separator) => names.in_directories(separator),
            None => Ok(names),
        }
    }
}
