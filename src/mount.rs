//! From settings to a running mount: wiring, background start, signals, unmount.

mod announce;
mod background;
mod beneath;
pub mod daemon;
mod end;
mod explain;
pub mod guard;
mod keeping;
pub mod leftovers;
pub mod mounts;
mod offline;
mod owner;
mod point;
pub mod relay;
mod remount;
mod replaced;
pub mod survey;
mod turn;
pub mod umount;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Runtime;

use self::announce::Announcement;
use self::background::Role;
use self::end::Mounted;
use self::leftovers::Leftovers;
use self::offline::KeptStore;
use self::point::{Taken, Way};
use self::turn::Turn;
use crate::cache::{self, Cache};
use crate::failure::Failure;
use crate::fs::{self, Fs};
use crate::fuse::{self, Messages};
use crate::logging::{self, LIFE};
use crate::signals::{Signals, has_terminal};
use crate::store::{self, Counters, Key, Location, Store};
use crate::threads::{self, Spare};

/// How long programs that have files open may take after SIGTERM, before the daemon ends without them.
const GRACE: Duration = Duration::from_secs(3);
/// Threads and processes that are started before the mount: the hand, the reserve for fusermount3, the store's watcher.
const STARTED_FIRST: usize = 3;
/// Threads of the runtime.
const WORKERS: usize = 2;

/// Everything a mount needs to know.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "flags are bools")]
pub struct Settings {
    /// The store.
    pub location: Location,
    /// The mount point.
    pub mountpoint: PathBuf,
    /// Stay in the foreground.
    pub foreground: bool,
    /// Print nothing on success.
    pub quiet: bool,
    /// Mount on a directory that is not empty.
    pub nonempty: bool,
    /// What becomes of what lies there, if it is not to be hidden.
    pub leftovers: Option<Leftovers>,
    /// Take the place of a mount that lives.
    pub replace: bool,
    /// Make an existing mount read-only, or writable again.
    pub remount: bool,
    /// Unmount if this process is killed.
    pub auto_unmount: bool,
    /// Have inotify report changes made elsewhere.
    pub notify: bool,
    /// Deadline of a system call, and of a store call that none waits for.
    pub timeout: Duration,
    /// The directory of what is remembered, for a start while the store is down.
    pub offline_cache: Option<PathBuf>,
    /// The cache.
    pub cache: cache::Settings,
    /// The filesystem.
    pub fs: fs::Settings,
    /// The mount table.
    pub fuse: fuse::Settings,
    /// The directory of rejected texts, and of the log of a mount in the background.
    pub state: PathBuf,
    /// Alternatives, if that cannot be written: the first one that can be is used.
    pub state_else: Vec<PathBuf>,
    /// The lowest level that is logged.
    pub log_level: &'static str,
}

/// Whether this process is the daemon, which another one has started.
pub fn is_background() -> bool {
    background::role() == Role::Child
}

/// The subject of log lines: mount point and store.
fn about(settings: &Settings) -> String {
    let mountpoint =
        std::path::absolute(&settings.mountpoint).unwrap_or_else(|_| settings.mountpoint.clone());
    format!("{} ({})", mountpoint.display(), settings.location)
}

/// Options are no secrets: everybody sees the arguments of a process.
fn tell_of_start() {
    let (version, id) = (env!("CARGO_PKG_VERSION"), std::process::id());
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    tracing::info!(target: LIFE, "mounted by kvfs {version}, process {id}: kvfs {}", arguments.join(" "));
}

/// Mounts, in the background unless asked otherwise. Returns when the mount answers (background) or ends.
pub fn start(settings: &Settings) -> Result<(), Failure> {
    if settings.remount {
        return remount::change(settings);
    }
    let announcement = Announcement::prepare(settings);
    let announce = || announcement.iter().for_each(Announcement::make);
    if settings.foreground {
        logging::to_stderr(settings.log_level, &about(settings));
        return run(settings, |_| {
            announce();
            Ok(())
        });
    }
    match background::role() {
        Role::Parent => background::spawn().inspect(|()| announce()),
        Role::Child => {
            logging::to_stderr(settings.log_level, &about(settings));
            run(settings, |settings| background::ready(&settings.state.join(keeping::LOG)))
        }
    }
}

/// Mounts and serves until the mount ends.
fn run(settings: &Settings, ready: impl FnOnce(&Settings) -> Result<(), Failure>) -> Result<(), Failure> {
    let runtime = threads::runtime("kvfs-worker", WORKERS, STARTED_FIRST + started_last(settings))?;
    let ended = mount(&runtime, settings, ready);
    // A call that the store never answers blocks its thread for ever.
    runtime.shutdown_timeout(GRACE);
    ended
}

fn mount(
    runtime: &Runtime,
    settings: &Settings,
    ready: impl FnOnce(&Settings) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let _entered = runtime.enter();
    owner::check(settings.fs.uid, settings.fs.gid)?;
    let mountpoint = point::examine(&settings.mountpoint, Way::of(settings), &settings.location)?;
    let (store, counters) = store::open(&settings.location, settings.timeout).map_err(Failure::Store)?;
    let offline = KeptStore::open(settings, store.name())?;
    let asked = runtime.block_on(probe(&store));
    let (settings, notes) = &within_rights(settings, store.read_only());
    let cache = Arc::new(Cache::new(store.clone(), settings.cache));
    let kept = offline.start_on(&cache, asked)?;
    let fs = Fs::new(cache.clone(), settings.fs.clone());
    // Before the first lookup, so that no change is missed in between.
    let feed = cache.follow();
    let failed = |error: store::Error| Failure::Store(error.describe(store.name()));
    runtime.block_on(fs.load_directories()).map_err(failed)?;
    let signals = Signals::listen()?;
    // The terminal may be gone as soon as the mount is there.
    let terminal = settings.foreground && has_terminal();
    let mounted = Mounted::prepare(fs.clone(), mountpoint.clone())?;
    let spare = Spare::hold(started_last(settings))?;
    let turn = Turn::wait(&mountpoint)?;
    let taken = point::take(&mountpoint, Way::of(settings), &settings.state)?;
    runtime.block_on(leftovers::clear(settings, &taken, &mountpoint, &*store))?;
    let messages = Arc::new(Messages::default());
    let status = status(&fs, &messages, &counters, &settings.fs.rejected, notes, &offline);
    let make_room = || spare.give_up();
    let place = taken.beside().unwrap_or(&mountpoint).to_owned();
    let made = fuse::mount(&fs, &place, &settings.fuse, runtime.handle(), messages, status, make_room);
    let (mut ended, device) = made.map_err(|error| explain::refusal(&mountpoint, &error))?;
    // The first answer of the mount.
    let mut root = runtime.block_on(mounted.answer(&place, &mut ended))?;
    if place != mountpoint {
        match taken {
            Taken::Free => {}
            Taken::Dead(beside) => beside.take_over(&mountpoint)?,
            Taken::Living(beside, old) => beside.replace(old, settings.timeout, &fs)?,
        }
        root = runtime.block_on(mounted.answer(&mountpoint, &mut ended))?;
    }
    drop(turn);
    fs.is_device(root.device);
    mounted.ends(runtime.spawn(fs.clone().follow(feed)).abort_handle());
    runtime.spawn(fs.clone().tend());
    runtime.spawn(fs.clone().look_at_directories());
    runtime.spawn(offline.clone().keep(cache.clone()));
    runtime.spawn(mounted.clone().obey(signals, runtime.handle().clone(), terminal));
    notes.lines().chain(kept.as_deref()).for_each(logging::report);
    ready(settings).inspect_err(|_| _ = mounted.unmount())?;
    tell_of_start();
    mounted.start_guard(root, device, settings.auto_unmount);
    if settings.notify {
        relay::start(fs.clone(), mountpoint, root.device);
        runtime.spawn(fs.clone().keep_looking());
    }
    let ended = mounted.wait(runtime, ended, settings.fs.rejected.clone());
    offline.write(&cache);
    ended
}

/// Threads and processes that are started after the mount: fuser's threads and the guard; the relay, and the thread that
/// feeds it.
const fn started_last(settings: &Settings) -> usize {
    fuse::THREADS + 1 + if settings.notify { 2 } else { 0 }
}

/// Facts that the user who mounts did not ask for and has to know.
struct Notes {
    /// The store can only be read, and that was not asked for.
    read_only: Option<String>,
    /// Rejected texts are kept elsewhere, or nowhere.
    rejected: Option<String>,
}

impl Notes {
    fn lines(&self) -> impl Iterator<Item = &str> {
        [&self.read_only, &self.rejected].into_iter().flatten().map(String::as_str)
    }
}

/// The settings, changed for a store that can only be read and for a state directory that can be written.
fn within_rights(settings: &Settings, read_only: Option<String>) -> (Settings, Notes) {
    let mut settings = settings.clone();
    let read_only = read_only.filter(|_| !settings.fs.read_only);
    if read_only.is_some() {
        settings.fs.read_only = true;
        // The kernel would not let the relay in.
        settings.fuse.read_only = !settings.notify;
    }
    let (state, rejected) = keeping::choose(&settings.state, &settings.state_else);
    settings.fs.rejected = state.join(keeping::REJECTED);
    settings.state = state;
    let read_only = read_only.map(|why| format!("{why}: mounted read-only"));
    (settings, Notes { read_only, rejected })
}

/// Whether the store answers, before anything is mounted.
async fn probe(store: &Arc<dyn Store>) -> store::Result<()> {
    match store.get_key_value(&Key::from("kvfs")).await {
        Ok(_) | Err(store::Error::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The document that `kvfs status` reads.
fn status(
    fs: &Arc<Fs>,
    messages: &Arc<Messages>,
    counters: &Arc<Counters>,
    rejected: &Path,
    notes: &Notes,
    offline: &Arc<KeptStore>,
) -> fuse::Status {
    // Weak, because `Fs` owns this closure.
    let (fs, messages, counters) = (Arc::downgrade(fs), messages.clone(), counters.clone());
    let (rejected, note) = (rejected.to_string_lossy().into_owned(), notes.rejected.clone());
    let (started, offline) = (std::time::Instant::now(), offline.clone());
    Box::new(move || {
        let Some(fs) = fs.upgrade() else { return String::new() };
        let (last_error, (names, attributes)) = (fs.last_error(), fs.unstored());
        json!({
            "store": fs.cache().name(),
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": started.elapsed().as_secs(),
            "down": fs.cache().down().map(|down| json!({
                "since_s": down.since.elapsed().as_secs(),
                "why": down.why.to_string(),
                "answered_s": down.answered.map(|at| at.elapsed().as_secs()),
            })),
            "busy": fs.cache().busy().map(|busy| json!({
                "since_s": busy.since.elapsed().as_secs(),
                "tried_s": busy.tried.elapsed().as_secs(),
                "why": busy.why.to_string(),
            })),
            "answered_s": fs.cache().answered().map(|at| at.elapsed().as_secs()),
            "kept_s": fs.cache().down().and_then(|down| offline.age_at(&down)).map(|age| age.as_secs()),
            "not_kept": offline.failure(),
            "untold_s": fs.cache().paused_since().map(|since| since.elapsed().as_secs()),
            "freshness": if fs.cache().is_pushed() { "pushed" } else { "bounded" },
            "keys": fs.cache().known_keys(),
            "messages": messages.snapshot(),
            "calls": counters.snapshot(),
            "in_memory": json!({"names": names, "attributes": attributes}),
            "rejected": fs.rejected(),
            "read_only": fs.is_read_only(),
            "replaced": fs.is_replaced().then(|| json!({"open_files": fs.open_files()})),
            "rejected_in": rejected,
            "rejected_note": note,
            "lost": fs.lost().map(|lost| json!({"count": lost.count, "why": lost.why})),
            "last_error": last_error.map(|last| last.to_string()),
        })
        .to_string()
    })
}
