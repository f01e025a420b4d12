//! Flags to plain settings. The only room that names `clap`; nothing behind it knows of flags.

mod copy;
mod options;
mod serve;
mod status;
mod units;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::failure::Failure;
use crate::fs::document::Validate;
use crate::fs::names::Names;
use crate::fs::scratch::Patterns;
use crate::mount;
use crate::store::Location;
use crate::{cache, fs, fuse, sys};

/// Mount a key-value store as a directory in which each key is a JSON file.
#[derive(Parser)]
#[command(name = "kvfs", version, args_conflicts_with_subcommands = true, after_help = AFTER_HELP)]
#[command(
    override_usage = "kvfs [OPTIONS] [STORE] MOUNTPOINT\n       kvfs serve [OPTIONS] [STORE]\n       kvfs status [--json] [MOUNTPOINT]\n       kvfs watch [--exec CMD] MOUNTPOINT\n       kvfs copy [OPTIONS] FROM TO"
)]
#[command(disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    mount: Mount,
}

const AFTER_HELP: &str = "\
Stores:
  (none)         the embedded store at $XDG_DATA_HOME/kvfs/kv.db (~/.local/share/kvfs/kv.db)
  sqlite:PATH    an embedded store elsewhere
  memory:        gone at unmount
  etcd:HOST:PORT[,HOST:PORT...][/PREFIX]
                 an etcd cluster, or its keys below a prefix; etcds: with TLS; user, password
                 and certificates as etcdctl reads them from ETCDCTL_*
  prefect[:URL]  the Variables of Prefect 3; settings as Prefect 3 finds them
  prefect-cloud[:URL]
                 a server of the Prefect 1.x KV API; settings as the 1.x client finds them

Every flag --some-flag can also be given as -o some_flag (fstab) or as KVFS_SOME_FLAG in the
environment.
End a mount with `umount MOUNTPOINT` (as a user: `fusermount3 -u MOUNTPOINT`).

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unusable mount point, 4 unusable store,
5 FUSE not available, 6 unmounted, but some text could not be published and was set aside";

const WATCH_HELP: &str = "\
The event of a change is `set` (key, file, revision, time) or `deleted` (the same), or `missed`: changes may
have been missed, look at everything.

CMD finds it in KVFS_EVENT, KVFS_KEY (not set if the key has a NUL in it), KVFS_FILE and KVFS_REVISION. While it
runs, changes of the same key are coalesced to the newest. Its exit status, if not 0, is told on standard error.

Ends with exit code 0 at SIGINT, SIGTERM, SIGHUP, and when the mount ends.";

#[derive(Subcommand)]
enum Command {
    /// Serve the Prefect 1.x KV API over a store
    Serve(serve::Serve),
    /// Copy all keys of a store into another one
    Copy(copy::Copy),
    /// Show what is mounted, from where, counters and the last error
    Status {
        /// Only this mount
        mountpoint: Option<PathBuf>,
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Tell of each change of a key, whoever makes it, as a line of JSON
    #[command(after_help = WATCH_HELP)]
    Watch {
        /// Run this with `sh -c` for each change, one at a time, instead of printing it
        #[arg(long, value_name = "CMD")]
        exec: Option<String>,
        /// Where kvfs has mounted
        mountpoint: PathBuf,
    },
    /// Has the kernel tell of changes made elsewhere
    #[command(name = mount::herald::COMMAND, hide = true)]
    Herald {
        /// Where kvfs has mounted
        mountpoint: PathBuf,
        /// The mount's device
        device: u64,
    },
    /// Ends what a killed daemon leaves of its mount
    #[command(name = mount::guard::COMMAND, hide = true)]
    Guard {
        /// The process to wait for
        daemon: u32,
        /// Where it has mounted
        mountpoint: PathBuf,
    },
}

#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags are bools")]
struct Mount {
    /// The store, if not the embedded one, and the directory to mount on
    #[arg(value_name = "[STORE] MOUNTPOINT", num_args = 1..=2)]
    places: Vec<OsString>,
    /// Stay in the foreground and log to standard error
    #[arg(short, long, env = "KVFS_FOREGROUND")]
    foreground: bool,
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
    #[arg(long, env = "KVFS_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = units::duration)]
    timeout: Duration,
    /// Bytes of values to remember
    #[arg(long, env = "KVFS_CACHE_SIZE", value_name = "BYTES", default_value = "64M", value_parser = units::bytes)]
    cache_size: usize,
    /// Keys to remember
    #[arg(long, env = "KVFS_CACHE_ENTRIES", value_name = "N", default_value = "100000")]
    cache_entries: NonZeroUsize,
    /// What counts as a value
    #[arg(long, env = "KVFS_VALIDATE", value_name = "WHAT", default_value = "json")]
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
    /// Owner of the files
    #[arg(long, env = "KVFS_UID", value_name = "N")]
    uid: Option<u32>,
    /// Group of the files
    #[arg(long, env = "KVFS_GID", value_name = "N")]
    gid: Option<u32>,
    /// Permission bits taken away from 0666 (files) and 0777 (the directory)
    #[arg(long, env = "KVFS_UMASK", value_name = "OCTAL", value_parser = units::octal)]
    umask: Option<u32>,
    /// Mount on a directory that is not empty
    #[arg(long, env = "KVFS_NONEMPTY")]
    nonempty: bool,
    /// What to log: error, warn, info, debug or trace
    #[arg(long, env = "KVFS_LOG_LEVEL", value_name = "LEVEL", default_value = "warn")]
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

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let arguments = match options::expand::<Cli>(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(message) => return say(&Failure::Usage(message)),
    };
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.command {
        Some(Command::Serve(serve)) => serve.settings().and_then(|settings| crate::serve::start(&settings)),
        Some(Command::Copy(copy)) => copy.settings().and_then(|settings| crate::copy::start(&settings)),
        Some(Command::Status { mountpoint, json }) => status::show(mountpoint.as_deref(), json),
        Some(Command::Watch { exec, mountpoint }) => crate::watch::start(&mountpoint, exec),
        Some(Command::Herald { mountpoint, device }) => mount::herald::run(&mountpoint, device)
            .map_err(|error| Failure::Other(format!("cannot tell watchers of changes: {error}"))),
        Some(Command::Guard { daemon, mountpoint }) => {
            mount::guard::watch(daemon, &mountpoint).map_err(|error| {
                let shown = mountpoint.display();
                Failure::Other(format!(
                    "cannot end the mount of a killed kvfs ({error}); try `umount -f {shown}`"
                ))
            })
        }
        None => cli.mount.settings().and_then(|settings| mount::start(&settings)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => say(&failure),
    }
}

fn say(failure: &Failure) -> ExitCode {
    if !matches!(failure, Failure::Said(_)) {
        eprintln!("kvfs: {failure}");
    }
    ExitCode::from(failure.exit_code())
}

impl Mount {
    fn settings(self) -> Result<mount::Settings, Failure> {
        let (store, mountpoint) = self.places()?;
        let store = store.or_else(|| self.store.clone());
        let location = Location::parse(store.as_deref(), &directory("XDG_DATA_HOME", ".local/share"));
        let state = directory("XDG_STATE_HOME", ".local/state").join("kvfs");
        let (uid, gid) = sys::owner();
        let umask = self.umask.unwrap_or_else(sys::umask);
        let scratch = Patterns::new(&self.scratch).map_err(Failure::Usage)?;
        let location = location.map_err(Failure::Usage)?;
        let validate = self.validate.on(&location)?;
        let names = self.names(&location).map_err(Failure::Usage)?;
        Ok(mount::Settings {
            fuse: fuse::Settings {
                source: location.to_string(),
                // The kernel would not let the herald in.
                read_only: self.read_only && !self.notify,
                allow_other: self.allow_other,
            },
            location,
            mountpoint,
            foreground: self.foreground,
            nonempty: self.nonempty,
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

    /// The store argument, if any, and the mount point.
    fn places(&self) -> Result<(Option<String>, PathBuf), Failure> {
        match &self.places[..] {
            [] => Err(Failure::Usage(
                "name the directory to mount on, as in `kvfs /mnt/kv` (see kvfs --help)".into(),
            )),
            [only] if Location::looks_like(&only.to_string_lossy()) => Err(Failure::Usage(format!(
                "{} is a store; name the directory to mount on too, as in `kvfs {} /mnt/kv`",
                only.to_string_lossy(),
                only.to_string_lossy()
            ))),
            [only] => Ok((None, PathBuf::from(only))),
            [store, mountpoint, ..] => {
                let store = store.to_str().ok_or_else(|| Failure::Usage("the store must be UTF-8".into()))?;
                Ok((Some(store.to_owned()), PathBuf::from(mountpoint)))
            }
        }
    }
}

/// A directory of the XDG base directory specification.
fn directory(variable: &str, below_home: &str) -> PathBuf {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set.unwrap_or_else(|| std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")).join(below_home))
}
