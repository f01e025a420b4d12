//! What the kernel must drop from its caches, and how it is told.
//!
//! An open of a key is answered once the kernel has dropped what it knew of older versions, and no notice about the
//! inode is under way then: a notice that comes in while the file is read makes the kernel ignore the answer that tells
//! the size, and read on at the size of an older version.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::fs::core::Fs;
use crate::fs::kernel::Kernel;
use crate::fs::state::invalidation::{Invalidation, PathInvalidation};
use crate::fs::types::Ino;
use crate::store::Deadline;

/// How long a caller waits for the notifier, which may wait for a directory's lock, before the kernel is told in a way that
/// needs none.
const SETTLE: Duration = Duration::from_secs(1);

/// How long it waits at least, if its deadline has almost passed.
const SETTLE_LATE: Duration = Duration::from_millis(100);

impl Fs {
    /// Tells where notices go. Before that there is no kernel and none are needed.
    pub fn attach(&self, kernel: Box<dyn Kernel>) {
        self.kernel.set(kernel);
    }

    /// Whether the kernel can drop all names at once, those known to be absent included, of which nobody keeps a list.
    pub(crate) fn can_invalidate_all(&self) -> bool {
        self.kernel.get().is_none_or(Kernel::can_invalidate_all)
    }

    /// Sends notices and does not wait: for handlers during which the kernel holds the directory's lock.
    pub(crate) fn invalidate(&self, invalidations: Vec<PathInvalidation>) -> Option<oneshot::Receiver<()>> {
        let kernel = self.kernel.get().filter(|_| !invalidations.is_empty())?;
        let invalidations: Vec<Invalidation> = {
            let state = self.state.lock();
            let has_directories = self.settings.names.has_directories();
            invalidations
                .into_iter()
                .flat_map(|invalidation| state.addressed(invalidation, has_directories))
                .collect()
        };
        (!invalidations.is_empty()).then(|| kernel.invalidate(invalidations))
    }

    /// The kernel asks for the attributes of these anew. Where a file has lost its name those who write it learn so from fstat(2)
    /// that it has no links, although the kernel has no dentry of that name for their inodes.
    pub(crate) fn expire_attributes(&self, inodes: impl IntoIterator<Item = Ino>) {
        let Some(kernel) = self.kernel.get() else { return };
        inodes.into_iter().for_each(|ino| kernel.expire_attributes(ino));
    }

    /// Sends notices and waits until the kernel took them in, so that who is answered next finds the new state.
    ///
    /// Never called while the kernel holds the directory's lock for the same request: that would be a deadlock. Nor is the
    /// notifier waited for without end, for who holds that lock may in turn wait for the file of the request (unlink(2)
    /// for one that is being truncated): after [`SETTLE`] all names are dropped, which needs no lock. False if it came to
    /// that.
    pub(crate) async fn invalidate_and_wait(self: &Arc<Self>, invalidations: Vec<PathInvalidation>) -> bool {
        // Boxed, for it is a part of nearly all futures, and in few of them there is something to wait for.
        invalidations.is_empty() || Box::pin(self.invalidate_some(invalidations)).await
    }

    async fn invalidate_some(self: &Arc<Self>, invalidations: Vec<PathInvalidation>) -> bool {
        let until = Instant::now() + Deadline::left(SETTLE).max(SETTLE_LATE);
        let (mut inodes, mut others) = (Vec::new(), Vec::new());
        for invalidation in invalidations {
            match invalidation {
                PathInvalidation::Inode(ino) => inodes.push(ino),
                invalidation => others.push(invalidation),
            }
        }
        let told = self.invalidate(others);
        for ino in &inodes {
            self.invalidate_inode(*ino);
        }
        let mut settled = true;
        for ino in inodes {
            settled &= timeout_at(until, self.dropped(ino)).await.is_ok();
        }
        if let Some(told) = told {
            settled &= timeout_at(until, told).await.is_ok();
        }
        if let Some(kernel) = self.kernel.get().filter(|kernel| !settled && kernel.can_invalidate_all()) {
            kernel.invalidate_all();
        }
        settled
    }

    /// As [`Fs::invalidate_and_wait`], for a request during which the kernel may hold the directory's lock.
    pub(crate) fn invalidate_later(self: &Arc<Self>, invalidations: Vec<PathInvalidation>) {
        if !invalidations.is_empty() {
            let fs = self.clone();
            tokio::spawn(async move { fs.invalidate_and_wait(invalidations).await });
        }
    }

    /// Makes the kernel drop what it knows of older versions of an inode, unless that is under way. It does so on this
    /// thread, which costs less than a hand-over, or on the runtime if this is fuser's own. Where the kernel does not know
    /// the inode yet it is for the notifier, which may have to wait for the directory's lock.
    fn invalidate_inode(self: &Arc<Self>, ino: Ino) {
        if tokio::task::try_id().is_none() {
            let fs = self.clone();
            tokio::spawn(async move { fs.invalidate_inode(ino) });
            return;
        }
        while self.begins_invalidation(ino) {
            if self.kernel.get().is_some_and(|kernel| !kernel.invalidate_inode(ino)) {
                let (fs, told) = (self.clone(), self.invalidate(vec![PathInvalidation::Inode(ino)]));
                tokio::spawn(async move {
                    if let Some(told) = told {
                        // An error means that the kernel is gone.
                        _ = told.await;
                    }
                    fs.end_invalidation(ino);
                    fs.invalidate_inode(ino);
                });
                return;
            }
            self.end_invalidation(ino);
        }
    }

    /// For an open that has waited too long for the notifier: who opens an inode knows it, and it can be dropped at once.
    pub(crate) async fn invalidate_now(&self, ino: Ino) {
        // Off fuser's own thread.
        tokio::task::yield_now().await;
        if !self.state.lock().inode_mut(ino).is_some_and(|inode| inode.cached.invalidate_now()) {
            return;
        }
        if let Some(kernel) = self.kernel.get() {
            kernel.invalidate_inode(ino);
        }
        self.end_invalidation(ino);
    }

    /// Whether the caller is to make the kernel drop older versions of an inode.
    fn begins_invalidation(&self, ino: Ino) -> bool {
        self.state.lock().inode_mut(ino).is_some_and(|inode| inode.cached.begin_invalidation())
    }

    pub(crate) fn end_invalidation(&self, ino: Ino) {
        if let Some(inode) = self.state.lock().inode_mut(ino) {
            inode.cached.end_invalidation();
        }
        self.kernel.dropped.notify_waiters();
    }

    /// Waits until the kernel knows of no older version of an inode.
    async fn dropped(&self, ino: Ino) {
        loop {
            let dropped = self.kernel.dropped.notified();
            if self.state.lock().inode(ino).ok().is_none_or(|inode| inode.cached.is_fresh()) {
                return;
            }
            dropped.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Store;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Waker};

    use parking_lot::Mutex;

    use crate::fs::types::{Access, Caller, ROOT};
    use crate::store::{Change, Expect, Key, MemoryStore, Text};

    use super::*;

    const CALLER: Caller = Caller { thread: 1, uid: 0, gid: 0 };
    const READ: Access = Access { write: false, append: false, truncate: false };

    /// One that takes a notice in when the test says so, and at once if it is about an inode that it `knows`.
    #[derive(Clone, Default)]
    struct Slow {
        waiting: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
        knows: bool,
        names_dropped: Arc<AtomicUsize>,
    }

    impl Kernel for Slow {
        fn can_invalidate_all(&self) -> bool {
            true
        }

        fn invalidate(&self, _: Vec<Invalidation>) -> oneshot::Receiver<()> {
            let (sender, receiver) = oneshot::channel();
            self.waiting.lock().push(sender);
            receiver
        }

        fn invalidate_inode(&self, _: Ino) -> bool {
            self.knows
        }

        fn expire_attributes(&self, _: Ino) {}

        fn invalidate_all(&self) {
            self.names_dropped.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn text(text: &str) -> Text {
        Text::from(text.as_bytes())
    }

    /// A mount with the key `k`, a second client of its store, and the inode that was looked up.
    async fn mounted(kernel: &Slow) -> (Arc<Fs>, MemoryStore, Ino) {
        let (fs, elsewhere) = Fs::in_memory(Duration::ZERO);
        fs.attach(Box::new(kernel.clone()));
        fs.cache.set_key_value(&Key::from("k"), text("1 "), Expect::Anything).await.unwrap();
        let ino = fs.clone().lookup(CALLER, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        (fs, elsewhere, ino)
    }

    #[tokio::test]
    async fn no_notice_about_an_inode_is_under_way_when_it_is_opened() {
        let kernel = Slow::default();
        let (fs, elsewhere, ino) = mounted(&kernel).await;
        let meta = elsewhere.set_key_value(&Key::from("k"), text("22"), Expect::Anything).await.unwrap();
        let taken_in = tokio::spawn({
            let fs = fs.clone();
            async move { fs.take_in(Change::Set(Key::from("k"), meta)).await }
        });
        let opens = [(); 3].map(|()| tokio::spawn(fs.clone().open(CALLER, ino, READ)));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!taken_in.is_finished() && !opens.iter().any(tokio::task::JoinHandle::is_finished));
        assert_eq!(kernel.waiting.lock().len(), 1);
        kernel.waiting.lock().remove(0).send(()).unwrap();
        for open in opens {
            let opened = open.await.unwrap().unwrap();
            assert_eq!(fs.read(opened.fh, 0, 10, <[u8]>::to_vec).unwrap(), b"22");
        }
        taken_in.await.unwrap();
        assert!(kernel.waiting.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_caller_is_told_is_true_although_the_notifier_is_stuck() {
        let kernel = Slow { knows: true, ..Slow::default() };
        let (fs, _, ino) = mounted(&kernel).await;
        // The dentry is to be expired before a draft shows in the inode.
        let write = Access { write: true, ..READ };
        fs.clone().open(CALLER, ino, write).await.unwrap();
        assert_eq!((kernel.waiting.lock().len(), kernel.names_dropped.load(Ordering::SeqCst)), (1, 1));
    }

    #[tokio::test]
    async fn an_open_is_not_held_up_by_a_notifier_that_is_stuck() {
        for knows in [true, false] {
            let kernel = Slow { knows, ..Slow::default() };
            let (fs, _, ino) = mounted(&kernel).await;
            fs.state.lock().stale(ino);
            // As on fuser's own thread, which goes on with what does not end at once on the runtime.
            let mut open = Box::pin(fs.clone().open(CALLER, ino, READ));
            assert!(open.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            tokio::time::timeout(10 * SETTLE, tokio::spawn(open)).await.unwrap().unwrap().unwrap();
            assert_eq!(kernel.waiting.lock().is_empty(), knows);
        }
    }
}
