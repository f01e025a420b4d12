//! Opens that were answered "look again", by thread.

use std::time::Duration;

use tokio::time::Instant;

use crate::fs::rules::error::FsError;
use crate::fs::state::tables::State;
use crate::fs::types::Ino;

/// An open that was answered "look again": what the next lookup by the same thread finds.
#[derive(Debug)]
pub(crate) struct Redirect {
    /// The name to look up.
    pub(crate) name: String,
    /// The draft inode made for a writer.
    pub(crate) to: Option<Ino>,
    /// When.
    pub(crate) since: Instant,
}

/// Redirects not followed by then belong to an open that was given up.
const REDIRECT_LIFE: Duration = Duration::from_secs(10);

impl State {
    /// Answers "look again" to an open by `thread`, and remembers what its lookup shall find. Not for thread 0
    /// ([`State::is_retry`]).
    pub(crate) fn redirect(&mut self, thread: u32, from: Ino, to: Option<Ino>) -> FsError {
        self.end_redirect(thread);
        if self.redirects.len() >= 256 {
            let old = |redirect: &Redirect| redirect.since.elapsed() > REDIRECT_LIFE;
            let threads: Vec<u32> = self
                .redirects
                .iter()
                .filter(|(_, redirect)| old(redirect))
                .map(|(thread, _)| *thread)
                .collect();
            for thread in threads {
                self.end_redirect(thread);
            }
        }
        let name = self.inodes.get(&from).map(|inode| inode.name.clone()).unwrap_or_default();
        let redirect = Redirect { name, to, since: Instant::now() };
        self.redirects.insert(thread, redirect);
        FsError::Superseded
    }

    /// Whether `thread` was told to look `name` up again and now is back. The threads outside of the daemon's PID
    /// namespace are all 0 and cannot be told apart: none is told so, all are served on the spot.
    pub(crate) fn is_retry(&self, thread: u32, name: &str) -> bool {
        if thread == 0 {
            return true;
        }
        let redirect = self.redirects.get(&thread);
        redirect.is_some_and(|redirect| redirect.name == name && redirect.since.elapsed() < REDIRECT_LIFE)
    }

    /// Forgets the redirect of `thread`; the draft inode made for it goes if nothing took it up.
    pub(crate) fn end_redirect(&mut self, thread: u32) {
        if let Some(redirect) = self.redirects.remove(&thread)
            && let Some(ino) = redirect.to
        {
            self.collect(ino);
        }
    }
}
