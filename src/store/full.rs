//! A store known to be full: sets are refused without asking it, until there may be room again.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Error, Expect, Result, Space};

/// How long calls fail at once after one found the store full or down, before one is let through to try again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// More room than this may take a value.
const ROOM: u64 = 64 << 10;

/// Since when there has been no room, and why; nothing while there is.
#[derive(Default)]
pub(super) struct Full(Mutex<Option<Refused>>);

struct Refused {
    tried: Instant,
    error: Error,
    /// Bytes that the disk had then.
    available: Option<u64>,
}

impl Full {
    /// Refuses a set while there is no room; lets one through every [`RETRY_AFTER`].
    pub(super) fn admit(&self, expect: Expect, space: impl FnOnce() -> Option<Space>) -> Result<()> {
        if let Some(error) = self.refusal(expect, space) {
            return Err(error);
        }
        if let Some(refused) = &mut *self.0.lock() {
            refused.tried = Instant::now();
        }
        Ok(())
    }

    /// As [`Full::admit`], without being let through. A quota on keys does not keep those that exist from being set.
    pub(super) fn refusal(&self, expect: Expect, space: impl FnOnce() -> Option<Space>) -> Option<Error> {
        let full = self.0.lock();
        let refused = full.as_ref().filter(|refused| refused.tried.elapsed() < RETRY_AFTER)?;
        let for_all = matches!(refused.error, Error::NoSpace(_));
        let more = || Some(space()?.available >= refused.available?.saturating_add(ROOM));
        (for_all && more() != Some(true) || !for_all && expect == Expect::Absent)
            .then(|| refused.error.clone())
    }

    /// Takes in why a set failed.
    pub(super) fn note(&self, error: &Error, space: Option<Space>) {
        if error.is_full() {
            let available = space.map(|space| space.available);
            *self.0.lock() = Some(Refused { tried: Instant::now(), error: error.clone(), available });
        }
    }

    /// Takes in that a set succeeded.
    pub(super) fn took(&self, expect: Expect) {
        self.0.lock().take_if(|refused| refused.error.keeps_out(expect == Expect::Absent));
    }

    /// Takes in that a delete made room.
    pub(super) fn over(&self) {
        *self.0.lock() = None;
    }
}
