//! From settings to a running mount: wiring, background start, signals, unmount.

mod announce;
mod background;
pub mod daemon;
pub mod guard;
pub mod herald;
pub mod mounts;
mod point;
pub mod survey;
pub mod umount;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use self::announce::Announcement;
use self::background::Role;
use self::guard::Guard;
use crate::cache::{self, Cache};
use crate::failure::Failure;
use crate::fs::{self, Fs};
use crate::fuse::{self, Messages};
use crate::logging;
use crate::signals::Signals;
use crate::store::{self, Counters, Key, Location, Store};

/// How long programs that have files open may take after SIGTERM, before the daemon ends without them.
const GRACE: Duration = Duration::from_secs(3);

/// Everything a mount needs to know.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "flags are bools")]
pub struct Settings {
    /// Which store.
    pub location: Location,
    /// Where.
    pub mountpoint: PathBuf,
    /// Stay in the foreground.
    pub foreground: bool,
    /// Say nothing of a mount that is there.
    pub quiet: bool,
    /// Mount on a directory that is not empty.
    pub nonempty: bool,
    /// Have changes made elsewhere told by inotify.
    pub notify: bool,
    /// Deadline of a store call.
    pub timeout: Duration,
    /// For the cache.
    pub cache: cache::Settings,
    /// For the files.
    pub fs: fs::Settings,
    /// For the mount table.
    pub fuse: fuse::Settings,
    /// Where a mount in the background logs to.
    pub log_file: PathBuf,
    /// What to log.
    pub log_level: &'static str,
}

/// Whether this process is the one in the background, which another one has started.
pub fn is_background() -> bool {
    background::role() == Role::Child
}

/// Mounts, in the background unless asked otherwise. Returns when the mount answers (background) or ends.
pub fn start(settings: &Settings) -> Result<(), Failure> {
    let announcement = Announcement::prepare(settings);
    let announce = || announcement.iter().for_each(Announcement::make);
    if settings.foreground {
        crate::logging::to_stderr(settings.log_level);
        return run(settings, || {
            announce();
            Ok(())
        });
    }
    match background::role() {
        Role::Parent => background::spawn().inspect(|()| announce()),
        Role::Child => {
            crate::logging::to_stderr(settings.log_level);
            run(settings, || background::ready(&settings.log_file))
        }
    }
}

/// Mounts and serves until the mount ends.
fn run(settings: &Settings, ready: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("kvfs-worker")
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot start threads: {error}")))?;
    let ended = mount(&runtime, settings, ready);
    // A call that the store never answers keeps its thread.
    runtime.shutdown_timeout(GRACE);
    ended
}

fn mount(
    runtime: &Runtime,
    settings: &Settings,
    ready: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let _entered = runtime.enter();
    let mountpoint = point::prepare(&settings.mountpoint, settings.nonempty, &settings.location)?;
    let (store, counters) = store::open(&settings.location, settings.timeout).map_err(Failure::Store)?;
    probe(runtime, &store)?;
    let (settings, why) = &within_rights(settings, store.read_only());
    let aside = settings.fs.aside.clone();
    let cache = Arc::new(Cache::new(store.clone(), settings.cache));
    let fs = Fs::new(cache.clone(), settings.fs.clone());
    // Before the first lookup, so that no change falls between the two.
    let feed = store.changes();
    cache.set_pushed(feed.is_some());
    let messages = Arc::new(Messages::default());
    let status = status(&fs, &messages, &counters, aside.clone());
    let mounted = fuse::mount(&fs, &mountpoint, &settings.fuse, runtime.handle(), messages, status);
    let mounted = mounted.map_err(|error| point::explain(&mountpoint, &error))?;
    if let Some(feed) = feed {
        runtime.spawn(fs.clone().follow_changes(feed));
    }
    runtime.spawn(fs.clone().tend());
    let guard = Arc::new(Guard::default());
    obey_signals(runtime, &fs, &guard, mountpoint.clone())?;
    // The mount answers when this does.
    let root = std::fs::metadata(&mountpoint)
        .map_err(|error| Failure::Fuse(format!("the mount does not answer: {error}")))?;
    if let Some(why) = why {
        logging::tell(&format!("{why}: mounted read-only"));
    }
    ready()?;
    guard.start(&mountpoint);
    if settings.notify {
        herald::start(fs.clone(), mountpoint, root.dev());
        runtime.spawn(fs.clone().keep_looking());
    }
    mounted.wait();
    guard.dismiss();
    finish(runtime, &fs, aside)
}

/// The settings for a store that can only be read, and why, if it is news.
fn within_rights(settings: &Settings, read_only: Option<String>) -> (Settings, Option<String>) {
    let mut settings = settings.clone();
    let why = read_only.filter(|_| !settings.fs.read_only);
    if why.is_some() {
        settings.fs.read_only = true;
        // The kernel would not let the herald in.
        settings.fuse.read_only = !settings.notify;
    }
    (settings, why)
}

/// Whether the store answers, before anything is mounted on it.
fn probe(runtime: &Runtime, store: &Arc<dyn Store>) -> Result<(), Failure> {
    match runtime.block_on(store.get_key_value(&Key::from("kvfs"))) {
        Ok(_) | Err(store::Error::NotFound) => Ok(()),
        Err(error) => Err(Failure::Store(error.told(store.name()))),
    }
}

fn finish(runtime: &Runtime, fs: &Arc<Fs>, aside: PathBuf) -> Result<(), Failure> {
    match runtime.block_on(fs.clone().finish()) {
        0 => Ok(()),
        count => Err(Failure::SetAside(count, aside)),
    }
}

/// The document that `kvfs status` reads.
fn status(fs: &Arc<Fs>, messages: &Arc<Messages>, counters: &Arc<Counters>, aside: PathBuf) -> fuse::Status {
    // Weak, because the document is kept by what it describes.
    let (fs, messages, counters) = (Arc::downgrade(fs), messages.clone(), counters.clone());
    let started = std::time::Instant::now();
    Box::new(move || {
        let Some(fs) = fs.upgrade() else { return String::new() };
        let last_error = fs.last_error();
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
            "untold_s": fs.cache().untold_since().map(|since| since.elapsed().as_secs()),
            "freshness": if fs.cache().is_pushed() { "pushed" } else { "bounded" },
            "keys": fs.cache().known_keys(),
            "messages": messages.snapshot(),
            "calls": counters.snapshot(),
            "rejected": fs.rejected(),
            "rejected_in": aside.to_string_lossy(),
            "last_error": last_error.map(|last| last.to_string()),
        })
        .to_string()
    })
}

/// SIGTERM, SIGINT and SIGHUP publish what can be published and unmount; a second one ends at once.
fn obey_signals(
    runtime: &Runtime,
    fs: &Arc<Fs>,
    guard: &Arc<Guard>,
    mountpoint: PathBuf,
) -> Result<(), Failure> {
    let (fs, guard, handle) = (fs.clone(), guard.clone(), runtime.handle().clone());
    let mut signals = Signals::listen()?;
    runtime.spawn(async move {
        signals.first().await;
        // The disk may hang: the thread that hears signals does not wait for it.
        let (publisher, publishing) = (fs.clone(), handle.clone());
        let unmounted = tokio::task::spawn_blocking(move || {
            // What is left may yet become complete, until the last file is closed.
            publishing.block_on(publisher.publish_all());
            let done = point::unmount(&mountpoint, false) || point::unmount(&mountpoint, true);
            if done {
                guard.dismiss();
            }
            done
        });
        if !matches!(signals.unless_another(unmounted).await, Ok(true)) {
            tracing::error!("cannot unmount");
        }
        // The session ends with the last open file; it is not waited for without end.
        tokio::select! { () = tokio::time::sleep(GRACE) => {}, () = signals.another() => {} }
        let finish = tokio::task::spawn_blocking(move || handle.block_on(fs.finish()));
        let aside = signals.unless_another(finish).await.unwrap_or(1);
        std::process::exit(if aside == 0 { 0 } else { 6 });
    });
    Ok(())
}
