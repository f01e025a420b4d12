//! An open as far as it has come, and what it comes to next.

use std::time::Duration;

use tokio::time::Instant;

use crate::fs::state::invalidation::PathInvalidation;
use crate::fs::state::turns::Turn;
use crate::fs::types::{DraftId, Opened};
use crate::store::{Entry, Key};

/// What the store has; `None` is a confirmed absence.
pub(super) type Known = Option<Entry>;

/// What the store has of a key.
pub(super) struct Fetched(pub(super) Key, pub(super) Known);

/// What an open comes to, given the tables alone.
pub(super) enum Plan {
    Done(Opened),
    /// A writer works on the inode itself, with this draft if it is the kernel's idea of the file, once the kernel has no dentry
    /// of the name any more that lasts.
    Begin(PathInvalidation, Option<DraftId>, Opened),
    /// Somebody else has open what cannot be shared: wait for him until then.
    Wait(Instant),
    /// A file that is written is a key, or a scratch file: it was renamed to a backup name, which the store does not know yet.
    CarryOut,
    /// The kernel may still have pages of an older version.
    Settle,
    /// A snapshot of the current value is needed first.
    Fetch,
    /// The directory that it is in, at this path, is being renamed: the key may have its new name.
    Await(String),
}

impl From<(Opened, Option<(PathInvalidation, DraftId)>)> for Plan {
    fn from((opened, begins): (Opened, Option<(PathInvalidation, DraftId)>)) -> Self {
        match begins {
            Some((dentry, draft)) => Self::Begin(dentry, Some(draft), opened),
            None => Self::Done(opened),
        }
    }
}

impl Plan {
    /// Done, once the kernel has no such dentry any more, if there is one to drop.
    pub(super) fn after(dentry: Option<PathInvalidation>, opened: Opened) -> Self {
        dentry.map_or(Self::Done(opened), |dentry| Self::Begin(dentry, None, opened))
    }
}

/// An open as far as it has come.
pub(super) struct Attempt {
    pub(super) fetched: Option<Fetched>,
    /// How often the store was asked.
    pub(super) asked: u32,
    pub(super) since: Instant,
    /// Who opens certainly was told to look again, and now is back.
    pub(super) retried: bool,
    /// It waits for others to close the file.
    pub(super) turn: Option<Turn>,
}

impl Attempt {
    /// Until when it waits, if that is not over.
    pub(super) fn patience(&self, time: Duration) -> Option<Instant> {
        Some(self.since + time).filter(|until| *until > Instant::now())
    }
}
