//! How the mounts are that this process can see, told from outside: each asked once, also where only a part of it is bound,
//! or where it is another user's.

use std::io::{self, ErrorKind};
use std::path::Path;

use serde_json::Value;

use super::daemon;
use super::mounts::{self, Place};

/// A mount, and the places where it is found.
pub struct Seen {
    /// Where all of it is, if that is to be seen; else where a part is.
    pub place: Place,
    /// Where else it is found.
    pub others: Vec<Place>,
    /// Its daemon, if it is known.
    pub daemon: Option<u32>,
    /// How it is.
    pub state: State,
}

/// How a mount is.
pub enum State {
    /// It answers, with what it tells of itself.
    Answers(Value),
    /// Its daemon is stopped, as by SIGSTOP.
    Stopped,
    /// Its daemon does not answer.
    Silent,
    /// Its daemon was killed.
    Dead,
    /// It is another user's, who alone may ask; its daemon runs.
    Foreign,
    /// It cannot be asked.
    Unknown(io::Error),
}

/// The mounts of which a place is `meant`, in the order of mounting. No other is asked: it might be stuck, or busy with being
/// unmounted.
pub fn of(meant: impl Fn(&Path) -> bool) -> io::Result<Vec<Seen>> {
    // One that does not answer holds up no other.
    let asked =
        connections(mounts::ours()?, meant).into_iter().map(|places| std::thread::spawn(|| look_at(places)));
    Ok(asked.collect::<Vec<_>>().into_iter().filter_map(|looking| looking.join().ok()).collect())
}

/// The places of each connection, of which one is `meant`.
fn connections(places: Vec<Place>, meant: impl Fn(&Path) -> bool) -> Vec<Vec<Place>> {
    let mut found: Vec<Vec<Place>> = Vec::new();
    for place in places {
        match found.iter_mut().find(|places| places[0].connection == place.connection) {
            Some(places) => places.push(place),
            None => found.push(vec![place]),
        }
    }
    found.retain(|places| places.iter().any(|place| meant(&place.path)));
    found
}

fn look_at(mut places: Vec<Place>) -> Seen {
    let whole = places.iter().position(Place::is_whole).unwrap_or(0);
    let place = places.remove(whole);
    let (mut state, mut daemon) = look(&place);
    // What was found is not what is: the store may be back, or be gone where it only tells of no changes.
    if let State::Answers(told) = &state
        && !(told["untold_s"].is_null() && told["down"].is_null())
    {
        // What it comes to, the daemon tells.
        _ = ask_store(&place.path);
        (state, daemon) = look(&place);
    }
    Seen { place, others: places, daemon, state }
}

/// How the mount at `place` is, and its daemon.
pub(super) fn look(place: &Place) -> (State, Option<u32>) {
    match mounts::ask(&place.path) {
        Ok(document) => {
            let document: Value = serde_json::from_slice(&document).unwrap_or_default();
            let daemon = document["pid"].as_u64().and_then(|id| u32::try_from(id).ok());
            (State::Answers(document), daemon)
        }
        Err(error) if mounts::is_gone(&error) => (State::Dead, None),
        Err(error) => {
            let daemon = daemon::of(&place.path);
            let state = match (error.kind(), daemon) {
                (ErrorKind::TimedOut | ErrorKind::PermissionDenied, Some(id)) if daemon::is_stopped(id) => {
                    State::Stopped
                }
                (ErrorKind::TimedOut, _) => State::Silent,
                (ErrorKind::PermissionDenied, Some(_)) => State::Foreign,
                _ => State::Unknown(error),
            };
            (state, daemon)
        }
    }
}

impl State {
    /// In one word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Answers(_) => "well",
            Self::Stopped => "stopped",
            Self::Silent => "silent",
            Self::Dead => "dead",
            Self::Foreign => "foreign",
            Self::Unknown(_) => "unknown",
        }
    }

    /// What is to be said of a mount at `place` that has not answered, and what can be done.
    pub fn trouble(&self, place: &Place, daemon: Option<u32>) -> Option<String> {
        let (shown, id) = (place.path.display(), daemon.unwrap_or(0));
        Some(match self {
            Self::Answers(_) => return None,
            Self::Stopped => {
                format!("does not answer, for its kvfs is stopped; continue it with: kill -CONT {id}")
            }
            Self::Silent if daemon.is_some() => {
                format!("does not answer (process {id}); if it is stuck, end it with: kill -9 {id}")
            }
            Self::Silent => format!("does not answer; if it is stuck, end it with: umount -f {shown}"),
            Self::Dead => format!("is dead, for its kvfs was killed; mount it again, or: umount {shown}"),
            Self::Foreign => {
                format!("is a mount of {}, who alone may ask; its kvfs runs (process {id})", owner(place))
            }
            Self::Unknown(error) if error.kind() == ErrorKind::PermissionDenied => {
                format!("is a mount of {}, who alone may ask", owner(place))
            }
            Self::Unknown(error) => format!("cannot be asked: {error}"),
        })
    }
}

fn owner(place: &Place) -> String {
    place.owner.map_or_else(|| "another user".into(), |id| format!("user {id}"))
}

/// Has the daemon of the mount at `path` ask its store; why that did not answer.
pub fn ask_store(path: &Path) -> Result<(), String> {
    match mounts::probe(path) {
        Ok(answer) if answer.is_empty() => Ok(()),
        Ok(answer) => Err(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) if error.raw_os_error() == Some(libc::ENODATA) => {
            Err("its kvfs is of another version, which cannot be asked about it; mount it anew".into())
        }
        Err(error) if error.kind() == ErrorKind::TimedOut => Err("the store does not answer".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn only_the_mounts_that_are_meant_are_asked_each_with_all_its_places() {
        let place = |path: &str, connection: &str| Place {
            path: path.into(),
            root: "/".into(),
            source: "sqlite:/x".into(),
            owner: Some(12),
            connection: connection.into(),
        };
        let places = [place("/mnt", "1"), place("/other", "2"), place("/etc/app", "1"), place("/third", "3")];
        let found = |meant: fn(&Path) -> bool| {
            let found = connections(places.to_vec(), meant);
            found.iter().map(|places| places.iter().map(|place| place.path.clone()).collect()).collect()
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<PathBuf>>();
        let one: Vec<Vec<PathBuf>> = found(|path| path == Path::new("/etc/app"));
        assert_eq!(one, [paths(&["/mnt", "/etc/app"])]);
        let all: Vec<Vec<PathBuf>> = found(|_| true);
        assert_eq!(all, [paths(&["/mnt", "/etc/app"]), paths(&["/other"]), paths(&["/third"])]);
    }
}
