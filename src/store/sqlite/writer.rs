//! The writer: commits the queue as one transaction, and answers only after the commit.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::open_files::Link;
use super::pool::Pool;
use super::{blocking, index, leave_thread, schema, space, watcher};
use crate::store::{Deadline, Error, Result};
use crate::sys;

/// Most changes in one transaction: with more a caller would wait for the work of too many others.
const BATCH: usize = 256;

/// One queued change. It can be carried out again after a transaction that failed.
trait Job: Send {
    /// Whether its caller has given up at its deadline.
    fn given_up(&self) -> bool;
    /// Whether the database may need more space after it.
    fn takes_room(&self) -> bool;
    /// Applies it to the transaction. Fails for errors of the database, not for those about the key.
    fn carry_out(&mut self, db: &Transaction<'_>) -> Result<()>;
    /// Answers its caller. False if that has given up at its deadline.
    fn answer(self: Box<Self>, committed: Result<()>) -> bool;
}

struct Asked<T, F> {
    change: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    takes_room: bool,
}

impl<T: Send, F: Fn(&Transaction<'_>) -> Result<T> + Send> Job for Asked<T, F> {
    fn given_up(&self) -> bool {
        self.reply.is_closed()
    }

    fn takes_room(&self) -> bool {
        self.takes_room
    }

    fn carry_out(&mut self, db: &Transaction<'_>) -> Result<()> {
        let outcome = (self.change)(db);
        let broken = outcome.as_ref().err().filter(|error| breaks_the_batch(error)).cloned();
        self.outcome = Some(outcome);
        broken.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, committed: Result<()>) -> bool {
        let Self { outcome, reply, .. } = *self;
        reply.send(committed.and_then(|()| outcome.unwrap_or_else(|| Err(forgotten())))).is_ok()
    }
}

/// An error of the database, unlike one about the key, may have left the transaction half done.
fn breaks_the_batch(error: &Error) -> bool {
    !matches!(error, Error::NotFound | Error::Exists | Error::Changed | Error::Damaged(_))
}

/// A job, and its deadline for its turn and for a lock that another process holds.
struct Queued {
    job: Box<dyn Job>,
    until: Instant,
    number: u64,
}

/// The jobs that nobody carries out yet.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Queued>,
    /// Of the last one.
    number: u64,
}

impl Queue {
    /// Puts `job` at the end; its number.
    fn add(&mut self, job: Box<dyn Job>, until: Instant) -> u64 {
        self.number += 1;
        self.jobs.push_back(Queued { job, until, number: self.number });
        self.number
    }

    /// Takes a job back; false if it is being carried out.
    fn withdraw(&mut self, number: u64) -> bool {
        let position = self.jobs.iter().position(|queued| queued.number == number);
        position.and_then(|position| self.jobs.remove(position)).is_some()
    }
}

/// The queue of changes and the connection that commits them.
///
/// The caller that gets the writer connection commits the whole queue (group commit): no thread of its own has to be woken,
/// which would cost more than a small commit.
pub(super) struct Writer {
    pool: Arc<Pool>,
    timeout: Duration,
    queue: Mutex<Queue>,
}

impl Writer {
    pub(super) fn new(pool: Arc<Pool>, timeout: Duration) -> Self {
        Self { pool, timeout, queue: Mutex::default() }
    }

    /// Queues a change and returns after its commit. One that takes no room may use the reserved space. A change that does not
    /// get its turn in time is withdrawn: nothing was changed.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        takes_room: bool,
        change: impl Fn(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, mut answer) = oneshot::channel();
        let patience = Deadline::patience(self.timeout);
        let job = Box::new(Asked { change, outcome: None, reply, takes_room });
        let number = self.queue.lock().add(job, Instant::now() + patience);
        let mut over = pin!(tokio::time::sleep(patience));
        leave_thread().await;
        loop {
            tokio::select! {
                biased;
                result = &mut answer => return result.unwrap_or_else(|_| Err(forgotten())),
                mut connection = self.pool.writing.lock() => blocking(|| self.lead(&mut connection)),
                () = &mut over, if !over.is_elapsed() => {
                    if self.queue.lock().withdraw(number) {
                        return Err(Error::Busy("the changes before it take too long".into()));
                    }
                }
            }
        }
    }

    /// Commits the queue, up to [`BATCH`] changes, as one transaction.
    fn lead(&self, connection: &mut Option<Link>) {
        let jobs: Vec<Queued> = {
            let jobs = &mut self.queue.lock().jobs;
            let batch = jobs.len().min(BATCH);
            jobs.drain(..batch).collect()
        };
        self.commit(connection, jobs);
    }

    /// Commits `jobs` as one transaction, or one by one where there is no space for all.
    fn commit(&self, connection: &mut Option<Link>, mut jobs: Vec<Queued>) {
        let Some(until) = jobs.iter().map(|queued| queued.until).min() else { return };
        let linked = match connection.take() {
            Some(db) => self.pool.check(&db).map(|()| db),
            None => self.pool.connect_to_write(),
        };
        let mut db = match linked {
            Ok(db) => db,
            Err(error) => return self.refuse(jobs, &error),
        };
        space::reserve(self.pool.path());
        let mut done = self.attempt(&mut db, until, &mut jobs);
        if matches!(done, Err(Error::NoSpace(_))) {
            space::restart_log(&db);
            done = self.attempt(&mut db, until, &mut jobs);
        }
        if matches!(done, Err(Error::Displaced(_))) {
            // Has the pool drop its other connections to the old files, too.
            _ = self.pool.check(&db);
        }
        // After a failed fsync the page cache may differ from the disk: the connection is dropped, and the next commit starts
        // from the file.
        if matches!(done, Ok(_) | Err(Error::NoSpace(_))) {
            *connection = Some(db);
        }
        match done {
            Ok(own) => self.acknowledge(jobs, &own),
            // A job that takes no room does not fail because of one that does.
            Err(Error::NoSpace(_)) if jobs.len() > 1 => {
                for queued in jobs {
                    self.commit(connection, vec![queued]);
                }
            }
            Err(error) => self.refuse(jobs, &error),
        }
    }

    /// Carries out `jobs` in one transaction and returns their revisions. Nothing is changed if it fails.
    fn attempt(&self, db: &mut Link, until: Instant, jobs: &mut Vec<Queued>) -> Result<RangeInclusive<i64>> {
        let files = db.files();
        let transaction = begin(db, until)?;
        let mended = sys::mapped::mended();
        // A change whose caller has given up is not made.
        jobs.retain(|queued| !queued.job.given_up());
        let before = schema::revision(&transaction)?;
        let takes_room = jobs.iter().any(|queued| queued.job.takes_room());
        let carried_out = jobs
            .iter_mut()
            .try_for_each(|queued| queued.job.carry_out(&transaction))
            .and_then(|()| files.as_ref().map_or(Ok(()), |files| files.check_untouched()))
            .and_then(|()| space::allocate(&transaction, files.as_deref(), self.pool.path(), takes_room))
            .and_then(|()| index::unharmed_since(mended));
        let own = before + 1..=schema::revision(&transaction)?;
        self.pool.note_own(own.clone());
        let committed = match carried_out {
            // A commit to files that the path no longer names is not acknowledged.
            Ok(()) => transaction
                .commit()
                .map_err(Error::from)
                .and_then(|()| self.pool.check(db).map_err(Error::unsure)),
            Err(error) => {
                // Before the lock is released: the next commit, of any process, gets these revisions.
                self.pool.disown(&own);
                return transaction.rollback().map_err(Error::from).and(Err(error));
            }
        };
        if committed.is_err() {
            self.pool.disown(&own);
        }
        committed.map(|()| own)
    }

    /// Answers the callers of committed jobs.
    fn acknowledge(&self, jobs: Vec<Queued>, own: &RangeInclusive<i64>) {
        watcher::announce(self.pool.path());
        let asked = jobs.len();
        // A caller that gave up gets its change from the feed, as one of others.
        let heard = jobs.into_iter().filter_map(|queued| queued.job.answer(Ok(())).then_some(())).count();
        if heard < asked {
            self.pool.disown(own);
            watcher::announce(self.pool.path());
        }
    }

    /// Answers `jobs` with `error`. Jobs with a later deadline than the first to expire may wait for a lock a little longer: they go
    /// back to the head of the queue.
    fn refuse(&self, jobs: Vec<Queued>, error: &Error) {
        let now = Instant::now();
        let over = jobs.iter().map(|queued| queued.until).min().map_or(now, |until| until.max(now));
        let may_wait = |queued: &Queued| matches!(error, Error::Busy(_)) && queued.until > over;
        let (waiting, refused): (Vec<_>, Vec<_>) = jobs.into_iter().partition(may_wait);
        let mut queue = self.queue.lock();
        for queued in waiting.into_iter().rev() {
            queue.jobs.push_front(queued);
        }
        drop(queue);
        for queued in refused {
            queued.job.answer(Err(error.clone()));
        }
    }
}

/// Begins a transaction; waits until `until` for a lock of another process.
fn begin(db: &mut Connection, until: Instant) -> rusqlite::Result<Transaction<'_>> {
    db.busy_timeout(until.saturating_duration_since(Instant::now()))?;
    db.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn forgotten() -> Error {
    Error::Other("the database writer failed; see the log".into())
}
