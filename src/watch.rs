//! `kvfs watch`: prints changes as lines of JSON, or runs a command for each.

mod command;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use self::command::Commands;
use crate::failure::Failure;
use crate::logging;
use crate::mount::mounts;
use crate::signals::Signals;
use crate::threads;

/// How often the daemon is polled. It answers at once: a process that waits inside of a mount keeps it busy for umount(2).
const INTERVAL: Duration = Duration::from_millis(100);
/// How long the next mount at the place is waited for when the mount has ended: a restart is no end of the watch.
const RESTART: Duration = Duration::from_secs(10);

/// A change in the daemon's answer. If changes were missed it has the event only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Change {
    event: String,
    key: Option<String>,
    name: Option<String>,
    revision: Option<u64>,
    time: String,
}

impl Change {
    /// Changes were missed by then.
    fn missed(time: String) -> Self {
        Self { event: "missed".into(), key: None, name: None, revision: None, time }
    }

    /// The path of the file, if the answer is that of `asked`.
    fn file(&self, asked: &Path) -> Option<PathBuf> {
        // In the answer of a file its own name is empty.
        self.name.as_ref().map(|name| if name.is_empty() { asked.to_owned() } else { asked.join(name) })
    }

    /// Whether it is of `within`, or of a file below it; true if changes were missed.
    fn is_of(&self, within: &Path) -> bool {
        self.name.as_ref().is_none_or(|name| Path::new(name).starts_with(within))
    }

    fn line(&self, asked: &Path) -> Value {
        let mut line = Map::from_iter([("event".to_owned(), json!(self.event))]);
        if let Some(file) = self.file(asked) {
            line.insert("key".into(), json!(self.key));
            line.insert("file".into(), json!(file.to_string_lossy()));
            line.insert("revision".into(), json!(self.revision));
        }
        line.insert("time".into(), json!(self.time));
        line.into()
    }
}

#[derive(Deserialize)]
struct Page {
    cursor: String,
    changes: Vec<Change>,
}

/// Why the watch ends.
enum End {
    /// The mount has ended.
    Mount(io::Error),
    /// The reader of the output has closed it.
    Output(io::Error),
}

/// The watched path.
struct Target {
    /// The place that is polled: a mount, or the part of one that is bound there.
    asked: PathBuf,
    /// The path within it, to filter the changes.
    within: PathBuf,
}

impl Target {
    fn find(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let (place, within) = mounts::holding(path)
            .map_err(|error| Failure::Other(format!("cannot read the mount table: {error}")))?
            .ok_or_else(|| {
                let why = format!("{shown} is in no mount of kvfs; `kvfs status` lists what is mounted");
                Failure::Mountpoint(why)
            })?;
        Ok(Self { asked: place.path, within })
    }

    /// Waits for the next mount at the place; returns a cursor into its changes.
    fn next_mount(&self) -> Option<String> {
        let end = Instant::now() + RESTART;
        while Instant::now() < end {
            std::thread::sleep(INTERVAL);
            let is_there = Self::find(&self.asked).is_ok_and(|found| found.asked == self.asked);
            if is_there && let Ok(page) = mounts::changes_begin(&self.asked).and_then(|answer| page(&answer))
            {
                return Some(page.cursor);
            }
        }
        None
    }

    /// Prints a line about a file that does not exist yet.
    fn look(&self) -> io::Result<()> {
        let path = self.asked.join(&self.within);
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                logging::report(&format!(
                    "{} is not there yet; it is told of when it is set",
                    path.display()
                ));
                Ok(())
            }
            looked => looked.map(drop),
        }
    }
}

/// Watches the mount, file or directory at `path` until the mount ends, and no other takes its place, or a signal ends this
/// process.
pub fn start(path: &Path, command: Option<String>) -> Result<(), Failure> {
    let shown = path.display();
    let target = Target::find(path)?;
    let place = target.asked.display().to_string();
    let silent = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::TimedOut => "its mount does not answer".into(),
            _ => error.to_string(),
        };
        Failure::Mountpoint(format!("{shown} does not tell of changes: {why}; see `kvfs status`"))
    };
    let cursor =
        mounts::changes_begin(&target.asked).and_then(|answer| page(&answer)).map_err(silent)?.cursor;
    if !target.within.as_os_str().is_empty() {
        target.look().map_err(silent)?;
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let (sender, ended) = oneshot::channel();
        let output = Output::start(command, &target.asked)?;
        threads::start("kvfs-watch", move || _ = sender.send(follow(&target, cursor, output)))?;
        let end = tokio::select! { () = signals.first() => return Ok(()), end = ended => end };
        match end {
            Ok(End::Mount(error)) if mounts::is_gone(&error) => {
                return Err(Failure::Mountpoint(format!(
                    "the kvfs of {shown} was killed; changes may be missed from now on: mount it again, and watch it"
                )));
            }
            Ok(End::Mount(_)) => logging::report(&format!("the mount at {place} has ended")),
            Ok(End::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Ok(End::Output(error)) => return Err(Failure::Other(format!("cannot print changes: {error}"))),
            Err(_) => return Err(Failure::Other("the watch failed by a panic; please report it".into())),
        }
        Ok(())
    })
}

fn page(document: &[u8]) -> io::Result<Page> {
    Ok(serde_json::from_slice(document)?)
}

/// Tells of all changes after `cursor`.
fn follow(target: &Target, mut cursor: String, output: Output) -> End {
    loop {
        let page = match mounts::changes_after(&target.asked, &cursor).and_then(|answer| page(&answer)) {
            Ok(page) => page,
            Err(error) => {
                let Some(cursor) = target.next_mount() else {
                    output.finish();
                    return End::Mount(error);
                };
                logging::report(&format!(
                    "{} is mounted again; changes may have been missed",
                    target.asked.display()
                ));
                Page { cursor, changes: vec![Change::missed(jiff::Timestamp::now().to_string())] }
            }
        };
        let is_last = page.cursor == cursor;
        cursor = page.cursor;
        for change in page.changes.into_iter().filter(|change| change.is_of(&target.within)) {
            if let Err(error) = output.tell(change, &target.asked) {
                return End::Output(error);
            }
        }
        if is_last {
            std::thread::sleep(INTERVAL);
        }
    }
}

/// What changes are told to.
enum Output {
    Lines,
    Commands(Commands),
}

impl Output {
    fn start(command: Option<String>, asked: &Path) -> Result<Self, Failure> {
        let Some(command) = command else { return Ok(Self::Lines) };
        Commands::start(command, asked.to_owned()).map(Self::Commands)
    }

    fn tell(&self, change: Change, asked: &Path) -> io::Result<()> {
        match self {
            Self::Lines => print(&change.line(asked)),
            Self::Commands(commands) => {
                commands.add(change);
                Ok(())
            }
        }
    }

    fn finish(self) {
        if let Self::Commands(commands) = self {
            commands.finish();
        }
    }
}

fn print(line: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", logging::shown_json(&line.to_string()))?;
    out.flush()
}
