//! The state of all mounts that this process can see: each is asked once, also if only a part of it is bound, or if it belongs to
//! another user.

use std::io::{self, ErrorKind};
use std::path::Path;

use serde_json::Value;

use super::daemon;
use super::mounts::{self, Place};

/// A mount, and the places where it is found.
pub struct Found {
    /// The place of the whole mount, if that is visible; else of a part.
    pub place: Place,
    /// Its other places.
    pub others: Vec<Place>,
    /// Its daemon, if it is known.
    pub daemon: Option<u32>,
    /// Its state.
    pub state: State,
}

/// The state of a mount.
pub enum State {
    /// It answers with this status document.
    Answers(Value),
    /// Its daemon is stopped, as by SIGSTOP.
    Stopped,
    /// Its daemon does not answer.
    Silent,
    /// Its daemon was killed.
    Dead,
    /// It belongs to another user, who alone may ask it; its daemon runs.
    Foreign,
    /// It cannot be asked.
    Unknown(io::Error),
}

/// The mounts that have a place which is `meant`, in the order of mounting. Others are not asked: they might be stuck, or being
/// unmounted.
pub fn of(meant: impl Fn(&Path) -> bool) -> io::Result<Vec<Found>> {
    // In threads, so that a mount that does not answer delays no other; one after the other where there is none for it.
    let ask = |places: Vec<Place>| {
        let (mine, theirs) = (places.clone(), places);
        std::thread::Builder::new().spawn(|| look_at(theirs)).map_err(|_| mine)
    };
    let asked: Vec<_> = connections(mounts::ours()?, meant).into_iter().map(ask).collect();
    Ok(asked
        .into_iter()
        .filter_map(|asked| asked.map_or_else(|places| Some(look_at(places)), |looking| looking.join().ok()))
        .collect())
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

fn look_at(mut places: Vec<Place>) -> Found {
    let whole = places.iter().position(Place::is_whole).unwrap_or(0);
    let place = places.remove(whole);
    let (mut state, mut daemon) = look(&place);
    // The last known state may be old: the store may answer again, or be down where only the feed was known to be broken.
    if let State::Answers(document) = &state
        && !(document["untold_s"].is_null() && document["down"].is_null())
    {
        // The result is in the next status document.
        _ = ask_store(&place.path);
        (state, daemon) = look(&place);
    }
    Found { place, others: places, daemon, state }
}

/// The state of the mount at `place`, and its daemon.
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

    /// The message about a mount at `place` that does not answer, with advice.
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

/// Has the daemon of the mount at `path` call its store; fails with the reason if that does not answer.
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
