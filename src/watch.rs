//! `kvfs watch`: tells of changes as lines of JSON, or runs a command for each.

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
use crate::mount::mounts::{self, Place};
use crate::signals::Signals;

/// How often the daemon is asked. It answers at once: while a process waits inside of a mount, nobody can unmount it.
const INTERVAL: Duration = Duration::from_millis(100);

/// A change, as the daemon tells it. Where changes were missed there is only the event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Change {
    event: String,
    key: Option<String>,
    name: Option<String>,
    revision: Option<u64>,
    time: String,
}

impl Change {
    fn file(&self, mountpoint: &Path) -> Option<PathBuf> {
        self.name.as_ref().map(|name| mountpoint.join(name))
    }

    fn line(&self, mountpoint: &Path) -> Value {
        let mut line = Map::from_iter([("event".to_owned(), json!(self.event))]);
        if let Some(file) = self.file(mountpoint) {
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

/// Why there is nothing more to tell.
enum End {
    /// The mount has ended.
    Mount(io::Error),
    /// Nobody reads any more.
    Output(io::Error),
}

/// Watches the mount at `path` until it ends, or a signal ends this process.
pub fn start(path: &Path, command: Option<String>) -> Result<(), Failure> {
    let shown = path.display();
    let place = mounts::find(path)
        .map_err(|error| Failure::Other(format!("cannot read the mount table: {error}")))?
        .ok_or_else(|| {
            Failure::Mountpoint(format!("nothing of kvfs is mounted at {shown}; `kvfs status` lists what is"))
        })?;
    if !place.is_whole() {
        return Err(Failure::Mountpoint(part(&place)));
    }
    let mountpoint = place.path;
    let cursor = ask(&mountpoint, "")
        .map_err(|error| Failure::Mountpoint(format!("{shown} does not tell of changes: {error}")))?
        .cursor;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let (sender, ended) = oneshot::channel();
        std::thread::spawn(move || _ = sender.send(follow(&mountpoint, cursor, command)));
        let end = tokio::select! { () = signals.first() => return Ok(()), end = ended => end };
        match end {
            Ok(End::Mount(error)) if mounts::is_gone(&error) => {
                return Err(Failure::Mountpoint(format!(
                    "the kvfs of {shown} was killed; changes may be missed from now on: mount it again, and watch it"
                )));
            }
            Ok(End::Mount(_)) => logging::tell(&format!("the mount at {shown} has ended")),
            Ok(End::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Ok(End::Output(error)) => return Err(Failure::Other(format!("cannot print changes: {error}"))),
            Err(_) => return Err(Failure::Other("the watch failed by a panic; please report it".into())),
        }
        Ok(())
    })
}

/// What there is to watch instead of a part.
fn part(place: &Place) -> String {
    let (shown, root) = (place.path.display(), place.root.display());
    let all = mounts::ours().unwrap_or_default();
    match all.iter().find(|other| other.is_whole() && other.connection == place.connection) {
        Some(whole) => format!(
            "{shown} is {root} of a mount, bound there; watch all of it: kvfs watch {}",
            whole.path.display()
        ),
        None => format!(
            "{shown} is {root} of a mount, bound there; all of it can be watched, which is not to be seen here"
        ),
    }
}

fn ask(mountpoint: &Path, cursor: &str) -> io::Result<Page> {
    Ok(serde_json::from_slice(&mounts::changes(mountpoint, cursor)?)?)
}

/// Tells of all changes after `cursor`.
fn follow(mountpoint: &Path, mut cursor: String, command: Option<String>) -> End {
    let commands = command.map(|command| Commands::start(command, mountpoint.to_owned()));
    loop {
        let page = match ask(mountpoint, &cursor) {
            Ok(page) => page,
            Err(error) => {
                commands.into_iter().for_each(Commands::finish);
                return End::Mount(error);
            }
        };
        cursor = page.cursor;
        if page.changes.is_empty() {
            std::thread::sleep(INTERVAL);
        }
        for change in page.changes {
            match &commands {
                Some(commands) => commands.add(change),
                None => {
                    if let Err(error) = print(&change.line(mountpoint)) {
                        return End::Output(error);
                    }
                }
            }
        }
    }
}

fn print(line: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", logging::shown_json(&line.to_string()))?;
    out.flush()
}
