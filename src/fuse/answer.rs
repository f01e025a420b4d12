//! Answers: from memory at once on fuser's thread, else on the runtime. A handler that panics answers EIO.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fuser::{Errno, INodeNo};
use tokio::runtime::Handle;

use super::errno::errno;
use super::messages::{Messages, Op};
use crate::fs::document::Fault;
use crate::fs::{Fs, FsError, FsResult, Ino};

/// What a message is about, named only if something goes wrong.
pub(super) enum Subject {
    Name(String),
    In(INodeNo, String),
    Ino(INodeNo),
}

impl From<&str> for Subject {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for Subject {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl From<(INodeNo, String)> for Subject {
    fn from((parent, name): (INodeNo, String)) -> Self {
        Self::In(parent, name)
    }
}

impl From<INodeNo> for Subject {
    fn from(ino: INodeNo) -> Self {
        Self::Ino(ino)
    }
}

/// What work comes to at first.
pub(super) enum Step<T, W> {
    Done(T),
    /// It goes on with this.
    Wait(W),
}

pub(super) struct Answers {
    fs: Arc<Fs>,
    runtime: Handle,
    messages: Arc<Messages>,
}

impl Answers {
    pub(super) fn new(fs: Arc<Fs>, runtime: Handle, messages: Arc<Messages>) -> Self {
        Self { fs, runtime, messages }
    }

    pub(super) fn count(&self, op: Op) {
        self.messages.add(op);
    }

    /// Answers `op` with what `work` comes to by the deadline of the message, which begins now. A reply that is dropped
    /// unanswered, by a panic, says EIO (fuser).
    pub(super) fn give<T: Send + 'static>(
        &self,
        op: Op,
        subject: impl Into<Subject>,
        work: impl Future<Output = FsResult<T>> + Send + 'static,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        self.count(op);
        let (fs, subject, deadline) = (self.fs.clone(), subject.into(), self.fs.deadline());
        let mut task = Box::pin(deadline.scope(async move {
            let result = work.await;
            reply(result.map_err(|error| report(&fs, op, &subject, &error)));
        }));
        let _runtime = self.runtime.enter();
        // The first poll is all it takes where nothing has to be waited for; a hand-over to another thread would
        // double the cost of the message.
        let first =
            catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
        match first {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => drop(self.runtime.spawn(task)),
            Err(_) => tracing::error!("{} failed by a panic; please report it", op.name()),
        }
    }

    /// As [`Answers::give`], for work that waits for nothing.
    pub(super) fn now<T>(
        &self,
        op: Op,
        subject: impl Into<Subject>,
        work: impl FnOnce() -> FsResult<T>,
        reply: impl FnOnce(Result<T, Errno>),
    ) {
        self.fill(op, || reply(work().map_err(|error| report(&self.fs, op, &subject.into(), &error))));
    }

    /// As [`Answers::now`], for work of which it shows only then whether there is something to wait for.
    pub(super) fn now_or_give<T: Send + 'static, W: Future<Output = FsResult<T>> + Send + 'static>(
        &self,
        op: Op,
        subject: impl Into<Subject>,
        begin: impl FnOnce() -> FsResult<Step<T, W>>,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        match catch_unwind(AssertUnwindSafe(begin)) {
            Ok(Ok(Step::Wait(work))) => self.give(op, subject, work, reply),
            Ok(Ok(Step::Done(value))) => self.now(op, subject, || Ok(value), reply),
            Ok(Err(error)) => self.now(op, subject, || Err(error), reply),
            Err(_) => tracing::error!("{} failed by a panic; please report it", op.name()),
        }
    }

    /// As [`Answers::now`], for an answer that is made piece by piece.
    pub(super) fn fill(&self, op: Op, fill: impl FnOnce()) {
        self.count(op);
        let _runtime = self.runtime.enter();
        if catch_unwind(AssertUnwindSafe(fill)).is_err() {
            tracing::error!("{} failed by a panic; please report it", op.name());
        }
    }

    /// The answer to what a directory of keys cannot hold.
    pub(super) fn refuse(&self, op: Op, parent: INodeNo, name: &std::ffi::OsStr) -> Errno {
        self.count(op);
        report(&self.fs, op, &(parent, name.to_string_lossy().into_owned()).into(), &FsError::NoLinks)
    }
}

/// Logs a failure once, here at the boundary, and remembers it for `user.kvfs.last_error`.
fn report(fs: &Fs, op: Op, subject: &Subject, error: &FsError) -> Errno {
    let errno = errno(error);
    if error.is_routine() {
        return errno;
    }
    let name = match subject {
        Subject::Name(name) => name.clone(),
        Subject::In(parent, name) => fs.path_of(Ino(parent.0), name),
        Subject::Ino(ino) => fs.name_of(Ino(ino.0)),
    };
    // A shell flushes an empty file before it writes to it. Where nothing follows, the release notes it.
    let premature = op == Op::Flush && *error == FsError::Invalid(Fault::Empty);
    if !premature {
        fs.note(&name, error);
        tracing::info!("{} {name:?}: {error}", op.name());
    }
    errno
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{self, Cache};
    use crate::fs;
    use crate::store::MemoryStore;

    fn answers(runtime: &Handle) -> Answers {
        let settings = cache::Settings {
            entries: std::num::NonZeroUsize::MIN,
            bytes: 0,
            max_age: std::time::Duration::ZERO,
            max_stale: std::time::Duration::ZERO,
        };
        let cache = Arc::new(Cache::new(Arc::new(MemoryStore::new()), settings));
        Answers::new(Fs::new(cache, fs::Settings::plain()), runtime.clone(), Arc::default())
    }

    /// A reply that tells whether it was given or, as fuser's do, dropped.
    struct Reply(std::sync::mpsc::Sender<bool>);

    impl Drop for Reply {
        fn drop(&mut self) {
            _ = self.0.send(false);
        }
    }

    #[test]
    fn a_panic_drops_the_reply_and_goes_no_further() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let answers = answers(runtime.handle());
        let (sender, replies) = std::sync::mpsc::channel();
        let reply = || {
            let reply = Reply(sender.clone());
            move |_: Result<(), Errno>| _ = reply.0.send(true)
        };
        answers.now(Op::Read, "k", || panic!("at once"), reply());
        answers.give(Op::Open, "k", async { panic!("at the first poll") }, reply());
        let later = async {
            tokio::task::yield_now().await;
            panic!("on the runtime")
        };
        answers.give(Op::Open, "k", later, reply());
        assert!(replies.iter().take(3).all(|given| !given));
        answers.now(Op::Read, "k", || Ok(()), reply());
        assert_eq!(replies.recv(), Ok(true));
    }
}
