//! close(2): what a FLUSH publishes, and whom it tells of what cannot be published.
//!
//! FLUSH is not close: shells close a copy of an empty file before they write, and children close what they inherited in
//! mid-document. So every flush of a complete document publishes, and an incomplete one is an error only for the process that
//! opened the file. Where any bytes are a value none tells that they are all: only that process publishes what it has written,
//! and the rest is left to the end of the handle.

use std::sync::Arc;

use crate::fs::core::Fs;
use crate::fs::ops::publish::{Verdict, Writer};
use crate::fs::rules::document::Validate;
use crate::fs::rules::error::{FsError, FsResult};
use crate::fs::state::locks::{Family, Owner};
use crate::fs::state::nodes::{Content, Handle};
use crate::fs::types::{Caller, DraftId, Fh};
use crate::store::Expect;
use crate::sys;
use crate::sys::process::Tick;

impl Fs {
    /// close(2) of a descriptor of this `table`: publishes a complete draft.
    pub async fn flush(self: Arc<Self>, caller: Caller, fh: Fh, table: u64) -> FsResult<()> {
        let result = match self.close(caller, fh, table).await {
            Err(error) => Err(self.put_back_at_close(fh, error).await),
            Ok(()) => Ok(()),
        };
        // Only now: who waits for the lock shall find what was published under it.
        self.unlock_process(fh, table);
        result
    }

    async fn close(self: &Arc<Self>, caller: Caller, fh: Fh, table: u64) -> FsResult<()> {
        let by_opener = self.is_by_opener(caller.thread, fh, table)?;
        let Some((Writer { ino, draft, opener }, verdict)) = self.assess(fh, false)? else {
            return Ok(());
        };
        match verdict {
            Verdict::Publish if self.is_left_to_the_end(fh, draft, (table, by_opener)) => {}
            Verdict::Publish => self.publish(ino, draft, opener).await?,
            Verdict::Unfit(error) if by_opener && !self.is_left_to_others(fh) => {
                return Err(self.part_is_set(&mut self.state.lock(), draft, error));
            }
            Verdict::Nothing | Verdict::Unfit(_) => {}
        }
        self.settle(draft).await;
        Ok(())
    }

    /// Whether it is the process that opened the file which closes it. Where none is known it may be; and where the thread is gone
    /// that opened the file, and its process has not closed a copy before, it is taken for it.
    fn is_by_opener(&self, thread: u32, fh: Fh, table: u64) -> FsResult<bool> {
        let (opener, is_known) = {
            let mut state = self.state.lock();
            let is_untouched = state.draft_of(fh).is_ok_and(|(_, draft)| draft.is_untouched());
            let handle = state.handle_mut(fh).ok_or(FsError::BadHandle)?;
            if (thread, handle.opener) == (0, 0) {
                return Ok(handle.closers.by_unknown(table, is_untouched));
            }
            (handle.opener, handle.closers.have_opener())
        };
        let is_it = sys::same_process(thread, opener) || !is_known && !sys::is_alive(opener);
        if is_it && let Some(handle) = self.state.lock().handle_mut(fh) {
            (handle.opener, handle.opened) = (thread, Tick::now());
            handle.closers.by_opener(table);
        }
        Ok(is_it)
    }

    /// Whether a handle has written nothing to its draft, and others are left that may.
    fn is_left_to_others(&self, fh: Fh) -> bool {
        let state = self.state.lock();
        let Ok(Handle { content: Content::Draft(draft), written: false, .. }) = state.handle(fh) else {
            return false;
        };
        state.draft(*draft).is_some_and(|draft| draft.handles > 1)
    }

    /// Whether what may be but a part of a value is published by the end of the handle: what its open has emptied, before the
    /// first byte, and where another process closes a copy. But what was written under a lock is published before that goes, and
    /// who created a file with `O_EXCL` hears whether he was the first.
    fn is_left_to_the_end(&self, fh: Fh, draft: DraftId, (table, by_opener): (u64, bool)) -> bool {
        if self.settings.validate != Validate::None {
            return false;
        }
        let state = self.state.lock();
        let is_begun = state.draft(draft).is_some_and(|draft| {
            let is_changed = draft.exclusive || matches!(draft.expect, Expect::At(_));
            draft.bytes.is_empty() && !is_changed
        });
        let owner = Owner { family: Family::Fcntl, id: table };
        let has_lock = state.handle(fh).is_ok_and(|handle| state.locks().has(handle.file, owner));
        (is_begun || !by_opener) && !has_lock
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::fs::state::locks::{Kind, Lock, Range};
    use crate::fs::types::{Access, Changes, Ino, ROOT};
    use crate::store::{Key, Text};

    use super::*;

    const WRITE: Access = Access { write: true, append: false, truncate: true };

    fn thread(thread: u32) -> Caller {
        Caller { thread, uid: 0, gid: 0 }
    }

    /// A mount with the key `k`, which is `old`, and who opens that to write.
    async fn written(validate: Validate, opener: Caller) -> (Arc<Fs>, Ino, Fh) {
        let (mut fs, _elsewhere) = Fs::in_memory(Duration::ZERO);
        Arc::get_mut(&mut fs).unwrap().settings.validate = validate;
        fs.cache.set_key_value(&Key::from("k"), Text::from(&b"old"[..]), Expect::Anything).await.unwrap();
        let ino = fs.clone().lookup(opener, ROOT, "k".into()).await.unwrap().attr.unwrap().ino;
        let fh = fs.clone().open(opener, ino, WRITE).await.unwrap().fh;
        (fs, ino, fh)
    }

    async fn text(fs: &Fs) -> Vec<u8> {
        fs.cache.get_key_value(&Key::from("k")).await.unwrap().value.unwrap().text.to_vec()
    }

    #[tokio::test]
    async fn where_no_process_is_known_a_fragment_is_an_error_for_who_may_be_done() {
        let (fs, _, fh) = written(Validate::Json, thread(0)).await;
        let close = async |table| fs.clone().flush(thread(0), fh, table).await;
        fs.write(fh, 0, b"[1,").unwrap();
        // A child has closed the one of two copies by its execve(2), and then the other one.
        assert!(close(2).await.is_err());
        assert_eq!(close(2).await, Ok(()));
        assert!(close(1).await.is_err());
    }

    #[tokio::test]
    async fn bytes_are_set_by_who_opened_the_file_and_what_is_left_by_its_end() {
        for (opener, child) in [(thread(0), thread(0)), (thread(std::process::id()), thread(1))] {
            let (fs, _, fh) = written(Validate::None, opener).await;
            let close = async |by, table| fs.clone().flush(by, fh, table).await.unwrap();
            close(opener, 1).await;
            assert_eq!(text(&fs).await, b"old");
            fs.write(fh, 0, b"a").unwrap();
            close(child, 2).await;
            assert_eq!(text(&fs).await, b"old");
            close(opener, 1).await;
            assert_eq!(text(&fs).await, b"a");
            fs.write(fh, 1, b"b").unwrap();
            close(child, 2).await;
            assert_eq!(text(&fs).await, b"a");
            fs.clone().release(fh).await;
            assert_eq!(text(&fs).await, b"ab");
        }
    }

    #[tokio::test]
    async fn a_child_of_a_process_that_is_gone_is_not_taken_for_it() {
        let gone = std::process::Command::new("true").spawn().map(|mut child| {
            child.wait().unwrap();
            thread(child.id())
        });
        let gone = gone.unwrap();
        let (fs, _, fh) = written(Validate::None, gone).await;
        fs.clone().flush(gone, fh, 1).await.unwrap();
        fs.write(fh, 0, b"a").unwrap();
        fs.clone().flush(thread(1), fh, 1).await.unwrap();
        assert_eq!(text(&fs).await, b"old");
    }

    #[tokio::test]
    async fn what_was_written_under_a_lock_is_set_before_that_goes() {
        let (fs, _, fh) = written(Validate::None, thread(1)).await;
        let owner = Owner { family: Family::Fcntl, id: 7 };
        let range = Range { start: 0, end: u64::MAX };
        let lock = Lock { owner, handle: fh.0, pid: 1, process: None, kind: Kind::Exclusive, range };
        {
            let mut state = fs.state.lock();
            let file = state.handle(fh).unwrap().file;
            assert!(state.locks_mut().acquire(file, lock));
        }
        fs.clone().flush(thread(1), fh, 7).await.unwrap();
        assert_eq!(text(&fs).await, b"");
    }

    #[tokio::test]
    async fn who_empties_a_file_that_somebody_else_has_set_or_made_meanwhile_hears_of_it() {
        let (fs, ino, fh) = written(Validate::None, thread(1)).await;
        fs.write(fh, 0, b"old").unwrap();
        fs.clone().release(fh).await;
        let fh = fs.clone().open(thread(1), ino, Access { truncate: false, ..WRITE }).await.unwrap().fh;
        let (_, new) = fs.create(thread(1), (ROOT, "new"), 0o644, WRITE, true).unwrap();
        for key in ["k", "new"] {
            let theirs = Text::from(&b"theirs"[..]);
            fs.cache.set_key_value(&Key::from(key), theirs, Expect::Anything).await.unwrap();
        }
        let changes = Changes { size: Some(0), ..Changes::default() };
        fs.clone().setattr(thread(1), ino, Some(fh), changes).await.unwrap();
        for fh in [fh, new.fh] {
            assert!(fs.clone().flush(thread(1), fh, 1).await.is_err());
        }
        assert_eq!(text(&fs).await, b"theirs");
    }

    #[tokio::test]
    async fn who_looks_a_file_up_waits_for_what_its_end_sets() {
        for validate in [Validate::Json, Validate::None] {
            let (fs, ino, fh) = written(validate, thread(1)).await;
            fs.write(fh, 0, b"22").unwrap();
            let another = fs.begin(["k".to_owned()]).await.unwrap();
            let end = tokio::spawn(fs.clone().release(fh));
            tokio::task::yield_now().await;
            let other = thread(std::process::id());
            let looked = tokio::spawn(fs.clone().lookup(other, ROOT, "k".into()));
            let read = Access { write: false, append: false, truncate: false };
            let opened = tokio::spawn(fs.clone().open(other, ino, read));
            tokio::task::yield_now().await;
            assert!(!looked.is_finished() && !opened.is_finished() && text(&fs).await == b"old");
            drop(another);
            assert_eq!(looked.await.unwrap().unwrap().attr.unwrap().size, 2);
            _ = opened.await.unwrap();
            end.await.unwrap();
            assert_eq!(text(&fs).await, b"22");
        }
    }
}
