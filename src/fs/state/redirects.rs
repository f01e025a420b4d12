//! Opens that were answered "look again", by thread.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::fs::rules::names::is_inside;
use crate::fs::types::Ino;

/// An open that was answered "look again": what the next lookup by the same thread finds.
#[derive(Debug)]
struct Redirect {
    /// The name to look up.
    name: String,
    /// The draft inode made for a writer.
    to: Option<Ino>,
    since: Instant,
}

/// For so long a lookup finds the draft: one that comes later may be for another open.
const REDIRECT_LIFE: Duration = Duration::from_secs(10);
/// Redirects not followed by then belong to an open that was given up.
const GIVEN_UP: Duration = Duration::from_hours(1);
/// When there are so many, those are looked for.
const MANY: usize = 256;

/// By thread. None for thread 0 ([`Redirects::is_retry`]).
#[derive(Debug, Default)]
pub(crate) struct Redirects(HashMap<u32, Redirect>);

impl Redirects {
    /// Remembers what the next lookup of `name` by `thread` shall find. Returns the inodes that nobody is sent to any more.
    pub(super) fn add(&mut self, thread: u32, name: String, to: Option<Ino>) -> Vec<Ino> {
        let mut given_up: Vec<Ino> = self.take(thread).into_iter().collect();
        if self.0.len() >= MANY {
            let old = self.0.extract_if(|_, redirect| redirect.since.elapsed() > GIVEN_UP);
            given_up.extend(old.filter_map(|(_, redirect)| redirect.to));
        }
        self.0.insert(thread, Redirect { name, to, since: Instant::now() });
        given_up
    }

    /// Whether `thread` was told to look `name` up again and now is back, however late: the kernel may wait for the names on
    /// the way, and for the lock of a directory. The threads outside of the daemon's PID namespace are all 0 and cannot be
    /// told apart: none is told so, all are served on the spot.
    pub(super) fn is_retry(&self, thread: u32, name: &str) -> bool {
        thread == 0 || self.0.get(&thread).is_some_and(|redirect| redirect.name == name)
    }

    /// The inode that `thread` was sent to look for. Who comes late may have given that open up, and now look at the file for
    /// something else.
    pub(super) fn target(&self, thread: u32, name: &str) -> Option<Ino> {
        let redirect = self.0.get(&thread).filter(|redirect| redirect.name == name)?;
        redirect.to.filter(|_| redirect.since.elapsed() < REDIRECT_LIFE)
    }

    /// What is in the directory at `from` is looked for in `to`: the kernel finds it there.
    pub(super) fn move_directory(&mut self, from: &str, to: &str) {
        for redirect in self.0.values_mut().filter(|redirect| is_inside(&redirect.name, from)) {
            redirect.name = format!("{to}{}", &redirect.name[from.len()..]);
        }
    }

    /// Forgets the redirect of `thread`. Returns the inode that it led to.
    pub(super) fn take(&mut self, thread: u32) -> Option<Ino> {
        self.0.remove(&thread)?.to
    }

    /// Whether somebody is sent to `ino`.
    pub(super) fn lead_to(&self, ino: Ino) -> bool {
        self.0.values().any(|redirect| redirect.to == Some(ino))
    }
}
