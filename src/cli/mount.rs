//! The flags of a mount.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Level, places, units};
use crate::failure::Failure;
use crate::fs::document::Validate;
use crate::fs::names::Names;
use crate::fs::scratch::Patterns;
use crate::mount::Settings;
use crate::mount::leftovers::Leftovers;
use crate::store::Location;
use crate::{cache, fs, fuse, sys};

/// Groups of options in the help.
const SHOWN: &str = "What is shown";
const USERS: &str = "Who may use it";
const STORE: &str = "The store and what is remembered of it";
const PLACE: &str = "The mount";

#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags are bools")]
pub(super) struct Mount {
    /// The store, if not the embedded one, and the directory to mount on
    #[arg(value_name = "[STORE] MOUNTPOINT", num_args = 1..=2, hide = true)]
    places: Vec<OsString>,
    /// The store, as an alternative to the argument
    #[arg(long, env = "KVFS_STORE", hide = true)]
    store: Option<String>,
    /// Refuse all changes
    #[arg(long, short = 'r', env = "KVFS_READ_ONLY")]
    read_only: bool,
    /// Stay in the foreground and log to standard error
    #[arg(short, long, env = "KVFS_FOREGROUND")]
    foreground: bool,
    /// Say nothing of success
    #[arg(short, long, env = "KVFS_QUIET")]
    quiet: bool,
    /// What makes directories of keys: with `/` the key `app/db` is `db` in `app`
    #[arg(long, env = "KVFS_SEPARATOR", value_name = "SEP", conflicts_with = "flat", help_heading = SHOWN)]
    separator: Option<String>,
    /// All keys in one directory, whatever the store
    #[arg(long, env = "KVFS_FLAT", help_heading = SHOWN)]
    flat: bool,
    /// What file names end in: with `.json` the key `app` is `app.json`
    #[arg(long, env = "KVFS_EXTENSION", value_name = "EXT", help_heading = SHOWN)]
    extension: Option<String>,
    /// What a value is: json, or none for any bytes
    #[arg(
        long, env = "KVFS_VALIDATE", value_name = "WHAT", default_value = "json", ignore_case = true,
        hide_possible_values = true, help_heading = SHOWN
    )]
    validate: Valid,
    /// More names of scratch files (repeat it); `none` for none at all
    #[arg(long, env = "KVFS_SCRATCH", value_name = "GLOB", value_delimiter = ':', help_heading = SHOWN)]
    scratch: Vec<String>,
    /// Have inotify tell of changes made elsewhere, too
    #[arg(long, env = "KVFS_NOTIFY", help_heading = SHOWN)]
    notify: bool,
    /// Let other users in, within the permission bits
    #[arg(long, env = "KVFS_ALLOW_OTHER", help_heading = USERS)]
    allow_other: bool,
    /// Let root in, within the permission bits
    #[arg(long, env = "KVFS_ALLOW_ROOT", help_heading = USERS)]
    allow_root: bool,
    /// Owner of the files, new ones too, by number or name
    #[arg(long, env = "KVFS_UID", value_name = "USER", value_parser = units::user, help_heading = USERS)]
    uid: Option<u32>,
    /// Group of the files, new ones too, by number or name
    #[arg(long, env = "KVFS_GID", value_name = "GROUP", value_parser = units::group, help_heading = USERS)]
    gid: Option<u32>,
    /// Bits taken away from 0666 (files) and 0777 (directories), of new ones too
    #[arg(long, env = "KVFS_UMASK", value_name = "OCTAL", value_parser = units::octal, help_heading = USERS)]
    umask: Option<u32>,
    /// How old an answer may be if changes are not told
    #[arg(
        long, env = "KVFS_MAX_AGE", value_name = "TIME", default_value = "1s", value_parser = units::duration,
        help_heading = STORE
    )]
    max_age: Duration,
    /// How old it may be while the store is down
    #[arg(
        long, env = "KVFS_MAX_STALE", value_name = "TIME", default_value = "1h", value_parser = units::duration,
        help_heading = STORE
    )]
    max_stale: Duration,
    /// Directory of what is remembered, to start on while the store is down
    #[arg(long, env = "KVFS_OFFLINE_CACHE", value_name = "DIR", help_heading = STORE)]
    offline_cache: Option<PathBuf>,
    /// Deadline of a system call
    #[arg(
        long, env = "KVFS_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = units::deadline,
        help_heading = STORE
    )]
    timeout: Duration,
    /// Bytes of keys and values to remember
    #[arg(
        long, env = "KVFS_CACHE_SIZE", value_name = "BYTES", default_value = "64M", value_parser = units::bytes,
        help_heading = STORE
    )]
    cache_size: usize,
    /// Keys to remember
    #[arg(
        long, env = "KVFS_CACHE_ENTRIES", value_name = "N", default_value = "100000", value_parser = units::count,
        help_heading = STORE
    )]
    cache_entries: NonZeroUsize,
    /// Mount on a directory that is not empty
    #[arg(long, env = "KVFS_NONEMPTY", help_heading = PLACE)]
    nonempty: bool,
    /// Move what lies in the directory aside, or set what is a value of it, too
    #[arg(long, env = "KVFS_LEFTOVERS", value_name = "HOW", value_parser = units::leftovers, hide = true)]
    leftovers: Option<Leftovers>,
    /// Take the place of a mount that lives there (root)
    #[arg(long, env = "KVFS_REPLACE", help_heading = PLACE)]
    replace: bool,
    /// Unmount if the daemon is killed; else the next start takes over
    #[arg(long, env = "KVFS_AUTO_UNMOUNT", help_heading = PLACE)]
    auto_unmount: bool,
    /// What the mount table calls the store
    #[arg(long, env = "KVFS_FSNAME", value_name = "NAME", help_heading = PLACE)]
    fsname: Option<String>,
    /// What to log: error, warn, info, debug or trace
    #[arg(
        long, env = "KVFS_LOG_LEVEL", value_name = "LEVEL", default_value = "warn", ignore_case = true,
        hide_possible_values = true, help_heading = PLACE
    )]
    log_level: Level,
    /// Have a mount that is there refuse changes (with --read-only), or let them through again
    #[arg(long, hide = true)]
    remount: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Valid {
    Json,
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

/// Refuses an offline cache of a store that needs no network.
fn check_offline(wanted: bool, location: &Location) -> Result<(), Failure> {
    match location {
        Location::Memory | Location::Sqlite(_) if wanted => Err(Failure::Usage(format!(
            "--offline-cache: {location} is on this machine and needs no offline cache; leave the option away"
        ))),
        _ => Ok(()),
    }
}

impl Mount {
    pub(super) fn settings(self) -> Result<Settings, Failure> {
        let (location, mountpoint) = match self.places.last().filter(|_| self.remount) {
            // The other word is what the mount table calls the store.
            Some(place) => (Location::Memory, place.into()),
            None => places::of_mount(&self.places, self.store.as_deref())?,
        };
        let (state, state_else) = places::of_state();
        let (uid, gid) = sys::owner();
        let umask = self.umask.unwrap_or_else(sys::umask);
        let scratch = Patterns::new(&self.scratch).map_err(Failure::Usage)?;
        let validate = self.validate.on(&location)?;
        let names = self.names(&location).map_err(Failure::Usage)?;
        check_offline(self.offline_cache.is_some() && !self.remount, &location)?;
        Ok(Settings {
            fuse: fuse::Settings {
                source: self.fsname.clone().unwrap_or_else(|| location.to_string()),
                // The kernel would not let the relay in.
                read_only: self.read_only && !self.notify,
                allow_other: self.allow_other,
                allow_root: self.allow_root,
            },
            location,
            mountpoint,
            foreground: self.foreground,
            quiet: self.quiet,
            nonempty: self.nonempty,
            leftovers: self.leftovers,
            replace: self.replace,
            remount: self.remount,
            auto_unmount: self.auto_unmount,
            notify: self.notify,
            timeout: self.timeout,
            offline_cache: self.offline_cache()?,
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
                of_new: fs::OfNew { uid: self.uid, gid: self.gid, umask: self.umask.unwrap_or(0) },
                validate,
                names,
                scratch,
                rejected: state.join("rejected"),
                clock: Arc::new(fs::SystemClock),
                timeout: self.timeout,
            },
            state,
            state_else,
            log_level: self.log_level.name(),
        })
    }

    /// The daemon's working directory is another one.
    fn offline_cache(&self) -> Result<Option<PathBuf>, Failure> {
        let absolute = self.offline_cache.as_deref().map(std::path::absolute).transpose();
        absolute.map_err(|error| Failure::Usage(format!("--offline-cache: {error}")))
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
