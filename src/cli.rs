//! Translates flags into plain settings. The only module that names `clap`.

mod copy;
mod environment;
mod mount;
mod options;
mod places;
mod refusal;
mod serve;
mod status;
mod units;
mod why;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::failure::Failure;
use crate::logging;
use crate::mount::{daemon, guard, relay, umount};
use crate::sys;

/// Mount a key-value store as a directory in which each key is a JSON file.
#[derive(Parser)]
#[command(name = "kvfs", version, args_conflicts_with_subcommands = true, args_override_self = true)]
#[command(after_help = AFTER_HELP)]
#[command(
    override_usage = "kvfs [OPTIONS] [STORE] MOUNTPOINT\n       kvfs COMMAND ...; kvfs help COMMAND tells more of it"
)]
#[command(disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    mount: mount::Mount,
}

const AFTER_HELP: &str = "\
Stores:
  (none)               $XDG_DATA_HOME/kvfs/kv.db (~/.local/share/kvfs/kv.db)
  sqlite:PATH          an embedded store elsewhere
  memory:              gone at unmount
  etcd:HOSTS[/PREFIX]  an etcd cluster, HOST:PORT,... (etcds: with TLS); login as etcdctl has it
  prefect[:URL]        the Variables of Prefect 3; settings as Prefect finds them
  prefect-cloud[:URL]  a server of the Prefect 1.x KV API; likewise

Each --some-flag also as -o some_flag (fstab), or as KVFS_SOME_FLAG in the environment.
Exit codes: 0 done, 1 failed, 2 usage, 3 mount point, 4 store, 5 no FUSE, 6 text was rejected.";

const WATCH_HELP: &str = "\
PATH may be a mount, a directory in it, or a file, of which alone is told then; also a directory or file that is bound \
elsewhere.

The event of a change is `set` (key, file, revision, time) or `deleted` (the same), or `missed`: changes may have been \
missed, look at everything.

CMD finds it in KVFS_EVENT, KVFS_KEY (not set if the key has a NUL in it), KVFS_FILE and KVFS_REVISION. While it runs, \
changes of the same key are coalesced to the newest. Its exit status, if not 0, is told on standard error.

Where the mount ends and another takes its place within 10 s (a restart, or a start after a kill), it tells `missed` and goes \
on with that. Ends with exit code 0 at SIGINT, SIGTERM, SIGHUP, and when the mount is unmounted; with 3 if its daemon is \
killed.";

const UMOUNT_HELP: &str = "\
Needs no root, as fusermount3 -u, and returns when the daemon of the mount has ended: with exit code 6 if some text \
could not be published and was rejected.";

#[derive(Subcommand)]
enum Command {
    /// Show what is mounted, from where, how it is, counters and the last error
    Status(status::Status),
    /// Tell what was refused of late, why, where in the text, and where the text is kept
    #[command(after_help = why::HELP)]
    Why(why::Why),
    /// End a mount, and tell whether all that was written there could be published
    #[command(after_help = UMOUNT_HELP)]
    Umount {
        /// Where kvfs has mounted
        mountpoint: PathBuf,
    },
    /// Tell of each change of a key, whoever makes it, as a line of JSON
    #[command(after_help = WATCH_HELP)]
    Watch {
        /// Run this with `sh -c` for each change, one at a time, instead of printing it
        #[arg(long, value_name = "CMD")]
        exec: Option<String>,
        /// A mount, or a file or directory in it
        path: PathBuf,
    },
    /// Copy all keys of a store into another one
    Copy(copy::Copy),
    /// Serve the Prefect 1.x KV API over a store
    Serve(serve::Serve),
    /// Has the kernel tell of changes made elsewhere
    #[command(name = relay::COMMAND, hide = true)]
    Herald {
        /// Where kvfs has mounted
        mountpoint: PathBuf,
        /// The mount's device
        device: u64,
    },
    /// Ends what a killed daemon leaves of its mount
    #[command(name = daemon::GUARD, hide = true)]
    Guard {
        /// The process to wait for
        daemon: u32,
        /// Where it has mounted
        mountpoint: PathBuf,
        /// The mount's id
        mount: u64,
        /// Find the mount by its id
        #[arg(long)]
        by_id: bool,
        /// Answer in the place of the daemon
        #[arg(long)]
        by_refusals: bool,
        /// Unmount it as well
        #[arg(long)]
        unmount: bool,
    },
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
    sys::keep_heap_small();
    let cli = match parse() {
        Ok(cli) => cli,
        Err(Parsed::Shown) => return ExitCode::SUCCESS,
        Err(Parsed::Refused(why)) => return say(&Failure::Usage(why)),
    };
    if !crate::mount::is_background()
        && let Some(warning) = environment::unknown(&Cli::command())
    {
        logging::report(&warning);
    }
    match carry_out(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => say(&failure),
    }
}

/// Why a command line is not carried out.
enum Parsed {
    /// It asked for help or the version.
    Shown,
    Refused(String),
}

fn parse() -> Result<Cli, Parsed> {
    let command = Cli::command();
    let arguments = options::expand::<Cli>(std::env::args_os()).map_err(Parsed::Refused)?;
    let arguments = words::arrange(&command, arguments).map_err(Parsed::Refused)?;
    let asked_for = arguments.get(1).is_some_and(|name| command.find_subcommand(name).is_some());
    let mut command = environment::adapt(command, asked_for);
    let matches = command.try_get_matches_from_mut(&arguments);
    let parsed = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| {
        if error.use_stderr() {
            return Parsed::Refused(refusal::explain(&error, &command, &arguments));
        }
        // Fails if the reader has closed the output.
        _ = error.print();
        Parsed::Shown
    })
}

fn carry_out(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Some(Command::Serve(serve)) => serve.settings().and_then(|settings| crate::serve::start(&settings)),
        Some(Command::Copy(copy)) => copy.settings().and_then(|settings| crate::copy::start(&settings)),
        Some(Command::Status(status)) => status.show(),
        Some(Command::Why(why)) => why.show(),
        Some(Command::Watch { exec, path }) => crate::watch::start(&path, exec),
        Some(Command::Umount { mountpoint }) => umount::end(&mountpoint),
        Some(Command::Herald { mountpoint, device }) => relay::run(&mountpoint, device)
            .map_err(|error| Failure::Other(format!("cannot tell watchers of changes: {error}"))),
        Some(Command::Guard { daemon, mountpoint, mount, by_id, by_refusals, unmount }) => {
            let watched = guard::Watched { daemon, mountpoint, mount, by_id, by_refusals, unmount };
            guard::watch(&watched).map_err(|error| {
                let shown = watched.mountpoint.display();
                Failure::Other(format!(
                    "cannot end the mount of a killed kvfs ({error}); try `umount -f {shown}`"
                ))
            })
        }
        None => cli.mount.settings().and_then(|settings| crate::mount::start(&settings)),
    }
}

fn say(failure: &Failure) -> ExitCode {
    if !matches!(failure, Failure::AlreadyReported(_)) {
        logging::report(&failure.to_string());
    }
    ExitCode::from(failure.exit_code())
}

/// A directory of the XDG base directory specification.
fn directory(variable: &str, below_home: &str) -> PathBuf {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set.unwrap_or_else(|| std::env::home_dir().unwrap_or_else(|| PathBuf::from("/")).join(below_home))
}
