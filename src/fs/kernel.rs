//! What the kernel must drop from its caches, and how it is told.
//!
//! An open of a key is answered once the kernel has dropped what it knew of older versions, and no notice about the
//! inode is under way then: a notice that comes in while the file is read makes the kernel ignore the answer that tells
//! the size, and read on at the size of an older version.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Fs;
use super::inodes::{Ino, Inode, State};
use super::names::parent;

/// How long a caller waits for the kernel to take a notice in, before it is answered without.
const SETTLE: Duration = Duration::from_secs(1);

/// What the kernel must drop from its caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Pages and attributes of an inode. Where the kernel does not know it, the answer that tells of it may be on the way:
    /// then the name in the directory that led to it must be dropped too, which waits for the answer, and then the inode.
    Inode(Ino, Option<(Ino, String)>),
    /// A name in a directory, also one known to be absent.
    Entry(Ino, String),
    /// All names. Only for a kernel that [can](Kernel::drops_everything).
    Everything,
}

/// As [`Drop`], by paths, of which the kernel may know some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// What it knows of older versions of an inode.
    Inode(Ino),
    /// A file or directory.
    Entry(String),
    /// What a directory lists.
    Listing(String),
    Everything,
}

impl Notice {
    /// The name at `path` comes, goes, or means something else: what the kernel must drop.
    pub(super) fn of_name(path: &str) -> Vec<Self> {
        vec![Self::Entry(path.to_owned()), Self::Listing(parent(path).to_owned())]
    }
}

/// The way to the kernel's caches. Notices are taken in one after the other.
pub trait Kernel: Send + Sync {
    /// Whether it can drop all names at once.
    fn drops_everything(&self) -> bool;

    /// Passes notices on; the receiver resolves when the kernel has taken them in.
    fn tell(&self, drops: Vec<Drop>) -> oneshot::Receiver<()>;

    /// Makes the kernel drop pages and attributes of an inode, on the caller's thread; false if it does not know it. The
    /// kernel waits for reads of the inode that are under way, so this must not be the thread that answers them.
    fn drop_inode(&self, ino: Ino) -> bool;
}

impl Fs {
    /// Tells where notices go. Before that there is no kernel and none are needed.
    pub fn attach(&self, kernel: Box<dyn Kernel>) {
        _ = self.kernel.set(kernel);
    }

    /// Whether the kernel can drop all names at once, those known to be absent included, of which nobody keeps a list.
    pub(super) fn drops_everything(&self) -> bool {
        self.kernel.get().is_none_or(|kernel| kernel.drops_everything())
    }

    /// Sends notices and does not wait: for handlers during which the kernel holds the directory's lock.
    pub(super) fn notify(&self, notices: Vec<Notice>) -> Option<oneshot::Receiver<()>> {
        let kernel = self.kernel.get()?;
        let drops: Vec<Drop> = {
            let state = self.state.lock();
            let has_directories = self.settings.names.has_directories();
            notices.into_iter().flat_map(|notice| state.addressed(notice, has_directories)).collect()
        };
        (!drops.is_empty()).then(|| kernel.tell(drops))
    }

    /// Sends notices and waits until the kernel took them in, so that who is answered next finds the new state.
    /// Never called while the kernel holds the directory's lock for the same request: that would be a deadlock.
    pub(super) async fn settle(self: &Arc<Self>, notices: Vec<Notice>) {
        let until = Instant::now() + SETTLE;
        let (mut inodes, mut others) = (Vec::new(), Vec::new());
        for notice in notices {
            match notice {
                Notice::Inode(ino) => inodes.push(ino),
                notice => others.push(notice),
            }
        }
        let told = self.notify(others);
        for ino in &inodes {
            self.drop_older(*ino);
        }
        for ino in inodes {
            _ = timeout_at(until, self.dropped(ino)).await;
        }
        if let Some(told) = told {
            _ = timeout_at(until, told).await;
        }
    }

    /// As [`Fs::settle`], for a request during which the kernel may hold the directory's lock.
    pub(super) fn settle_later(self: &Arc<Self>, notices: Vec<Notice>) {
        if !notices.is_empty() {
            let fs = self.clone();
            tokio::spawn(async move { fs.settle(notices).await });
        }
    }

    /// Makes the kernel drop what it knows of older versions of an inode, unless that is under way. It does so on this
    /// thread, which costs less than a hand-over, but on fuser's own, and where the kernel does not know the inode yet:
    /// then it is for the notifier, which may have to wait for the directory's lock.
    fn drop_older(self: &Arc<Self>, ino: Ino) {
        let may_wait = tokio::task::try_id().is_some();
        while self.state.lock().begin_drop(ino) {
            if !may_wait || self.kernel.get().is_some_and(|kernel| !kernel.drop_inode(ino)) {
                let (fs, told) = (self.clone(), self.notify(vec![Notice::Inode(ino)]));
                tokio::spawn(async move {
                    if let Some(told) = told {
                        // An error means that the kernel is gone.
                        _ = told.await;
                    }
                    fs.end_drop(ino);
                    fs.drop_older(ino);
                });
                return;
            }
            self.end_drop(ino);
        }
    }

    fn end_drop(&self, ino: Ino) {
        self.state.lock().end_drop(ino);
        self.dropped.notify_waiters();
    }

    /// Waits until the kernel knows of no older version of an inode.
    async fn dropped(&self, ino: Ino) {
        loop {
            let dropped = self.dropped.notified();
            if self.state.lock().inodes.get(&ino).is_none_or(Inode::is_fresh) {
                return;
            }
            dropped.await;
        }
    }
}

impl State {
    /// Whether the caller is to make the kernel drop older versions of an inode.
    fn begin_drop(&mut self, ino: Ino) -> bool {
        let inode = self.inodes.get_mut(&ino).filter(|inode| inode.stale && !inode.dropping);
        inode.is_some_and(|inode| {
            (inode.stale, inode.dropping) = (false, true);
            true
        })
    }

    fn end_drop(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.dropping = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::super::{Access, Caller, ROOT, Settings};
    use super::*;
    use crate::cache::{self, Cache};
    use crate::store::{Change, Expect, Key, MemoryStore, Store, Text};

    /// One that takes a notice in when the test says so.
    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<Vec<oneshot::Sender<()>>>>);

    impl Kernel for Slow {
        fn drops_everything(&self) -> bool {
            true
        }

        fn tell(&self, _: Vec<Drop>) -> oneshot::Receiver<()> {
            let (sender, receiver) = oneshot::channel();
            self.0.lock().push(sender);
            receiver
        }

        fn drop_inode(&self, _: Ino) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn no_notice_about_an_inode_is_under_way_when_it_is_opened() {
        let store = MemoryStore::new();
        let elsewhere = store.another_door();
        let bounds = cache::Settings {
            entries: 100.try_into().unwrap(),
            bytes: 1000,
            max_age: Duration::ZERO,
            max_stale: Duration::ZERO,
        };
        let cache = Arc::new(Cache::new(Arc::new(store), bounds));
        cache.set_pushed(true);
        let (fs, kernel) = (Fs::new(cache, Settings::plain()), Slow::default());
        fs.attach(Box::new(kernel.clone()));
        let (key, text) = (Key::from("k"), |text: &str| Text::from(text.as_bytes()));
        fs.cache.set_key_value(&key, text("1"), Expect::Anything).await.unwrap();
        let caller = Caller { thread: 1, uid: 0, gid: 0 };
        let ino = fs.clone().lookup(caller, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        let meta = elsewhere.set_key_value(&key, text("22"), Expect::Anything).await.unwrap();
        let taken_in = tokio::spawn({
            let fs = fs.clone();
            async move { fs.take_in_all(vec![Change::Set(key, meta)], |_| None).await }
        });
        let access = Access { write: false, append: false, truncate: false };
        let opens = [(); 3].map(|()| tokio::spawn(fs.clone().open(caller, ino, access)));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!taken_in.is_finished() && !opens.iter().any(tokio::task::JoinHandle::is_finished));
        assert_eq!(kernel.0.lock().len(), 1);
        kernel.0.lock().remove(0).send(()).unwrap();
        for open in opens {
            let opened = open.await.unwrap().unwrap();
            assert_eq!(fs.read(opened.fh, 0, 10, <[u8]>::to_vec).unwrap(), b"22");
        }
        taken_in.await.unwrap();
        assert!(kernel.0.lock().is_empty());
    }
}
