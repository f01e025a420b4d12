//! What the kernel is told of sizes, and what readers show of that by their messages: see [`size`](crate::fs::state::size).

use crate::fs::state::tables::State;
use crate::fs::types::{Fh, Ino};

impl State {
    /// Whether the kernel was told the size of the version that the inode shows. It does not ask when the inode is opened: an
    /// append would go elsewhere, and an answer that tells the size while it is written to the pages would cut them.
    pub(crate) fn is_told(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| inode.cached.size.is_told())
    }

    /// Whether the kernel certainly has the size of the version that the inode shows.
    pub(crate) fn is_sized(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| inode.cached.size.is_known())
    }

    /// An answer tells the attributes of the inode, or of what a handle shows, which may be another version.
    pub(crate) fn tell(&mut self, ino: Ino, fh: Option<Fh>) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let handle = fh.and_then(|fh| self.handles.get(&fh));
        if handle.is_none_or(|handle| handle.shows(inode)) {
            inode.cached.tell(false);
        } else {
            inode.cached.size.forget();
        }
    }

    /// `thread` asks for the attributes of the inode. If it is the one that has opened it, this counts.
    pub(crate) fn asks(&mut self, thread: u32, ino: Ino) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let opener =
            inode.cached.size.witness().and_then(|fh| self.handles.get(&fh)).map(|handle| handle.opener);
        if thread != 0 && opener == Some(thread) {
            inode.cached.size.asked();
        }
    }

    /// `thread` reads what it has open: it has taken in what it was answered before. Whether that proves the size.
    pub(crate) fn reads(&mut self, thread: u32, fh: Fh) -> bool {
        let Some(handle) = self.handles.get(&fh).filter(|handle| handle.opener == thread) else {
            return false;
        };
        self.inodes.get_mut(&handle.ino).is_some_and(|inode| inode.cached.read(fh))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::fs::core::Fs;
    use crate::fs::state::nodes::Content;
    use crate::fs::state::size::UNDER_WAY;
    use crate::fs::state::versions::Origin;
    use crate::fs::types::{Access, Caller, Opened, ROOT};
    use crate::store::{Expect, Key, Text};

    const READ: Access = Access { write: false, append: false, truncate: false };

    fn thread(thread: u32) -> Caller {
        Caller { thread, uid: 0, gid: 0 }
    }

    async fn set(fs: &Arc<Fs>, text: &str) {
        let text = Text::from(text.as_bytes());
        let meta = fs.cache.set_key_value(&Key::from("k"), text, Expect::Anything).await.unwrap();
        let stale = fs.state.lock().install_version("k", &meta, Origin::Remote);
        fs.invalidate_and_wait(stale).await;
    }

    /// A mount with a key that goes on as another version, its inode, and whether the answer to a lookup of that is kept.
    async fn updated() -> (Arc<Fs>, Ino, bool) {
        let fs = Fs::in_memory(Duration::ZERO).0;
        set(&fs, "1").await;
        let before = fs.clone().lookup(thread(1), ROOT, "k".into()).await.unwrap().attr.unwrap();
        assert!(before.lasts && !open(&fs, 1, before.ino).await.1);
        set(&fs, "22").await;
        let after = fs.clone().lookup(thread(1), ROOT, "k".into()).await.unwrap().attr.unwrap();
        assert_eq!(after.ino, before.ino);
        (fs, after.ino, after.lasts)
    }

    /// Opens the file for reading, asks for its attributes, reads, and closes it. Whether the attributes are kept, and whether
    /// it is read past the page cache.
    async fn open(fs: &Arc<Fs>, reader: u32, ino: Ino) -> (bool, bool) {
        let Opened { fh, direct, .. } = fs.clone().open(thread(reader), ino, READ).await.unwrap();
        let found = fs.getattr_as(thread(reader), ino, None).unwrap();
        fs.read_as(thread(reader), fh, 0, 9, <[u8]>::to_vec).unwrap();
        fs.clone().release(fh).await;
        (!found.ttl.is_zero(), direct)
    }

    #[tokio::test(start_paused = true)]
    async fn readers_go_by_a_size_once_one_of_them_has_certainly_taken_it_in() {
        let (fs, ino, lasts) = updated().await;
        // The lookup may have been under way when the pages were invalidated.
        assert!(!lasts);
        assert_eq!(open(&fs, 2, ino).await, (false, true));
        assert_eq!(open(&fs, 3, ino).await, (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_reader_was_told_while_a_rename_over_the_file_was_under_way_proves_nothing() {
        for answered in [false, true] {
            let (fs, ino, _) = updated().await;
            let reader = fs.clone().open(thread(2), ino, READ).await.unwrap();
            fs.getattr_as(thread(2), ino, None).unwrap();
            fs.state.lock().begin_removal("k");
            if answered {
                fs.state.lock().inode_mut(ino).unwrap().cached.replaced();
                fs.getattr_as(thread(2), ino, None).unwrap();
            }
            fs.read_as(thread(2), reader.fh, 0, 9, <[u8]>::to_vec).unwrap();
            assert!(!fs.state.lock().is_sized(ino));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_cannot_be_recognised_has_taken_in_what_was_answered_long_ago() {
        let (fs, ino, _) = updated().await;
        assert_eq!(open(&fs, 0, ino).await, (false, true));
        tokio::time::advance(UNDER_WAY).await;
        assert_eq!(open(&fs, 0, ino).await, (false, true));
        tokio::time::advance(UNDER_WAY).await;
        assert_eq!(open(&fs, 0, ino).await, (true, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_descriptor_shows_of_another_version_is_not_the_size() {
        let (fs, ino, _) = updated().await;
        open(&fs, 1, ino).await;
        let reader = fs.clone().open(thread(1), ino, READ).await.unwrap();
        assert!(fs.state.lock().is_sized(ino));
        let other = fs.cache.set_key_value(&Key::from("k"), Text::from(&b"333"[..]), Expect::Anything).await;
        if let Some(handle) = fs.state.lock().handle_mut(reader.fh) {
            handle.content = Content::Snapshot(Text::from(&b"333"[..]), other.ok());
        }
        fs.getattr(ino, Some(reader.fh)).unwrap();
        assert!(!fs.state.lock().is_sized(ino));
    }
}
