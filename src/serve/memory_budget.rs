//! The memory that requests and their answers may use, so that neither many nor large ones exhaust it. Small ones are
//! admitted however much the large ones have reserved.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Bytes for the requests that are being carried out.
const REQUESTS: usize = 256 << 20;
/// Bytes for the answers that are being built or sent; enough to list a million keys.
const ANSWERS: usize = 640 << 20;
/// Bytes of each answer that are not counted.
const SMALL_ANSWER: usize = 64 << 10;
/// Requests of more bytes are carried out one after the other.
const SMALL_REQUEST: usize = 64 << 10;
/// Bytes of memory that a byte of a request may need: a list of digits becomes a list of numbers, twice.
const PER_BYTE: usize = 128;
/// Listings that are read from stores at once, or one of each tenant if there are more: the size of a listing is known
/// only once it is there.
const LISTINGS: usize = 4;
/// The unit of reservations in bytes.
const PIECE: usize = 1 << 10;
/// How long a request may wait for memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// The budget of all requests.
pub(super) struct MemoryBudget {
    requests: Arc<Semaphore>,
    large: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// Permits to read the listings of one tenant.
pub(super) struct ListingPermits(Semaphore);

impl ListingPermits {
    /// The permits of one of so many tenants.
    pub(super) fn shared(tenants: usize) -> Self {
        Self(Semaphore::new((LISTINGS / tenants.max(1)).max(1)))
    }

    pub(super) async fn acquire(&self) -> Result<SemaphorePermit<'_>, Full> {
        let permit = tokio::time::timeout(PATIENCE, self.0.acquire()).await;
        permit.ok().and_then(Result::ok).ok_or(Full::Now)
    }
}

/// Why memory is not reserved.
#[derive(Debug)]
pub(super) enum Full {
    /// It is more than the whole budget.
    Never,
    /// Others have reserved it.
    Now,
}

impl MemoryBudget {
    pub(super) fn new() -> Self {
        let new = |count| Arc::new(Semaphore::new(count));
        Self { requests: new(REQUESTS / PIECE), large: new(1), answers: new(ANSWERS / PIECE) }
    }

    /// Reserves memory for a request of `bytes`, 1 MiB at most, until the result is dropped; `None` if others have it for
    /// too long.
    pub(super) async fn reserve_request(&self, bytes: usize) -> Option<impl Send> {
        let (requests, large) = (self.requests.clone(), self.large.clone());
        let enter = async move {
            let alone = if bytes > SMALL_REQUEST { Some(large.acquire_owned().await.ok()?) } else { None };
            Some((requests.acquire_many_owned(pieces(bytes * PER_BYTE)).await.ok()?, alone))
        };
        tokio::time::timeout(PATIENCE, enter).await.ok()?
    }

    /// The reservation of an answer, of no bytes as yet.
    pub(super) fn reserve_answer(&self) -> Reservation {
        Reservation { reserved: Mutex::new((0, None)), answers: self.answers.clone() }
    }
}

/// The memory reserved for one answer.
pub(super) struct Reservation {
    /// Bytes, and the permits for them if they are not few.
    reserved: Mutex<(usize, Option<OwnedSemaphorePermit>)>,
    answers: Arc<Semaphore>,
}

impl Reservation {
    /// Reserves `more` bytes.
    pub(super) fn grow(&self, more: usize) -> Result<(), Full> {
        let mut reserved = self.reserved.lock();
        let (bytes, permit) = &mut *reserved;
        let now = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        *bytes += more;
        if *bytes <= SMALL_ANSWER {
            return Ok(());
        }
        if *bytes > ANSWERS {
            return Err(Full::Never);
        }
        let missing = pieces(*bytes) - now as u32;
        let taken = self.answers.clone().try_acquire_many_owned(missing).map_err(|_| Full::Now)?;
        match permit {
            Some(permit) => permit.merge(taken),
            None => *permit = Some(taken),
        }
        Ok(())
    }

    /// Releases all but `bytes`, which are left to be sent.
    pub(super) fn shrink(&self, bytes: usize) {
        if let Some(permit) = &mut self.reserved.lock().1 {
            let excess = permit.num_permits().saturating_sub(pieces(bytes) as usize);
            drop(permit.split(excess));
        }
    }
}

fn pieces(bytes: usize) -> u32 {
    bytes.div_ceil(PIECE) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_answers_are_admitted_whatever_large_ones_have_reserved() {
        let budget = MemoryBudget::new();
        let large = budget.reserve_answer();
        large.grow(ANSWERS).unwrap();
        assert!(matches!(large.grow(1), Err(Full::Never)));
        assert!(budget.reserve_answer().grow(SMALL_ANSWER).is_ok());
        assert!(matches!(budget.reserve_answer().grow(SMALL_ANSWER + 1), Err(Full::Now)));
        large.shrink(ANSWERS / 2);
        let other = budget.reserve_answer();
        for _ in 0..8 {
            other.grow(ANSWERS / 16).unwrap();
        }
        assert!(matches!(other.grow(1), Err(Full::Now)));
        drop(large);
        other.grow(ANSWERS / 2).unwrap_err();
        assert!(budget.reserve_answer().grow(ANSWERS / 4).is_ok());
    }
}
