//! `kvfs umount`: ends a mount, and says whether text was rejected.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::survey::{self, State};
use super::{daemon, mounts};
use crate::failure::Failure;
use crate::sys;

/// How long the daemon may take to publish the rest to a slow store.
const PATIENCE: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(10);
/// How long a mount may be busy before that is an error.
const PASSING: Duration = Duration::from_secs(2);

/// Unmounts what kvfs has mounted at `path`, and returns once its daemon has ended.
pub fn end(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let failed = |why: String| Failure::Mountpoint(format!("{shown} {why}"));
    let place = mounts::find(path)
        .map_err(|error| Failure::Other(format!("cannot read the mount table: {error}")))?
        .ok_or_else(|| failed("is no mount of kvfs; `kvfs status` lists those that there are".into()))?;
    if !place.is_whole() {
        let part = place.root.display();
        return Err(failed(format!("is {part} of a mount, bound there; end that with: umount {shown}")));
    }
    let (state, process) = survey::look(&place);
    let daemon = match &state {
        State::Answers(document) => Some(Daemon::of(document)),
        State::Dead => None,
        state => return Err(failed(state.trouble(&place, process).unwrap_or_default())),
    };
    let before = daemon.as_ref().map(Daemon::rejected_texts).unwrap_or_default();
    unmount(&place.path).map_err(|why| failed(format!("cannot be unmounted: {why}")))?;
    let elsewhere =
        || mounts::ours().is_ok_and(|all| all.iter().any(|other| other.connection == place.connection));
    match daemon {
        Some(daemon) if !elsewhere() => daemon.wait(&before),
        _ => Ok(()),
    }
}

/// The daemon, as its status describes it.
struct Daemon {
    id: u32,
    /// The directory of rejected texts.
    rejected: PathBuf,
}

impl Daemon {
    fn of(document: &Value) -> Self {
        let id = document["pid"].as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        Self { id, rejected: document["rejected_in"].as_str().unwrap_or_default().into() }
    }

    /// The files of the texts that it has rejected.
    fn rejected_texts(&self) -> BTreeSet<PathBuf> {
        // TIME-PID-....rejected
        let own =
            |name: &str| name.ends_with(".rejected") && name.split('-').nth(1) == Some(&self.id.to_string());
        let entries = std::fs::read_dir(&self.rejected).into_iter().flatten().filter_map(Result::ok);
        entries.filter(|entry| own(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
    }

    fn wait(&self, before: &BTreeSet<PathBuf>) -> Result<(), Failure> {
        let began = Instant::now();
        while !daemon::has_ended(self.id) {
            let id = self.id;
            if daemon::is_stopped(id) {
                return Err(Failure::Other(format!(
                    "unmounted, but its kvfs is stopped; continue it with: kill -CONT {id}"
                )));
            }
            if began.elapsed() > PATIENCE {
                return Err(Failure::Other(format!(
                    "unmounted, but its kvfs goes on (process {id}): the mount is in use elsewhere, or the store does not \
                     answer; end it with: kill {id}"
                )));
            }
            std::thread::sleep(INTERVAL);
        }
        match self.rejected_texts().difference(before).count() {
            0 => Ok(()),
            count => Err(Failure::Rejected(count, self.rejected.clone())),
        }
    }
}

/// Unmounts. A program that looks at the mount in passing, as `kvfs status` does, keeps it busy for less than [`PASSING`].
fn unmount(path: &Path) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match attempt(path) {
            Err(why) if is_busy(&why) && began.elapsed() < PASSING => std::thread::sleep(INTERVAL),
            done => return done.map_err(|why| explain(path, why)),
        }
    }
}

/// Calls umount2(2) as root, fusermount3 as a user.
fn attempt(path: &Path) -> Result<(), String> {
    let Err(error) = sys::unmount(path, false) else { return Ok(()) };
    if error.kind() != ErrorKind::PermissionDenied {
        return Err(error.to_string());
    }
    let mut helper = Command::new("fusermount3");
    let done = helper.args(["-u", "--"]).arg(path).stdin(Stdio::null()).stdout(Stdio::null()).output();
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Err(error) => Err(format!("cannot run fusermount3: {error}; install fuse3, or be root")),
    }
}

fn is_busy(why: &str) -> bool {
    why.contains("busy")
}

fn explain(path: &Path, why: String) -> String {
    if is_busy(&why) {
        let shown = path.display();
        return format!("a program has a file or its working directory there; `fuser -vm {shown}` names it");
    }
    why
}
