//! Threads that are started or reserved before the mount, so that a limit on processes (`ulimit -u`, `pids.max`) is an error
//! then, and makes no mount that does not answer or cannot be ended.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::failure::Failure;

const WORKERS: usize = 2;
/// Idle threads for blocking work are never ended, so that there always is one.
const KEPT: Duration = Duration::from_hours(24 * 365);

/// Makes the runtime, which would panic without threads; fails if `others` more cannot be started beside it.
pub(super) fn runtime(others: usize) -> Result<Runtime, Failure> {
    Spare::hold(WORKERS + 1 + others)?.give_up();
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("kvfs-worker")
        .thread_keep_alive(KEPT)
        .enable_all()
        .build()
        .map_err(|error| lacking(&error))?;
    let first = runtime.spawn_blocking(|| {});
    runtime.block_on(first).map_err(|error| Failure::Other(format!("cannot start threads: {error}")))?;
    Ok(runtime)
}

fn lacking(error: &io::Error) -> Failure {
    let hint = if error.kind() == io::ErrorKind::WouldBlock {
        "; a limit on processes is reached (`ulimit -u`, or pids.max of the control group)"
    } else {
        ""
    };
    Failure::Other(format!("cannot start threads: {error}{hint}"))
}

/// Idle threads that reserve room under the limit for other threads or processes.
pub(super) struct Spare(Vec<(Sender<()>, JoinHandle<PathBuf>)>);

impl Spare {
    pub(super) fn hold(count: usize) -> Result<Self, Failure> {
        let one = |_| {
            let (release, released) = channel::<()>();
            let wait = move || {
                _ = released.recv();
                std::fs::read_link("/proc/thread-self").unwrap_or_default()
            };
            let thread =
                std::thread::Builder::new().name("kvfs-spare".into()).stack_size(64 << 10).spawn(wait)?;
            Ok((release, thread))
        };
        (0..count).map(one).collect::<io::Result<_>>().map(Self).map_err(|error| lacking(&error))
    }

    /// Ends them. Returns when they no longer count against the limit.
    pub(super) fn give_up(self) {
        for (release, thread) in self.0 {
            drop(release);
            let Ok(thread) = thread.join() else { continue };
            // The kernel counts a thread for a moment after it was joined.
            let itself = Path::new("/proc").join(thread);
            while itself.components().count() > 2 && itself.exists() {
                std::thread::yield_now();
            }
        }
    }
}

/// A thread for the steps that may wait for the kernel or a disk and must not fail for want of a thread.
pub(super) struct Hand(Sender<Box<dyn FnOnce() + Send>>);

impl Hand {
    pub(super) fn start() -> Result<Self, Failure> {
        let (steps, queue) = channel::<Box<dyn FnOnce() + Send>>();
        let work = move || queue.into_iter().for_each(|step| step());
        let thread = std::thread::Builder::new().name("kvfs-hand".into()).spawn(work);
        thread.map(|_| Self(steps)).map_err(|error| lacking(&error))
    }

    /// Runs `step` after those before it. Fails only if one of them panicked.
    pub(super) fn do_next<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, answer) = oneshot::channel();
        _ = self.0.send(Box::new(move || _ = done.send(step())));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> usize {
        let all = std::fs::read_dir("/proc/self/task").unwrap();
        all.filter(|task| {
            let name = task.as_ref().map(|task| std::fs::read_to_string(task.path().join("comm")));
            name.is_ok_and(|name| name.is_ok_and(|name| name.trim() == "kvfs-spare"))
        })
        .count()
    }

    #[test]
    fn spare_threads_are_gone_when_they_are_given_up() {
        for _ in 0..50 {
            let spare = Spare::hold(4).unwrap();
            spare.give_up();
            assert_eq!(threads(), 0);
        }
    }

    #[test]
    fn a_hand_does_one_step_after_the_other() {
        let hand = Hand::start().unwrap();
        let first = hand.do_next(|| 1);
        assert_eq!((first.blocking_recv().unwrap(), hand.do_next(|| 2).blocking_recv().unwrap()), (1, 2));
    }
}
