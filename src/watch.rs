//! `kvfs watch`: prints changes as lines of JSON, or runs a command for each.

mod command;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use self::command::Commands;
use crate::failure::Failure;
use crate::logging;
use crate::mount::mounts;
use crate::signals::Signals;

/// How often the daemon is polled. It answers at once: a process that waits inside of a mount keeps it busy for umount(2).
const INTERVAL: Duration = Duration::from_millis(100);

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

/// Watches the mount, file or directory at `path` until the mount ends, or a signal ends this process.
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
        std::thread::spawn(move || _ = sender.send(follow(&target, cursor, command)));
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

/// Prints all changes after `cursor`.
fn follow(target: &Target, mut cursor: String, command: Option<String>) -> End {
    let asked = &target.asked;
    let commands = command.map(|command| Commands::start(command, asked.clone()));
    loop {
        let page = match mounts::changes_after(asked, &cursor).and_then(|answer| page(&answer)) {
            Ok(page) => page,
            Err(error) => {
                commands.into_iter().for_each(Commands::finish);
                return End::Mount(error);
            }
        };
        let is_last = page.cursor == cursor;
        cursor = page.cursor;
        for change in page.changes.into_iter().filter(|change| change.is_of(&target.within)) {
            match &commands {
                Some(commands) => commands.add(change),
                None => {
                    if let Err(error) = print(&change.line(asked)) {
                        return End::Output(error);
                    }
                }
            }
        }
        if is_last {
            std::thread::sleep(INTERVAL);
        }
    }
}

fn print(line: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", logging::shown_json(&line.to_string()))?;
    out.flush()
}
