//! Threads that are started or reserved at the start, so that a limit on processes (`ulimit -u`, `pids.max`) is an error then, and
//! makes no mount or server that does not answer or cannot be ended.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::failure::Failure;

/// Idle threads for blocking work are never ended, so that there always is one.
const KEPT: Duration = Duration::from_hours(24 * 365);

/// Makes a runtime with `workers` threads called `name`; fails if `others` more cannot be started beside it.
pub fn runtime(name: &str, workers: usize, others: usize) -> Result<Runtime, Failure> {
    Spare::hold(workers + 1 + others)?.give_up();
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).thread_name(name).thread_keep_alive(KEPT).enable_all();
    unless_panicked(|| {
        let runtime = builder.build()?;
        let first = runtime.spawn_blocking(|| {});
        runtime.block_on(first)?;
        Ok(runtime)
    })
    .map_err(|error| lacking(&error))
}

/// What `work` makes. Tokio panics where it gets no thread: other processes of the user may have taken the last one meanwhile.
fn unless_panicked<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let made = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    made.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::WouldBlock, "no thread is left")))
}

/// Starts a thread for `work`.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    std::thread::Builder::new().name(name.into()).spawn(work).map_err(|error| lacking(&error))
}

fn lacking(error: &io::Error) -> Failure {
    Failure::Other(format!("cannot start threads: {}", explained(error)))
}

/// Why a thread or process cannot be started.
pub fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            format!(
                "{error}; a limit on processes is reached (`ulimit -u`, or pids.max of the control group)"
            )
        }
        _ => error.to_string(),
    }
}

/// Idle threads that reserve room under the limit for other threads or processes.
pub struct Spare(Vec<(Sender<()>, JoinHandle<PathBuf>)>);

impl Spare {
    /// Reserves room for `count`.
    pub fn hold(count: usize) -> Result<Self, Failure> {
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
    pub fn give_up(self) {
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
pub struct Hand(Sender<Box<dyn FnOnce() + Send>>);

impl Hand {
    /// Starts it.
    pub fn start() -> Result<Self, Failure> {
        let (steps, queue) = channel::<Box<dyn FnOnce() + Send>>();
        start("kvfs-hand", move || queue.into_iter().for_each(|step| step())).map(|_| Self(steps))
    }

    /// Runs `step` after those before it. Fails only if one of them panicked.
    pub fn do_next<T: Send + 'static>(
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

    #[test]
    fn a_limit_is_named_where_it_is_the_reason() {
        let why = |kind: io::ErrorKind| lacking(&kind.into()).to_string();
        assert!(why(io::ErrorKind::WouldBlock).contains("; a limit on processes is reached (`ulimit -u`"));
        assert_eq!(why(io::ErrorKind::OutOfMemory), "cannot start threads: out of memory");
    }

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
