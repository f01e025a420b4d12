//! Writing: commits what is queued as one transaction, and answers only after the commit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::pool::Pool;
use super::{blocking, leave_thread, schema, watcher};
use crate::store::{Error, Expect, Key, Meta, Rename, Result, Revision, Text};

/// More would make one caller wait for the work of too many others.
const BATCH: usize = 256;

type Reply<T> = oneshot::Sender<Result<T>>;

/// One change asked for.
pub(super) enum Job {
    Set { key: Key, text: Text, expect: Expect, reply: Reply<Meta> },
    Delete { key: Key, expect: Expect, reply: Reply<Revision> },
    Rename { from: Key, to: Key, at: Expect, expect: Expect, reply: Reply<Meta> },
    RenameAll { renames: Vec<Rename>, reply: Reply<Vec<Meta>> },
}

impl Job {
    fn refuse(self, error: &Error) {
        match self {
            Self::Set { reply, .. } | Self::Rename { reply, .. } => _ = reply.send(Err(error.clone())),
            Self::Delete { reply, .. } => _ = reply.send(Err(error.clone())),
            Self::RenameAll { reply, .. } => _ = reply.send(Err(error.clone())),
        }
    }
}

/// A job, and until when it may wait for a lock that another process holds.
struct Queued {
    job: Job,
    until: Instant,
}

/// What a job came to, to be told after the commit.
enum Outcome {
    Meta(Reply<Meta>, Result<Meta>),
    Metas(Reply<Vec<Meta>>, Result<Vec<Meta>>),
    Revision(Reply<Revision>, Result<Revision>),
}

impl Outcome {
    /// False if the receiver is gone: it gave up at its deadline.
    fn tell(self, committed: &Result<()>) -> bool {
        match self {
            Self::Meta(reply, result) => reply.send(committed.clone().and(result)).is_ok(),
            Self::Metas(reply, result) => reply.send(committed.clone().and(result)).is_ok(),
            Self::Revision(reply, result) => reply.send(committed.clone().and(result)).is_ok(),
        }
    }
}

/// The queue of changes and the connection that commits them.
///
/// Who finds the connection free commits for all who queue (a leader and its followers): no thread of its own has
/// to be woken, which would cost more than a small commit.
pub(super) struct Writer {
    pool: Arc<Pool>,
    queue: Mutex<VecDeque<Queued>>,
    connection: tokio::sync::Mutex<Option<Connection>>,
}

impl Writer {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, queue: Mutex::default(), connection: tokio::sync::Mutex::default() }
    }

    /// Queues a job and returns after its commit.
    pub(super) async fn run<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T> {
        let (reply, mut answer) = oneshot::channel();
        let until = Instant::now() + self.pool.busy();
        self.queue.lock().push_back(Queued { job: job(reply), until });
        leave_thread().await;
        loop {
            tokio::select! {
                biased;
                result = &mut answer => return result.unwrap_or_else(|_| Err(forgotten())),
                mut connection = self.connection.lock() => blocking(|| self.lead(&mut connection)),
            }
        }
    }

    /// Commits what is queued as one transaction.
    fn lead(&self, connection: &mut Option<Connection>) {
        let jobs: Vec<Queued> = {
            let mut queue = self.queue.lock();
            let batch = queue.len().min(BATCH);
            queue.drain(..batch).collect()
        };
        if jobs.is_empty() {
            return;
        }
        match connection.take().map_or_else(|| self.pool.connect(), Ok) {
            // After a failed write or fsync the pages in memory may not be what is on the disk: the connection is
            // dropped, and the next commit starts from the file.
            Ok(db) => *connection = self.commit(db, jobs),
            Err(error) => self.refuse(jobs, &error),
        }
    }

    /// Carries out `jobs` in one transaction. Returns the connection unless the commit failed.
    fn commit(&self, mut db: Connection, jobs: Vec<Queued>) -> Option<Connection> {
        let transaction = match begin(&mut db, jobs.first()?.until) {
            Ok(transaction) => transaction,
            Err(error) => {
                self.refuse(jobs, &error.into());
                return None;
            }
        };
        let before = schema::revision(&transaction);
        let outcomes: Vec<Outcome> =
            jobs.into_iter().filter_map(|queued| carry_out(&transaction, queued.job)).collect();
        let own = before.and_then(|before| Ok(before + 1..=schema::revision(&transaction)?)).ok();
        if let Some(own) = &own {
            self.pool.note_own(own.clone());
        }
        let asked = outcomes.len();
        let broken = outcomes.iter().find_map(Outcome::breaks_the_batch);
        if let (Some(_), Some(own)) = (&broken, &own) {
            // Before the lock is released: the next to commit gets these revisions, whoever it is.
            self.pool.disown(own);
        }
        let committed = match broken {
            Some(error) => transaction.rollback().map_err(Error::from).and(Err(error)),
            None => transaction.commit().map_err(Error::from),
        };
        if committed.is_ok() {
            watcher::announce(self.pool.path());
        }
        // Who gave up hears of its change from the feed, like anybody else.
        let heard = outcomes.into_iter().filter_map(|outcome| outcome.tell(&committed).then_some(())).count()
            == asked;
        if let (true, Some(own)) = (committed.is_err() || !heard, &own) {
            self.pool.disown(own);
            if committed.is_ok() {
                watcher::announce(self.pool.path());
            }
        }
        committed.is_ok().then_some(db)
    }

    /// Who came later than the first may wait for a lock a little longer, and goes back to the head of the queue.
    fn refuse(&self, jobs: Vec<Queued>, error: &Error) {
        let now = Instant::now();
        let over = jobs.first().map_or(now, |first| first.until.max(now));
        let may_wait = |queued: &Queued| matches!(error, Error::Busy(_)) && queued.until > over;
        let (waiting, refused): (Vec<_>, Vec<_>) = jobs.into_iter().partition(may_wait);
        let mut queue = self.queue.lock();
        for queued in waiting.into_iter().rev() {
            queue.push_front(queued);
        }
        drop(queue);
        for queued in refused {
            queued.job.refuse(error);
        }
    }
}

/// Begins a transaction; a lock that another process holds is waited for until `until`.
fn begin(db: &mut Connection, until: Instant) -> rusqlite::Result<Transaction<'_>> {
    db.busy_timeout(until.saturating_duration_since(Instant::now()))?;
    db.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn forgotten() -> Error {
    Error::Other("the database writer failed; see the log".into())
}

impl Outcome {
    /// An error of the database, unlike one about the key, may have left the transaction half done.
    fn breaks_the_batch(&self) -> Option<Error> {
        let (Self::Meta(_, Err(error)) | Self::Metas(_, Err(error)) | Self::Revision(_, Err(error))) = self
        else {
            return None;
        };
        (!matches!(error, Error::NotFound | Error::Exists | Error::Changed | Error::Damaged(_)))
            .then(|| error.clone())
    }
}

/// Runs one job, unless its caller has given up: then nothing is changed behind its back.
fn carry_out(db: &Transaction<'_>, job: Job) -> Option<Outcome> {
    match job {
        Job::Set { reply, .. } | Job::Rename { reply, .. } if reply.is_closed() => None,
        Job::Delete { reply, .. } if reply.is_closed() => None,
        Job::RenameAll { reply, .. } if reply.is_closed() => None,
        Job::Set { key, text, expect, reply } => {
            Some(Outcome::Meta(reply, schema::set(db, &key, &text, expect)))
        }
        Job::Delete { key, expect, reply } => {
            Some(Outcome::Revision(reply, schema::delete(db, &key, expect)))
        }
        Job::Rename { from, to, at, expect, reply } => {
            Some(Outcome::Meta(reply, schema::rename(db, &from, &to, at, expect)))
        }
        Job::RenameAll { renames, reply } => Some(Outcome::Metas(reply, schema::rename_all(db, &renames))),
    }
}
