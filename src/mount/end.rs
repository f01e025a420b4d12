//! A mount from its first answer to its end: by a signal, by umount, or because it does not answer.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use tokio::task::AbortHandle;

use super::guard::Guard;
use super::{GRACE, point};
use crate::failure::Failure;
use crate::fs::Fs;
use crate::fuse::Ended;
use crate::logging::{self, LIFE};
use crate::signals::{Asked, Signals, has_terminal};
use crate::sys::{self, MountOf};
use crate::threads::{Hand, Spare};

/// A mount, and the means to end it.
pub(super) struct Mounted {
    fs: Arc<Fs>,
    path: PathBuf,
    guard: Guard,
    hand: Hand,
    /// The task that applies the store's feed: it is aborted before the store is closed.
    following: Mutex<Option<AbortHandle>>,
    /// A reserved process for fusermount3, if the unmount needs it.
    for_helper: Mutex<Option<Spare>>,
}

/// The identity of a mount that answers.
#[derive(Clone, Copy)]
pub(super) struct Root {
    pub(super) device: u64,
    pub(super) mount: MountOf,
}

impl Mounted {
    /// Reserves the means to end a mount that is about to be made at `path`.
    pub(super) fn prepare(fs: Arc<Fs>, path: PathBuf) -> Result<Arc<Self>, Failure> {
        let for_helper = if sys::may_mount() { None } else { Some(Spare::hold(1)?) };
        let hand = Hand::start()?;
        Ok(Arc::new(Self {
            fs,
            path,
            guard: Guard::default(),
            hand,
            following: Mutex::default(),
            for_helper: Mutex::new(for_helper),
        }))
    }

    /// Has `task` aborted at the end of the mount.
    pub(super) fn ends(&self, task: AbortHandle) {
        *self.following.lock() = Some(task);
    }

    /// Waits for an answer of the mount, at `place`. If there is none, nothing stays mounted there.
    pub(super) async fn answer(&self, place: &Path, ended: &mut Ended) -> Result<Root, Failure> {
        let path = place.to_owned();
        let look = move || {
            let device = std::fs::metadata(&path)?.dev();
            let place = OpenOptions::new().read(true).custom_flags(sys::PATH_ONLY).open(&path)?;
            Ok(Root { device, mount: sys::mount_of(&place)? })
        };
        let why = tokio::select! {
            root = self.hand.do_next(look) => match root {
                Ok(Ok(root)) => return Ok(root),
                Ok(Err(error)) => std::io::Error::to_string(&error),
                Err(_) => "a panic".into(),
            },
            _ = ended => "its threads could not be started, or somebody ended it".into(),
        };
        self.unmount_at(place);
        Err(Failure::Fuse(format!("the mount on {} does not answer: {why}", self.path.display())))
    }

    /// Starts the guard, which aborts the connection if this process is killed. Called by the main thread.
    pub(super) fn start_guard(&self, root: Root, device: OwnedFd, unmounts: bool) {
        self.guard.start(&self.path, root.mount, device, unmounts);
    }

    /// Unmounts, also while files are open there.
    pub(super) fn unmount(&self) -> bool {
        self.unmount_at(&self.path)
    }

    fn unmount_at(&self, path: &Path) -> bool {
        // Another mount is there, and this one ends with its last open file.
        if self.fs.is_replaced() {
            return true;
        }
        if let Some(spare) = self.for_helper.lock().take() {
            spare.give_up();
        }
        let done = point::unmount(path, false) || point::unmount(path, true);
        if done {
            self.guard.dismiss();
        }
        done
    }

    /// Waits until somebody has unmounted.
    pub(super) fn wait(&self, runtime: &Runtime, ended: Ended, rejected: PathBuf) -> Result<(), Failure> {
        // An error: the session was dropped with its sender.
        _ = runtime.block_on(ended);
        self.guard.dismiss();
        tracing::info!(target: LIFE, "unmounted");
        let lost = || self.fs.lost().map_or(0, |lost| lost.count);
        let before = lost();
        let count = self.finish(runtime.handle());
        match self.fs.lost() {
            Some(lost) if lost.count > before => Err(Failure::Lost(lost.count - before, lost.why)),
            _ if count == 0 => Ok(()),
            _ => Err(Failure::Rejected(count, rejected)),
        }
    }

    /// Publishes or rejects what is left, and closes the store. Returns how many texts were rejected.
    fn finish(&self, handle: &Handle) -> usize {
        let rejected = handle.block_on(self.fs.clone().finish());
        self.following.lock().take().iter().for_each(AbortHandle::abort);
        self.fs.cache().close();
        rejected
    }

    /// SIGTERM and SIGINT publish what can be published and unmount; a second one ends at once. SIGHUP refreshes; where the mount
    /// was started in front of a `terminal` that is gone, it ends the mount as well.
    pub(super) async fn obey(self: Arc<Self>, mut signals: Signals, handle: Handle, terminal: bool) {
        while signals.next().await == Asked::Refresh && (!terminal || has_terminal()) {
            logging::reopen();
            tracing::info!(target: LIFE, "SIGHUP: everything is asked for anew");
            handle.spawn(self.fs.clone().ask_anew());
        }
        tracing::info!(target: LIFE, "a signal asks for the end");
        // The disk may hang: the thread that handles signals does not wait for it.
        let (mounted, publishing) = (self.clone(), handle.clone());
        let unmounted = self.hand.do_next(move || {
            // Drafts that are incomplete now may be completed before the last file is closed.
            publishing.block_on(mounted.fs.clone().publish_all());
            mounted.unmount()
        });
        let unmounted = matches!(signals.unless_another(unmounted).await, Ok(true));
        if !unmounted {
            tracing::error!("cannot unmount {0}; end it with `umount -l {0}`", self.path.display());
        }
        // The session ends with the last open file; the wait for it is bounded.
        tokio::select! { () = tokio::time::sleep(GRACE) => {}, () = signals.another() => {} }
        let mounted = self.clone();
        let finish = self.hand.do_next(move || mounted.finish(&handle));
        let rejected = signals.unless_another(finish).await.unwrap_or(1);
        std::process::exit(match (rejected, unmounted) {
            (1.., _) => 6,
            (0, true) => 0,
            (0, false) => 1,
        });
    }
}
