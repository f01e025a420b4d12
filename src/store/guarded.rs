//! Deadlines, and a store known to be down or busy: a store that never hangs is itself a store.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::full::{Full, RETRY_AFTER};
use super::{
    Attributes, Deadline, Down, Entry, Error, Expect, Feed, Given, Key, Limits, Listing, Meta, Prefixes,
    Rename, Result, Revision, Space, Store, Text,
};
use crate::logging::LIFE;

/// A store whose calls all end by the deadline of their caller, and that fails at once while the store behind it is down or
/// busy.
pub struct Guarded {
    inner: Arc<dyn Store>,
    timeout: Duration,
    reads: Circuit,
    writes: Circuit,
    full: Full,
}

/// A call of the store behind.
type Call<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Since when calls have failed, and why; nothing while the store answers.
#[derive(Default)]
struct Circuit {
    down: Mutex<Option<(Instant, Error)>>,
    since: Mutex<Option<Instant>>,
    answered: Mutex<Option<Instant>>,
}

impl Circuit {
    /// Refuses while the store is known to be down; lets one caller through every [`RETRY_AFTER`].
    fn admit(&self) -> Result<()> {
        let mut down = self.down.lock();
        if let Some(error) = refusal(down.as_ref()) {
            return Err(error);
        }
        if let Some((tried, _)) = &mut *down {
            *tried = Instant::now();
        }
        Ok(())
    }

    /// As [`Circuit::admit`], without being let through.
    fn refusal(&self) -> Option<Error> {
        refusal(self.down.lock().as_ref())
    }

    /// A call that began at `since` failed. If the store answered another one meanwhile it is not down. Returns whether that is
    /// new.
    fn open(&self, since: Instant, error: &Error) -> bool {
        if self.answered.lock().is_some_and(|answered| answered >= since) {
            return false;
        }
        self.since.lock().get_or_insert(since);
        self.down.lock().replace((Instant::now(), error.clone())).is_none()
    }

    /// Returns for how long calls had failed.
    fn close(&self) -> Option<Duration> {
        *self.answered.lock() = Some(Instant::now());
        *self.down.lock() = None;
        self.since.lock().take().map(|since| since.elapsed())
    }

    fn down(&self) -> Option<Down> {
        let (tried, why) = self.down.lock().clone()?;
        let since = (*self.since.lock())?;
        Some(Down { since, answered: *self.answered.lock(), tried, why })
    }
}

fn refusal(down: Option<&(Instant, Error)>) -> Option<Error> {
    let (_, error) = down.filter(|(tried, _)| tried.elapsed() < RETRY_AFTER)?;
    Some(match error {
        Error::Busy(_) => error.clone(),
        error => Error::Unreachable(format!("it is down ({error})")),
    })
}

impl Guarded {
    /// Wraps `inner`; every call ends by the current deadline, or within `timeout` without one.
    pub fn new(inner: Arc<dyn Store>, timeout: Duration) -> Self {
        Self { inner, timeout, reads: Circuit::default(), writes: Circuit::default(), full: Full::default() }
    }

    /// The deadline of a call that begins now, and whether a timeout would be evidence that the store is down: a call that gets
    /// the rest of its caller's time may time out although the store is well.
    fn deadline(&self) -> Result<(Deadline, bool)> {
        let deadline = Deadline::current().unwrap_or_else(|| Deadline::after(self.timeout));
        deadline.check()?;
        Ok((deadline, deadline.time_left() >= self.timeout * 3 / 4))
    }

    /// The result of `call`, by `deadline`.
    async fn answer<T: Send + 'static>(&self, deadline: Deadline, mut call: Call<T>) -> Result<T> {
        // A store that answers from memory needs no task; one that has to wait goes on in its own.
        let first = deadline.enter(|| call.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        if let Poll::Ready(result) = first {
            return result;
        }
        let (reply, answer) = oneshot::channel();
        tokio::spawn(deadline.scope(carry_out(call, reply)));
        let failed = |_| Err(Error::Other("the store failed; see the log".into()));
        deadline.bound(async { answer.await.unwrap_or_else(failed) }).await
    }

    async fn read<T: Send + 'static>(&self, call: Call<T>) -> Result<T> {
        let (deadline, is_evidence) = self.deadline()?;
        self.reads.admit()?;
        let since = Instant::now();
        // A read changes nothing.
        let result = self.answer(deadline, call).await.map_err(|error| error.reason().clone());
        match &result {
            Err(Error::TimedOut(_)) if !is_evidence => {}
            Err(Error::Expired(_)) => {}
            Err(error @ (Error::TimedOut(_) | Error::Unreachable(_))) => self.fails(since, error),
            Err(error @ Error::Busy(_)) => {
                self.reads.open(since, error);
            }
            _ => self.answers(),
        }
        result
    }

    fn fails(&self, since: Instant, error: &Error) {
        self.writes.open(since, error);
        // Before its first answer a start fails, and says why.
        if self.reads.open(since, error) && self.answered().is_some() {
            warn!("the store does not answer: {error}");
        }
    }

    fn answers(&self) {
        if let Some(time) = self.reads.close() {
            info!(target: LIFE, "the store answers again, after {} s", time.as_secs());
        }
    }

    /// A write that times out or is refused as busy may wait for a lock that reads do not need: it says nothing about them.
    async fn write<T: Send + 'static>(&self, call: Call<T>) -> Result<T> {
        let (deadline, is_evidence) = self.deadline()?;
        self.writes.admit()?;
        let since = Instant::now();
        let result = self.answer(deadline, call).await;
        match result.as_ref().map_err(Error::reason) {
            // Busy concerns all keys: another process locks the whole database, a 429 counts all requests of a client, a 503 is
            // about the server. A conflict about one key is `Contended`.
            Err(error @ (Error::TimedOut(_) | Error::Busy(_))) if is_evidence => {
                if self.writes.open(since, error) && self.answered().is_some() {
                    warn!("the store takes no changes: {error}");
                }
            }
            Err(Error::TimedOut(_) | Error::Busy(_) | Error::Expired(_)) => {}
            Err(error @ Error::Unreachable(_)) => self.fails(since, error),
            _ => {
                self.answers();
                if let Some(time) = self.writes.close() {
                    info!(target: LIFE, "the store takes changes again, after {} s", time.as_secs());
                }
            }
        }
        result
    }
}

fn is_busy(down: &Down) -> bool {
    matches!(down.why, Error::Busy(_))
}

/// Carries `call` out in a task of its own, so that the deadline holds even while the call blocks its thread. Ends it
/// where it next waits once the caller has given up.
async fn carry_out<T>(call: Call<T>, mut reply: oneshot::Sender<Result<T>>) {
    tokio::select! {
        biased;
        result = call => drop(reply.send(result)),
        () = reply.closed() => {}
    }
}

#[async_trait]
impl Store for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn takes_ids(&self) -> bool {
        self.inner.takes_ids()
    }

    fn keeps_attributes(&self) -> bool {
        self.inner.keeps_attributes()
    }

    fn check(&self, key: &Key, text: &[u8]) -> Result<()> {
        self.inner.check(key, text)
    }

    fn outage(&self) -> Option<Error> {
        self.writes.refusal().or_else(|| self.full.refusal(Expect::Absent, || self.inner.space()))
    }

    fn read_only(&self) -> Option<String> {
        self.inner.read_only()
    }

    fn space(&self) -> Option<Space> {
        self.inner.space()
    }

    fn down(&self) -> Option<Down> {
        let answered = *self.reads.answered.lock();
        // One that is read is not down, though a write of it may wait for a lock.
        let unanswered = |down: &Down| answered.is_none_or(|answered| answered < down.since);
        let late = |down: &Down| unanswered(down) && !is_busy(down);
        self.reads.down().or_else(|| self.writes.down().filter(late))
    }

    fn answered(&self) -> Option<Instant> {
        (*self.reads.answered.lock()).max(*self.writes.answered.lock())
    }

    fn busy(&self) -> Option<Down> {
        self.writes.down().filter(is_busy)
    }

    async fn list_keys(&self) -> Result<Listing> {
        let inner = self.inner.clone();
        self.read(Box::pin(async move { inner.list_keys().await })).await
    }

    async fn list_entries(&self) -> Result<(Listing, Vec<Text>)> {
        let inner = self.inner.clone();
        self.read(Box::pin(async move { inner.list_entries().await })).await
    }

    async fn get_key_value(&self, key: &Key) -> Result<Entry> {
        let (inner, key) = (self.inner.clone(), key.clone());
        self.read(Box::pin(async move { inner.get_key_value(&key).await })).await
    }

    async fn set_key_value(&self, key: &Key, text: Text, expect: Expect) -> Result<Meta> {
        let (inner, key) = (self.inner.clone(), key.clone());
        self.deadline()?;
        self.full.admit(expect, || self.inner.space())?;
        let set = self.write(Box::pin(async move { inner.set_key_value(&key, text, expect).await })).await;
        match &set {
            Ok(_) => self.full.took(expect),
            Err(error) => self.full.note(error, self.inner.space()),
        }
        set
    }

    async fn delete_key(&self, key: &Key, expect: Expect) -> Result<Revision> {
        let (inner, key) = (self.inner.clone(), key.clone());
        let deleted = self.write(Box::pin(async move { inner.delete_key(&key, expect).await })).await;
        if deleted.is_ok() {
            self.full.clear();
        }
        deleted
    }

    async fn rename_key(&self, from: &Key, to: &Key, at: Expect, expect: Expect) -> Result<Meta> {
        let (inner, from, to) = (self.inner.clone(), from.clone(), to.clone());
        self.write(Box::pin(async move { inner.rename_key(&from, &to, at, expect).await })).await
    }

    async fn rename_keys(&self, renames: &[Rename]) -> Result<Vec<Meta>> {
        let (inner, renames) = (self.inner.clone(), renames.to_vec());
        self.write(Box::pin(async move { inner.rename_keys(&renames).await })).await
    }

    async fn set_attributes(&self, key: &Key, changes: &Attributes) -> Result<Meta> {
        let (inner, key, changes) = (self.inner.clone(), key.clone(), changes.clone());
        self.write(Box::pin(async move { inner.set_attributes(&key, &changes).await })).await
    }

    async fn list_prefixes(&self) -> Result<Prefixes> {
        let inner = self.inner.clone();
        self.read(Box::pin(async move { inner.list_prefixes().await })).await
    }

    async fn set_prefix(&self, prefix: &Key, given: &Given) -> Result<Option<Arc<Attributes>>> {
        let (inner, prefix, given) = (self.inner.clone(), prefix.clone(), given.clone());
        self.write(Box::pin(async move { inner.set_prefix(&prefix, &given).await })).await
    }

    async fn get_tags(&self, key: &Key) -> Result<Vec<String>> {
        let (inner, key) = (self.inner.clone(), key.clone());
        self.read(Box::pin(async move { inner.get_tags(&key).await })).await
    }

    async fn set_tags(&self, key: &Key, tags: &[String]) -> Result<()> {
        let (inner, key, tags) = (self.inner.clone(), key.clone(), tags.to_vec());
        self.write(Box::pin(async move { inner.set_tags(&key, &tags).await })).await
    }

    async fn get_ttl(&self, key: &Key) -> Result<Option<Duration>> {
        let (inner, key) = (self.inner.clone(), key.clone());
        self.read(Box::pin(async move { inner.get_ttl(&key).await })).await
    }

    async fn count_left_out(&self, start: &Key) -> Result<usize> {
        let (inner, start) = (self.inner.clone(), start.clone());
        self.read(Box::pin(async move { inner.count_left_out(&start).await })).await
    }

    fn take_pushed_value(&self, key: &Key, revision: Revision) -> Option<Text> {
        self.inner.take_pushed_value(key, revision)
    }

    fn changes(&self) -> Option<Feed> {
        self.inner.changes()
    }

    async fn renew_credentials(&self) {
        self.inner.renew_credentials().await;
    }

    fn close(&self) {
        self.inner.close();
    }
}
