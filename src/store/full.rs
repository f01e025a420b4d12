//! A store known to be full: sets fail without a call to it, until there may be space again.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Error, Expect, Result, Space};

/// How long calls fail at once after one found the store full or down, before one is let through as a probe.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// So many more free bytes on the disk may be enough for a value.
const ROOM: u64 = 64 << 10;

/// Why the store is full, and since when; `None` while it is not.
#[derive(Default)]
pub(super) struct Full(Mutex<Option<Refused>>);

struct Refused {
    tried: Instant,
    error: Error,
    /// Bytes that the disk had then.
    available: Option<u64>,
}

impl Full {
    /// Refuses a set while the store is full; lets one through every [`RETRY_AFTER`].
    pub(super) fn admit(&self, expect: Expect, space: impl FnOnce() -> Option<Space>) -> Result<()> {
        if let Some(error) = self.refusal(expect, space) {
            return Err(error);
        }
        if let Some(refused) = &mut *self.0.lock() {
            refused.tried = Instant::now();
        }
        Ok(())
    }

    /// Whether [`Full::admit`] would refuse a set. A quota on keys does not refuse sets of existing ones.
    pub(super) fn refusal(&self, expect: Expect, space: impl FnOnce() -> Option<Space>) -> Option<Error> {
        let full = self.0.lock();
        let refused = full.as_ref().filter(|refused| refused.tried.elapsed() < RETRY_AFTER)?;
        let for_all = matches!(refused.error, Error::NoSpace(_));
        let more = || Some(space()?.available >= refused.available?.saturating_add(ROOM));
        (for_all && more() != Some(true) || !for_all && expect == Expect::Absent)
            .then(|| refused.error.clone())
    }

    /// Records the error of a set.
    pub(super) fn note(&self, error: &Error, space: Option<Space>) {
        if error.is_full() {
            let available = space.map(|space| space.available);
            *self.0.lock() = Some(Refused { tried: Instant::now(), error: error.clone(), available });
        }
    }

    /// Records that a set succeeded.
    pub(super) fn took(&self, expect: Expect) {
        self.0.lock().take_if(|refused| refused.error.keeps_out(expect == Expect::Absent));
    }

    /// Records that a delete freed space.
    pub(super) fn clear(&self) {
        *self.0.lock() = None;
    }
}
