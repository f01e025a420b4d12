//! The deadline of a caller: all calls and waits on its behalf share it.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Error, Result};

tokio::task_local! {
    static CURRENT: Deadline;
}

/// The time by which a caller must have its answer. Work within its [`Deadline::scope`] observes it; a task that is spawned
/// there does not inherit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// A deadline `timeout` from now.
    pub fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        Self { at: now.checked_add(timeout).unwrap_or(now + FAR), timeout }
    }

    /// The deadline of the scope that this task is in.
    pub fn current() -> Option<Self> {
        CURRENT.try_get().ok()
    }

    /// Runs `work` with this deadline, which is observed, not enforced: each wait in it ends by itself.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// As [`Deadline::scope`], for synchronous `work`.
    pub(super) fn enter<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }

    /// Runs `work` with the current timeout begun anew, after a wait that had no deadline.
    pub async fn renew<F: Future>(work: F) -> F::Output {
        match Self::current() {
            Some(deadline) => Self::after(deadline.timeout).scope(work).await,
            None => work.await,
        }
    }

    /// The time left until the current deadline, at most `most`; `most` without a deadline.
    pub fn left(most: Duration) -> Duration {
        Self::current().map_or(most, |deadline| deadline.time_left().min(most))
    }

    /// How long a call that may take `most` waits for a turn, a lock or a better answer. The rest is reserved for its refusal:
    /// one that came after the deadline would be taken for a change with an unknown outcome.
    pub(super) fn patience(most: Duration) -> Duration {
        Self::left(most) * 3 / 4
    }

    /// Waits for `turn` until the current deadline. Nothing has been sent to the store before that: [`Error::Expired`].
    pub async fn wait<T>(turn: impl Future<Output = T>) -> Result<T> {
        match Self::current() {
            Some(deadline) => timeout_at(deadline.at, turn).await.map_err(|_| deadline.expired()),
            None => Ok(turn.await),
        }
    }

    /// Waits for `turn` as long as [`Deadline::patience`] allows, so that the store can still be asked.
    pub(super) async fn wait_to_ask<T>(timeout: Duration, turn: impl Future<Output = T>) -> Result<T> {
        let expired = |_| Self::current().unwrap_or_else(|| Self::after(timeout)).expired();
        tokio::time::timeout(Self::patience(timeout), turn).await.map_err(expired)
    }

    /// The result of `call`, or [`Error::TimedOut`] at this deadline.
    pub async fn bound<T>(self, call: impl Future<Output = Result<T>>) -> Result<T> {
        timeout_at(self.at, call).await.unwrap_or_else(|_| Err(Error::TimedOut(self.timeout.as_millis())))
    }

    pub(super) fn time_left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Fails if this deadline has passed.
    pub(super) fn check(self) -> Result<()> {
        if self.time_left().is_zero() { Err(self.expired()) } else { Ok(()) }
    }

    fn expired(self) -> Error {
        Error::Expired(self.timeout.as_millis())
    }
}

/// Stands for a timeout that no clock can hold.
const FAR: Duration = Duration::from_hours(24 * 365);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn all_that_is_done_in_a_scope_shares_one_deadline() {
        assert_eq!((Deadline::current(), Deadline::left(SECOND)), (None, SECOND));
        let work = async {
            tokio::time::sleep(SECOND).await;
            assert_eq!((Deadline::left(9 * SECOND), Deadline::left(SECOND)), (3 * SECOND, SECOND));
            assert_eq!(Deadline::patience(9 * SECOND), 3 * SECOND * 3 / 4);
            assert_eq!(Deadline::renew(async { Deadline::left(9 * SECOND) }).await, 4 * SECOND);
            let began = Instant::now();
            assert_eq!(Deadline::wait(std::future::pending::<()>()).await, Err(Error::Expired(4_000)));
            assert_eq!(began.elapsed(), 3 * SECOND);
            // Who does not have to wait is not held up.
            assert_eq!(Deadline::wait(std::future::ready(())).await, Ok(()));
            assert_eq!(tokio::spawn(async { Deadline::current() }).await.unwrap(), None);
        };
        Deadline::after(4 * SECOND).scope(work).await;
        assert_eq!(Deadline::after(Duration::MAX).timeout, Duration::MAX);
    }
}
