//! Room in memory for requests and their answers, so that neither many nor large ones use it up. Small ones find some
//! however much the large ones have.

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
/// Room that a byte of a request may need: a list of digits becomes a list of numbers, twice.
const PER_BYTE: usize = 128;
/// Listings that are read from stores at once, or one of each tenant if there are more: what a store gives cannot be
/// counted before it is there.
const LISTINGS: usize = 4;
/// What is counted.
const PIECE: usize = 1 << 10;
/// How long a request may wait for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// The room of all requests.
pub(super) struct Room {
    requests: Arc<Semaphore>,
    large: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// Turns to read the listings of one tenant.
pub(super) struct Turns(Semaphore);

impl Turns {
    /// The turns of one of so many tenants.
    pub(super) fn shared(tenants: usize) -> Self {
        Self(Semaphore::new((LISTINGS / tenants.max(1)).max(1)))
    }

    pub(super) async fn next(&self) -> Result<SemaphorePermit<'_>, Full> {
        let turn = tokio::time::timeout(PATIENCE, self.0.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or(Full::Now)
    }
}

/// Why there is no room.
#[derive(Debug)]
pub(super) enum Full {
    /// There never will be.
    Never,
    /// Others have it.
    Now,
}

impl Room {
    pub(super) fn new() -> Self {
        let new = |count| Arc::new(Semaphore::new(count));
        Self { requests: new(REQUESTS / PIECE), large: new(1), answers: new(ANSWERS / PIECE) }
    }

    /// Room for a request of `bytes`, 1 MiB at most, until what is given back is dropped; `None` if there is none for
    /// too long.
    pub(super) async fn request(&self, bytes: usize) -> Option<impl Send> {
        let (requests, large) = (self.requests.clone(), self.large.clone());
        let enter = async move {
            let turn = if bytes > SMALL_REQUEST { Some(large.acquire_owned().await.ok()?) } else { None };
            Some((requests.acquire_many_owned(pieces(bytes * PER_BYTE)).await.ok()?, turn))
        };
        tokio::time::timeout(PATIENCE, enter).await.ok()?
    }

    /// Room for an answer, none as yet.
    pub(super) fn answer(&self) -> Held {
        Held { room: Mutex::new((0, None)), answers: self.answers.clone() }
    }
}

/// Room that one answer has.
pub(super) struct Held {
    /// Bytes, and the room for them if they are not few.
    room: Mutex<(usize, Option<OwnedSemaphorePermit>)>,
    answers: Arc<Semaphore>,
}

impl Held {
    /// Takes room for `more` bytes.
    pub(super) fn take(&self, more: usize) -> Result<(), Full> {
        let mut held = self.room.lock();
        let (bytes, permit) = &mut *held;
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

    /// Gives back all but the room for `bytes`, which are what is left to be sent.
    pub(super) fn shrink(&self, bytes: usize) {
        if let Some(permit) = &mut self.room.lock().1 {
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
    fn small_answers_find_room_whatever_large_ones_have() {
        let room = Room::new();
        let large = room.answer();
        large.take(ANSWERS).unwrap();
        assert!(matches!(large.take(1), Err(Full::Never)));
        assert!(room.answer().take(SMALL_ANSWER).is_ok());
        assert!(matches!(room.answer().take(SMALL_ANSWER + 1), Err(Full::Now)));
        large.shrink(ANSWERS / 2);
        let other = room.answer();
        for _ in 0..8 {
            other.take(ANSWERS / 16).unwrap();
        }
        assert!(matches!(other.take(1), Err(Full::Now)));
        drop(large);
        other.take(ANSWERS / 2).unwrap_err();
        assert!(room.answer().take(ANSWERS / 4).is_ok());
    }
}
