//! Files whose name is about to be removed, or replaced.
//!
//! Once the kernel takes in that it is, it ignores the answers to what it asked before. A reader past the page cache whose question
//! for the size is under way then reads a memory map up to the size of an older version, and no further.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::fs::core::Fs;
use crate::fs::types::Ino;

/// For so long a removal waits for such readers, and such a reader for a removal.
pub(super) const MOMENT: Duration = Duration::from_millis(100);

/// A name that is being removed, or replaced.
pub(super) struct Removal {
    fs: Arc<Fs>,
    /// The inodes of the name, the one that it comes back to too.
    pub(super) inos: [Option<Ino>; 2],
}

impl Fs {
    /// Begins the removal of `name`.
    pub(super) async fn begin_removal(self: &Arc<Self>, name: &str) -> Removal {
        if self.state.lock().has_unsure_reader(name) {
            Box::pin(self.await_readers(name)).await;
        }
        Removal { fs: self.clone(), inos: self.state.lock().begin_removal(name) }
    }

    async fn await_readers(&self, name: &str) {
        let until = Instant::now() + MOMENT;
        loop {
            let changed = self.unlocked.notified();
            if !self.state.lock().has_unsure_reader(name) || timeout_at(until, changed).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.fs.state.lock().end_removal(self.inos);
        self.fs.unlocked.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::rules::error::FsError;
    use crate::fs::state::versions::Origin;
    use crate::fs::types::{Access, Caller, ROOT};
    use crate::store::{Expect, Key, Text};

    const READ: Access = Access { write: false, append: false, truncate: false };

    fn thread(thread: u32) -> Caller {
        Caller { thread, uid: 0, gid: 0 }
    }

    /// A mount with a key that went on as another version, of which the kernel may not have the size, and its inode.
    async fn updated() -> (Arc<Fs>, Ino) {
        let fs = Fs::in_memory(Duration::ZERO).0;
        let key = Key::from("k");
        fs.cache.set_key_value(&key, Text::from(&b"1"[..]), Expect::Anything).await.unwrap();
        let ino = fs.clone().lookup(thread(1), ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        let meta = fs.cache.set_key_value(&key, Text::from(&b"22"[..]), Expect::Anything).await.unwrap();
        let stale = fs.state.lock().install_version("k", &meta, Origin::Remote);
        fs.invalidate_and_wait(stale).await;
        (fs, ino)
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_waits_for_who_may_not_have_the_size_yet() {
        for asks in [false, true] {
            let (fs, ino) = updated().await;
            let (reader, other) = (thread(2), thread(3));
            let read = fs.clone().open(reader, ino, READ).await.unwrap();
            assert!(read.direct);
            let removal = tokio::spawn(fs.clone().unlink(other, ROOT, "k".into()));
            tokio::time::sleep(MOMENT / 2).await;
            assert!(!removal.is_finished());
            if asks {
                fs.getattr_as(reader, ino, None).unwrap();
                fs.read_as(reader, read.fh, 0, 9, |_| ()).unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(removal.is_finished());
            }
            removal.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_have_the_size_waits_for_a_removal_that_has_begun() {
        for fails in [false, true] {
            let (fs, ino) = updated().await;
            let removal = fs.begin_removal("k").await;
            let opening = tokio::spawn(fs.clone().open(thread(2), ino, READ));
            tokio::time::sleep(MOMENT / 2).await;
            assert!(!opening.is_finished());
            if !fails {
                fs.clone().unlink(thread(3), ROOT, "k".into()).await.unwrap();
            }
            drop(removal);
            let opened = opening.await.unwrap();
            assert_eq!(
                opened.map(|opened| opened.direct),
                if fails { Ok(true) } else { Err(FsError::Superseded) }
            );
        }
    }
}
