//! A fetch in flight, shared by all who wait for the same answer (singleflight).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::OnceCell;

use crate::store::{Deadline, Result};

/// A fetch in flight: all callers that ask for the same wait for the same answer, each until its own deadline.
pub(super) struct InFlight<T> {
    answer: OnceCell<Result<T>>,
    /// What is asked for changed meanwhile: the answer may be from before and is not remembered.
    pub(super) invalidated: AtomicBool,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self { answer: OnceCell::new(), invalidated: AtomicBool::new(false) }
    }
}

impl<T: Clone> InFlight<T> {
    /// The answer, by `fetch` if nobody fetches yet. If the caller that fetches times out, one that has time left fetches anew: a
    /// timeout is not an answer for the others.
    pub(super) async fn answer(&self, fetch: impl Future<Output = Result<T>>) -> Result<T> {
        let fetch = async {
            match fetch.await {
                Err(late) if late.is_late() => Err(late),
                answer => Ok(answer),
            }
        };
        let answer = async { self.answer.get_or_try_init(|| fetch).await?.clone() };
        match Deadline::current() {
            Some(deadline) => deadline.bound(answer).await,
            None => answer.await,
        }
    }
}

/// Whether other callers wait for `in_flight`: the cache and this caller have one reference each.
pub(super) fn is_shared<T>(in_flight: &Arc<T>) -> bool {
    Arc::strong_count(in_flight) > 2
}
